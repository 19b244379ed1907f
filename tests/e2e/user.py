"""User: scores a few rows and feeds them back, again and again over one connection, and keeps what it was answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from riverdelta.lab.client import FAILURES, Grpc, Http

#: So many people and things, at the most, are in what it sends: what is learned of them is soon all there.
PEOPLE, THINGS = 200, 200


class User(threading.Thread):
    """Sends `rate` exchanges a second, each a request of `rows` rows to the reference scorer and the labels of all of them.

    The first row of every request is the same, so that each state shows by its score. `scores` holds that one by state: one
    value, for a state scores in one way wherever it is asked. `states` are those that it met, in their order.
    """

    def __init__(self, transport: Http | Grpc, seed: int, rate: float, rows: int = 8) -> None:
        super().__init__(daemon=True)
        self._transport, self._rng, self._pause, self._rows = transport, np.random.default_rng(seed), 1.0 / rate, rows
        self._done = threading.Event()
        self.requests = self.accepted = 0
        self.failures: list[str] = []
        self.seconds: list[float] = []
        self.states: list[tuple[int, int]] = []
        self.scores: dict[tuple[int, int], set[float]] = {}

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
        people, things = (self._rng.integers(0, n, self._rows) for n in (PEOPLE, THINGS))
        people[0] = things[0] = 0
        columns = {"user_id": people, "item_id": things, "hour": np.full(self._rows, 12.0, np.float32)}
        label = ((people + things) % 3 == 0).astype(np.float32)
        self.requests += 1
        start = time.perf_counter()
        scores, impressions, state = self._transport.score(columns)
        self.seconds.append(time.perf_counter() - start)
        release, _, swap = state.partition("+")
        met = int(release), int(swap)
        if not self.states or self.states[-1] != met:
            self.states.append(met)
        self.scores.setdefault(met, set()).add(float(scores[0]))
        self.requests += 1
        outcomes, _ = self._transport.feedback([f"{impressions}.{i}" for i in range(self._rows)], label)
        self.accepted += outcomes.count("accepted")


def one_score_a_state(users: Sequence[User]) -> dict[tuple[int, int], set[float]]:
    """Return the states that scored the same row in more than one way, and how; empty where all is well."""
    merged: dict[tuple[int, int], set[float]] = {}
    for user in users:
        for state, scores in user.scores.items():
            merged.setdefault(state, set()).update(scores)
    return {state: scores for state, scores in merged.items() if len(scores) > 1}
