"""User: scores a few rows and feeds them back, again and again over one connection, and keeps what it was answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riverdelta.lab.client import FAILURES, Grpc, Http

#: So many people and things, at the most, are in what it sends: what is learned of them is soon all there.
PEOPLE, THINGS = 200, 200


#: Makes the columns of a request of so many rows, and their labels.
Traffic = Callable[[np.random.Generator, int], tuple[dict[str, Any], Any]]


def visits(rng: np.random.Generator, rows: int) -> tuple[dict[str, Any], Any]:
    """What the reference scorer gets; the first row is always the same, so that each state shows by its score."""
    people, things = (rng.integers(0, n, rows) for n in (PEOPLE, THINGS))
    people[0] = things[0] = 0
    columns = {"user_id": people, "item_id": things, "hour": np.full(rows, 12.0, np.float32)}
    return columns, ((people + things) % 3 == 0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Answer:
    """The scores of a request's columns, and the state that made them: release and swap."""

    state: tuple[int, int]
    columns: dict[str, Any]
    scores: Any


class User(threading.Thread):
    """Sends `rate` exchanges a second, each a request of `rows` rows and the labels of all of them.

    `states` are those that it met, in their order.
    """

    def __init__(self, transport: Http | Grpc, seed: int, rate: float, rows: int = 8, traffic: Traffic = visits) -> None:
        super().__init__(daemon=True)
        self._traffic = traffic
        self._transport, self._rng, self._pause, self._rows = transport, np.random.default_rng(seed), 1.0 / rate, rows
        self._done = threading.Event()
        self.requests = self.accepted = 0
        self.failures: list[str] = []
        self.seconds: list[float] = []
        self.states: list[tuple[int, int]] = []
        self.answers: list[Answer] = []

    def run(self) -> None:
        """Go on until `stop`."""
        due = time.monotonic()
        while not self._done.wait(max(due - time.monotonic(), 0.0)):
            # Whoever is late does not catch up: the load stays bounded.
            due = max(due + self._pause, time.monotonic() - self._pause)
            try:
                self._exchange()
            except FAILURES as error:
                self.failures.append(f"{type(error).__name__}: {error}")
        self._transport.close()

    def stop(self) -> None:
        """End after the present exchange, and wait for it."""
        self._done.set()
        self.join()

    def _exchange(self) -> None:
        columns, label = self._traffic(self._rng, self._rows)
        self.requests += 1
        start = time.perf_counter()
        scores, impressions, state = self._transport.score(columns)
        self.seconds.append(time.perf_counter() - start)
        release, _, swap = state.partition("+")
        met = int(release), int(swap)
        if not self.states or self.states[-1] != met:
            self.states.append(met)
        self.answers.append(Answer(met, columns, scores))
        self.requests += 1
        outcomes, _ = self._transport.feedback([f"{impressions}.{i}" for i in range(self._rows)], label)
        self.accepted += outcomes.count("accepted")


def one_score_a_state(users: Sequence[User]) -> dict[tuple[int, int], set[float]]:
    """Return the states that scored the first row of `visits` in more than one way, and how; empty where all is well."""
    merged: dict[tuple[int, int], set[float]] = {}
    for answer in (answer for user in users for answer in user.answers):
        merged.setdefault(answer.state, set()).add(float(answer.scores[0]))
    return {state: scores for state, scores in merged.items() if len(scores) > 1}
