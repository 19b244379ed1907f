"""Operator: the steps back and forth, each a record in the journal at its position."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from riverdelta.core.errors import NotFound, Refused, Unavailable
from riverdelta.core.records import Control
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Journal
from riverdelta.storage.registry import ReleaseStore

#: What of the learner's status a command is answered with.
ANSWERED = ("position", "release", "swap", "champion", "frozen")
_LOOK_SECONDS = 0.02
#: A learner whose status is older than this does not run.
_SILENT_SECONDS = 10.0


def check(control: Control, store: ReleaseStore, journal: Journal, guard: str, champion: int | None = None) -> None:
    """Check that registry and journal can carry out a control now: before it is written, and again before it is obeyed.

    Raises `NotFound` or `Corrupt` where the release of a promotion or a rollback, or its state, is not there or not intact, and
    `Refused` where examples can no longer be learned again, or where only champions serve (`guard` is `release`). `champion`
    is the one at the control's position, by default the store's, which is ahead of a learner that reads records again.

    Showings of before the release are not looked at: where retention has deleted one that has become a negative since, the
    learner finds out while it relearns, and refuses then.
    """
    if control.action not in ("promote", "rollback"):
        return
    given = control.arguments
    release = store.get(given["release"])
    release.verify()
    store.state(release)
    if control.action == "promote":
        return
    number, position = release.number, release.position
    if position != given["position"]:
        raise NotFound(f"release {number} is of position {position}; the one of position {given['position']} is gone")
    if given.get("relearn") and (since := journal.complete_after()) > position:
        first = journal.first()
        gone = (
            f"the oldest record that is left is {first}: what came between was deleted"
            if first > position + 1
            else f"the feedback at position {since} is for rows that were deleted"
        )
        later = next((r.number for r in store.all() if r.position >= since), None)
        raise Refused(
            f"release {number} is of position {position}, and {gone} and cannot be learned again; roll back without --relearn"
            + ("" if later is None else f", or to release {later} or a later one")
        )
    if champion is None:
        champion = next(reversed(store.champions()), None)
    if guard == "release" and not given.get("promote", True) and champion is not None and number != champion:
        flags = "".join(f" --{flag}" for flag in ("relearn", "freeze") if given.get(flag))
        raise Refused(
            f"release {number} cannot serve: with RIVERDELTA_GUARD=release only champions do, and the champion is "
            f"{champion}; to promote it as well type `riverdelta rollback {number}{flags} --promote`"
        )


class Operator:
    """Writes controls into a home's journal, which its learner obeys when it reads them, running now or started later.

    Each method returns the control's sequence number. What cannot be done is refused before anything is written; what can no
    longer be done when the learner comes to it is refused there, as `look` and `wait` say.
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
        """Make a release the champion; raises `NotFound` or `Corrupt` where it is not there, or not intact."""
        return self._write("promote", release=number)

    def rollback(self, number: int | None = None, relearn: bool = False, freeze: bool = False, promote: bool = False) -> int:
        """Serve a release again and learn on from it, `target()` by default.

        The examples since are un-learned; with `relearn` they are learned again, with `freeze` nothing is until `resume`, and
        with `promote` the release becomes the champion. Raises as `check` does.
        """
        release = self.home.releases().get(self.target() if number is None else number)
        back = {"release": release.number, "position": release.position}
        return self._write("rollback", **back, relearn=relearn, freeze=freeze, promote=promote)

    def target(self) -> int:
        """Return where `rollback` goes by default: to the champion, or to its predecessor where only champions serve."""
        champions = self.home.releases().champions()
        return champions[-2] if self.home.settings.guard == "release" and len(champions) > 1 else champions[-1]

    def releases(self) -> list[dict[str, Any]]:
        """Return a row for each release, oldest first; losses and differences are in nats a row."""
        store = self.home.releases()
        champion, status = store.champion(), self.home.read_status()
        trial = status.get("trial") or {}
        so_far = {"difference": trial.get("mean"), "trial_examples": trial.get("examples"), "verdict": "on trial"}
        running = {trial.get("challenger"): so_far}
        return [
            {
                "release": r.number,
                "time": r.time,
                "examples": r.examples,
                "log_loss_base": facts.get("log_loss_base"),
                "log_loss_served": facts.get("log_loss_served"),
                "gain_on_champion": facts.get("difference"),
                "trial_examples": facts.get("trial_examples"),
                "verdict": facts.get("verdict"),
                "bytes": store.size(r),
                "champion": champion is not None and r.number == champion.number,
                "serving": r.number == status.get("release"),
            }
            for r in store.all()
            for facts in [{**running.get(r.number, {}), **r.facts}]
        ]

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
        if self.clock() - status.get("time", 0.0) > _SILENT_SECONDS:
            raise Unavailable("no learner runs on this folder: the command waits in the journal until one is started")
        return None

    def wait(self, sequence: int, seconds: float = 30.0) -> dict[str, Any]:
        """Return the learner's status when it has obeyed; raises as `look` does, and `Unavailable` where it takes too long."""
        deadline = time.monotonic() + seconds
        while (status := self.look(sequence)) is None:
            if time.monotonic() > deadline:
                raise self.late(sequence, seconds)
            time.sleep(_LOOK_SECONDS)
        return status

    def late(self, sequence: int, seconds: float) -> Unavailable:
        """Return the error of a command that was not obeyed within `seconds`."""
        status = self.home.read_status()
        if again := status.get("relearning"):
            why = f"it learns again from {again['since']} to {again['until']} and has come to {again['position']}"
        else:
            why = status.get("paused") or "it is behind"
        return Unavailable(
            f"the learner (pid {status.get('pid')}) is at position {status.get('position')} and has not come to "
            f"{sequence} within {seconds:g} s ({why}); the command is in the journal"
        )

    def outcome(self, sequence: int, waits: Unavailable | None = None) -> dict[str, Any]:
        """Return the answer to a program: where the command lies, what came of it, and how learning stands now."""
        status = self.home.read_status()
        refused = (outcome_of(status, sequence) or {}).get("refused")
        answer = {"sequence": sequence, "obeyed": waits is None and refused is None, "refused": refused}
        return answer | {"waits": None if waits is None else str(waits)} | {name: status.get(name) for name in ANSWERED}

    def _write(self, action: str, **arguments: Any) -> int:
        control = Control(action, arguments, self.clock())
        check(control, self.home.releases(), self.journal, self.home.settings.guard)
        return self.journal.write(control)


def outcome_of(status: Mapping[str, Any], sequence: int) -> dict[str, Any] | None:
    """Return what a learner's status says came of the control at `sequence`, None where it does not say."""
    return next((outcome for outcome in status.get("outcomes", ()) if outcome["sequence"] == sequence), None)
