"""Operator: writes commands where the learner reads them, and says what came of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from riverdelta.core.errors import Refused, Unavailable
from riverdelta.learning.commands import Command
from riverdelta.metrics.learner import STALE_SECONDS
from riverdelta.sidecar.archive import Archive
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Journal
from riverdelta.storage.journal.ids import rotate_key

_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class ReleaseRow:
    """A release: what it learned from, how it was judged, and whether it serves; losses and gains are in nats a row.

    `gain_on_champion` is measured on the `trial_examples` of its trial.
    """

    release: int
    time: float
    examples: int
    log_loss_base: float | None
    log_loss_served: float | None
    gain_on_champion: float | None
    trial_examples: int | None
    verdict: str | None
    bytes: int
    champion: bool
    serving: bool


@dataclass(frozen=True)
class Answer:
    """Where a command lies in the journal, what came of it, and the learner's state since.

    `refused` says why the learner refused it, `waits` why it has not come to it yet; `target` is the release that was made,
    promoted or rolled back to.
    """

    sequence: int
    obeyed: bool
    refused: str | None
    waits: str | None
    target: int | None
    position: int | None
    release: int | None
    swap: int | None
    champion: int | None
    frozen: bool | None


class Operator:
    """Writes commands into a home's journal, which its learner obeys when it reads them, running now or started later.

    What cannot be done is refused before anything is written; what can no longer be done when the learner comes to it is
    refused there, as `look` and `wait` say.
    """

    def __init__(self, home: Home, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self.home, self.journal, self.clock = home, journal, clock

    def ask(self, command: Command) -> int:
        """Write a command, and return its sequence number; raises as `Command.check` does, and writes nothing then.

        A rollback that names no release takes `target()`. A new key is made at once: a leaked one cannot wait for a learner.
        """
        store, command = self.home.releases(), command.resolved(self.target)
        number = command.record().release
        position = None if number is None else store.get(number).position
        command.check(Archive(store, self.journal, self.home.settings.guard), position)
        if command.immediate:
            rotate_key(self.home.key_path, self.clock(), self.home.settings.key_window_seconds)
        try:
            return self.journal.write(command.record(asked=self.journal.last(), position=position, time=self.clock()))
        except Unavailable as error:
            if command.immediate:
                raise Unavailable(f"the key is new, and the journal has no record of that: {error}") from error
            raise

    def target(self) -> int:
        """Return where `rollback` goes by default: to the champion, or to its predecessor where only champions serve."""
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
                log_loss_base=facts.get("log_loss_base"),
                log_loss_served=facts.get("log_loss_served"),
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
        """Return what has come within `seconds` of a command that `ask` wrote at `sequence`."""
        refused = waits = None
        try:
            if not command.immediate:
                await self.wait(sequence, seconds)
        except Refused as error:
            refused = str(error)
        except Unavailable as error:
            waits = str(error)
        status = self.home.read_status()
        target = (outcome_of(status, sequence) or {}).get("release")
        known = {name: status.get(name) for name in ("position", "release", "swap", "champion", "frozen")}
        return Answer(sequence, refused is None and waits is None, refused, waits, target, **known)

    def look(self, sequence: int) -> dict[str, Any] | None:
        """Return the learner's status when it has obeyed, None until then.

        Raises `Refused` where the learner refused, and `Unavailable` where none runs, or what came of it is no longer known.
        """
        status = self.home.read_status()
        if status.get("position", 0) >= sequence:
            outcome = outcome_of(status, sequence)
            if outcome is None:
                raise Unavailable(
                    f"the learner has read record {sequence}, and what came of it is no longer kept; `riverdelta releases` "
                    f"shows what serves now"
                )
            if (reason := outcome["refused"]) is not None:
                raise Refused(f"the {outcome['action']} at position {sequence} was refused, and nothing changed: {reason}")
            return status
        if self.clock() - status.get("time", 0.0) > STALE_SECONDS:
            raise Unavailable("no learner runs on this folder: the command waits in the journal until one is started")
        return None

    async def wait(self, sequence: int, seconds: float = 30.0) -> dict[str, Any]:
        """Return the learner's status when it has obeyed; raises as `look` does, and `Unavailable` where it takes too long."""
        deadline = time.monotonic() + seconds
        while (status := self.look(sequence)) is None:
            if time.monotonic() >= deadline:
                raise self._late(sequence, seconds)
            await asyncio.sleep(_LOOK_SECONDS)
        return status

    def _late(self, sequence: int, seconds: float) -> Unavailable:
        status = self.home.read_status()
        if again := status.get("relearning"):
            why = f"it learns again from {again['since']} to {again['until']} and has come to {again['position']}"
        else:
            why = status.get("paused") or "it is behind"
        return Unavailable(
            f"the learner (pid {status.get('pid')}) is at position {status.get('position')} and has not come to "
            f"{sequence} within {seconds:g} s ({why}); the command is in the journal"
        )


def outcome_of(status: Mapping[str, Any], sequence: int) -> dict[str, Any] | None:
    """Return what a learner's status says came of the control at `sequence`, None where it does not say."""
    return next((outcome for outcome in status.get("outcomes", ()) if outcome["sequence"] == sequence), None)
