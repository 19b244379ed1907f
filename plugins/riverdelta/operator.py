"""Operator: the steps back and forth, each a record in the journal at its position."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from riverdelta.errors import Unavailable
from riverdelta.events import Control
from riverdelta.home import Home
from riverdelta.journal import Journal
from riverdelta.registry import Release

#: What of the learner's status a command is answered with.
TOLD = ("position", "release", "swap", "champion", "frozen")
_LOOK_SECONDS = 0.02
#: A learner whose status is older than this does not run.
_SILENT_SECONDS = 10.0


class Operator:
    """Writes controls into a home's journal, which its learner obeys when it reads them, running now or started later.

    Each method returns the control's sequence number. What cannot be done is refused before anything is written.
    """

    def __init__(self, home: Home, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self.home, self.journal, self.clock = home, journal, clock

    def freeze(self) -> int:
        """Stop learning; serving, feedback and measuring go on."""
        return self._write("freeze")

    def resume(self) -> int:
        """Learn again, and close the breaker."""
        return self._write("resume")

    def release(self) -> int:
        """Make a release of the present tables."""
        return self._write("release")

    def promote(self, number: int) -> int:
        """Make a release the champion; raises `NotFound` or `Corrupt` where it is not there, or not whole."""
        return self._write("promote", release=self._whole(number).number)

    def rollback(self, number: int | None = None, relearn: bool = False, freeze: bool = False) -> int:
        """Serve a release again and learn on from it; the champion, or its predecessor where champions alone serve, by default.

        The examples since are un-learned; with `relearn` they are learned again, with `freeze` nothing is until `resume`.
        Raises `NotFound` or `Corrupt` where the release or its state is not there, or not whole.
        """
        release = self._whole(self.target() if number is None else number)
        self.home.releases().state(release)
        back = {"release": release.number, "position": release.position, "relearn": relearn, "freeze": freeze}
        return self._write("rollback", **back)

    def target(self) -> int:
        """Return the release that `rollback` goes to by default."""
        champions = self.home.releases().champions()
        return champions[-2] if self.home.settings.guard == "release" and len(champions) > 1 else champions[-1]

    def releases(self) -> list[dict[str, Any]]:
        """Return a row for each release, oldest first; losses and differences are in nats a row."""
        store = self.home.releases()
        champion, serving = store.champion(), self.home.read_status().get("release")
        trial = self.home.read_status().get("trial") or {}
        return [
            {
                "release": r.number,
                "time": r.time,
                "examples": r.examples,
                "log_loss_base": r.facts.get("log_loss_base"),
                "log_loss_served": r.facts.get("log_loss_served"),
                "gain_on_champion": r.facts.get(
                    "difference", trial.get("mean") if trial.get("challenger") == r.number else None
                ),
                "verdict": r.facts.get("verdict", "on trial" if trial.get("challenger") == r.number else None),
                "bytes": r.bytes,
                "champion": champion is not None and r.number == champion.number,
                "serving": r.number == serving,
            }
            for r in store.all()
        ]

    def look(self, sequence: int) -> dict[str, Any] | None:
        """Return the learner's status when it has obeyed, None until then; raises `Unavailable` where none runs."""
        status = self.home.read_status()
        if status.get("position", 0) >= sequence:
            return status
        if self.clock() - status.get("time", 0.0) > _SILENT_SECONDS:
            raise Unavailable("no learner runs on this folder: the command waits in the journal until one is started")
        return None

    def wait(self, sequence: int, seconds: float = 30.0) -> dict[str, Any]:
        """Return the learner's status when it has obeyed; raises `Unavailable` where none runs, or it takes too long."""
        deadline = time.monotonic() + seconds
        while (status := self.look(sequence)) is None:
            if time.monotonic() > deadline:
                raise self.late(sequence, seconds)
            time.sleep(_LOOK_SECONDS)
        return status

    def late(self, sequence: int, seconds: float) -> Unavailable:
        """Return the error of a command that was not obeyed within so many seconds."""
        status = self.home.read_status()
        return Unavailable(
            f"the learner (pid {status.get('pid')}) is at position {status.get('position')} and has not come to "
            f"{sequence} within {seconds:g} s ({status.get('paused') or 'it is behind'}); the command is in the journal"
        )

    def outcome(self, sequence: int, waits: Unavailable | None = None) -> dict[str, Any]:
        """Return what a program is told of a command: where it lies, whether it was obeyed, and how learning stands now."""
        status = self.home.read_status()
        told = {"sequence": sequence, "obeyed": waits is None, "waits": None if waits is None else str(waits)}
        return told | {name: status.get(name) for name in TOLD}

    def _whole(self, number: int) -> Release:
        release = self.home.releases().get(number)
        release.verify()
        return release

    def _write(self, action: str, **arguments: Any) -> int:
        return self.journal.write(Control(action, arguments, self.clock()))
