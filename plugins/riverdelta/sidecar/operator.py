"""Operator: writes commands into the journal and reports the outcome of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from riverdelta.core.errors import Refused, RiverdeltaError, Unavailable
from riverdelta.learning.command import Command
from riverdelta.metrics.learner import reports
from riverdelta.sidecar.archive import Archive
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Journal
from riverdelta.storage.journal.ids import rotate_key
from riverdelta.storage.registry.releases import Release

_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class ReleaseRow:
    """A release: its examples, its losses and verdict, and whether it serves; losses are in the unit of the loss per row.

    `gain_on_champion` is measured on the `trial_examples` of its trial.
    """

    release: int
    time: float
    examples: int
    loss_base: float | None
    loss_served: float | None
    gain_on_champion: float | None
    trial_examples: int | None
    verdict: str | None
    bytes: int
    champion: bool
    serving: bool


@dataclass(frozen=True)
class Answer:
    """The position of a command in the journal, its outcome, and the learner's state after it.

    `sequence` is None if it was refused before it was written. `refused` is why, `waits` why the learner has not reached it
    yet; `target` is the release that was made, promoted or rolled back to; `held` is the number of held rows that a
    resume learned or dropped, `removed` counts by kind what a forget removed.
    """

    sequence: int | None
    obeyed: bool
    refused: str | None
    waits: str | None
    target: int | None
    position: int | None
    release: int | None
    swap: int | None
    champion: int | None
    frozen: bool | None
    held: int | None
    removed: dict[str, int] | None = None


class Operator:
    """Writes commands into a home's journal; its learner applies them when it reads them, now or once it is started.

    A command that cannot be applied is refused before it is written. The learner refuses one that can no longer be applied
    when it reads it; `look` and `wait` then raise `Refused`.
    """

    def __init__(self, home: Home, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self.home, self.journal, self.clock = home, journal, clock

    def ask(self, command: Command) -> int:
        """Write a command and return its sequence number; raises as `Command.check` does, and then writes nothing.

        A rollback without a release gets `target()`. A key is replaced at once: a leaked key cannot wait for a learner.
        """
        store = self.home.releases()
        command = command.resolved(self.target).private(self.home.definition.recorded, self._request)
        number = command.record().release
        position = None if number is None else store.get(number).position
        command.check(Archive(store, self.journal, self.home.settings.guard, begins=self.home.begins), position)
        if command.immediate:
            rotate_key(self.home.key_path, self.clock(), self.home.settings.key_window_seconds)
        try:
            return self.journal.write(command.record(asked=self.journal.last(), position=position, time=self.clock()))
        except Unavailable as error:
            if command.immediate:
                raise Unavailable(f"the key was replaced, but this could not be recorded in the journal: {error}") from error
            raise

    def _request(self, name: str) -> tuple[int, int] | None:
        found = self.journal.log.named(name)
        return None if found is None else found.request

    def target(self) -> int:
        """Return the default release of a rollback: the champion, or the one before it if only champions serve."""
        champions = self.home.releases().champions()
        return champions[-2] if self.home.settings.guard == "release" and len(champions) > 1 else champions[-1]

    def releases(self) -> list[ReleaseRow]:
        """Return a row for each release, oldest first."""
        store = self.home.releases()
        champion, status = store.champion(), self.home.read_status()
        trial = status.get("trial") or {}
        so_far = {"difference": trial.get("mean"), "trial_examples": trial.get("examples"), "verdict": "on trial"}
        running = {trial.get("challenger"): so_far}
        return [
            ReleaseRow(
                release=r.number,
                time=r.time,
                examples=r.examples,
                loss_base=facts.get("loss_base"),
                loss_served=facts.get("loss_served"),
                gain_on_champion=facts.get("difference"),
                trial_examples=facts.get("trial_examples"),
                verdict=facts.get("verdict"),
                bytes=store.size(r),
                champion=champion is not None and r.number == champion.number,
                serving=r.number == status.get("release"),
            )
            for r in store.all()
            for facts in [{**running.get(r.number, {}), **r.facts}]
        ]

    async def answer(self, command: Command, sequence: int, seconds: float = 30.0) -> Answer:
        """Return the outcome of a command that `ask` wrote at `sequence`; wait at most `seconds` for the learner."""
        refused = waits = None
        try:
            if not command.immediate:
                await self.wait(sequence, seconds)
        except Refused as error:
            refused = str(error)
        except Unavailable as error:
            waits = str(error)
        return self._answer(sequence, refused, waits)

    def refusal(self, error: RiverdeltaError) -> Answer:
        """Return the answer to a command that `ask` refused with `error`."""
        return self._answer(None, str(error), None)

    def _answer(self, sequence: int | None, refused: str | None, waits: str | None) -> Answer:
        status = self.home.read_status()
        outcome = {} if sequence is None else outcome_of(status, sequence) or {}
        known = {name: status.get(name) for name in ("position", "release", "swap", "champion", "frozen")}
        return Answer(
            sequence,
            refused is None and waits is None,
            refused,
            waits,
            outcome.get("release"),
            **known,
            held=outcome.get("held"),
            removed=outcome.get("removed"),
        )

    def look(self, sequence: int) -> dict[str, Any] | None:
        """Return the learner's status once it has applied the command at `sequence`, None until then.

        Raises `Refused` if the learner refused it, and `Unavailable` if no learner runs or the outcome is no longer kept.
        """
        status = self.home.read_status()
        if status.get("position", 0) >= sequence:
            outcome = outcome_of(status, sequence)
            if outcome is None:
                raise Unavailable(
                    f"the learner has read record {sequence}, but its outcome is no longer kept; `riverdelta releases` "
                    f"shows what serves now"
                )
            if (reason := outcome["refused"]) is not None:
                raise Refused(f"the {outcome['action']} at position {sequence} was refused, and nothing changed: {reason}")
            if not outcome.get("pending"):
                return status
        if not reports(status, self.clock()):
            raise Unavailable("no learner runs on this folder; the command waits in the journal until one is started")
        return None

    async def wait(self, sequence: int, seconds: float = 30.0) -> dict[str, Any]:
        """Return the learner's status once it has applied the command; raises as `look`, and `Unavailable` after `seconds`."""
        deadline = time.monotonic() + seconds
        while (status := self.look(sequence)) is None:
            if time.monotonic() >= deadline:
                raise self._late(sequence, seconds)
            await asyncio.sleep(_LOOK_SECONDS)
        return status

    def _late(self, sequence: int, seconds: float) -> Unavailable:
        status = self.home.read_status()
        if again := status.get("relearning"):
            why = f"it is relearning {again['since']} to {again['until']} and is at {again['position']}"
        else:
            why = status.get("paused") or "it is behind"
        where, at = f"the learner (pid {status.get('pid')}) is at position", status.get("position")
        if not again and isinstance(at, int) and at >= sequence:
            return Unavailable(f"{where} {at} and did not complete {sequence} within {seconds:g} s; it continues")
        return Unavailable(
            f"{where} {at} and did not reach {sequence} within {seconds:g} s ({why}); the command waits in the journal"
        )


def exportable(home: Home, number: int | None = None) -> Release:
    """Return a release, by default the one that serves, or the champion if none serves yet.

    Raises `NotFound` or `Corrupt` if there is no such release, or it is damaged.
    """
    store, serving = home.releases(), home.read_status().get("release")
    by_default = store.champions()[-1] if serving is None else serving
    return store.intact(by_default if number is None else number)


def outcome_of(status: Mapping[str, Any], sequence: int) -> dict[str, Any] | None:
    """Return the outcome of the control at `sequence` from a learner's status, None if it is not there."""
    return next((outcome for outcome in status.get("outcomes", ()) if outcome["sequence"] == sequence), None)
