"""Contest: the newest release against the champion, on every example that is joined after it was made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from riverdelta.core.arrays import Array, Arrays, nest, part, take
from riverdelta.core.errors import Corrupt, NotFound
from riverdelta.core.examples import Examples
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.settings import Settings
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation.trial import Trial, Verdict
from riverdelta.learning.observers import Observer
from riverdelta.learning.outcomes import Outcome
from riverdelta.storage.registry import Release, ReleaseStore

_log = logging.getLogger(__name__)
_NONE = -1
#: What of a trial's report is kept with the release.
_FACTS = {"verdict": "verdict", "difference": "mean", "lower": "lower", "upper": "upper", "trial_examples": "examples"}


class Contest(Observer):
    """Which release is the champion, and which serves: at most one trial at a time, between frozen tables.

    A release that comes while a trial runs waits, and the newest goes next. Examples and controls are only noted as they are
    read; `settle` does in the registry what follows from them.
    """

    def __init__(self, store: ReleaseStore, new_stack: Callable[[], Stack], settings: Settings, loss: Loss = LOG_LOSS) -> None:
        self.store, self._new_stack, self._guard = store, new_stack, settings.guard
        self._terms: dict[str, Any] = {"margin": settings.promote_margin, "alpha": settings.promote_alpha, "loss": loss}
        self._trial = Trial(**self._terms)
        self._stacks: tuple[Stack, Stack] | None = None
        champion = store.champion()
        #: The champion as the records that were read have it: the store may be ahead of them after a restart.
        self.champion = _NONE if champion is None else champion.number
        #: The release that serves, as the records that were read have it.
        self.serving = self.champion
        #: The release on trial, and the newest that ever was.
        self.challenger: int | None = None
        self._last = _NONE
        #: The last control's outcome, where the registry has yet to act on it.
        self.owed: Outcome | None = None

    @property
    def verdict(self) -> Verdict:
        """What the trial says so far."""
        return self._trial.verdict

    def registered_champion(self) -> Release:
        """Return the registry's champion."""
        champion = self.store.champion()
        assert champion is not None  # release 0 was made before the first step
        return champion

    def on_examples(self, position: int, examples: Examples) -> None:
        """Judge joined examples."""
        if self._stacks is None:
            return
        base = np.ascontiguousarray(examples.base)
        champion, challenger = (stack.predict(examples.columns, base) for stack in self._stacks)
        rows, label, importance = examples.measured()
        self._trial.update(champion[rows], challenger[rows], label, importance)

    def on_outcome(self, outcome: Outcome) -> None:
        """Note what the registry has to act on."""
        self.owed = outcome

    def settle(self, position: int) -> Outcome | None:
        """Do the registry's part of what was read up to `position`; return the control's outcome that it was, if any.

        By the outcome alone, and again where a full disk stopped it: it stays `owed` until the caller has done its part too.
        """
        if self.verdict is Verdict.rejected:
            self.close()
            self.offer(position)
        outcome = self.owed
        if outcome is None:
            return None
        number, done = outcome.release, outcome.refused is None
        if done and number is not None:
            if outcome.champion:
                self.store.promote(number)
                self.champion = number
            if outcome.action == "rollback":
                # The trial ends, and only a release that is made from now on goes on trial.
                self.close(Verdict.undecided)
                self._last, self.serving = max((release.number for release in self.store.all()), default=number), number
            elif outcome.action == "release" and self._guard == "live":
                self.serving = number
        if outcome.action == "promote" and (done or number == self.challenger):
            # A challenger that cannot be promoted, or whose place another has taken, has not been.
            self.close(None if done and number == self.challenger else Verdict.undecided)
        if outcome.action in ("promote", "release"):
            self.offer(position)
        return outcome

    def offer(self, position: int) -> None:
        """Begin the next trial where none runs and there is a release newer than the champion and all challengers.

        One made after `position` is none yet: it has learned from the records that its trial would judge it on.
        """
        if self.challenger is not None or self.champion == _NONE:
            return
        known = max(self.champion, self._last)
        newer = [release for release in self.store.all() if release.number > known and release.position <= position]
        if newer:
            self._begin(newer[-1].number)

    def close(self, verdict: Verdict | None = None) -> None:
        """Write the verdict, the trial's own by default, to the challenger's facts and end the trial."""
        if self.challenger is not None:
            report = self._trial.report() | ({} if verdict is None else {"verdict": verdict})
            self.store.judge(self.challenger, {name: report[key] for name, key in _FACTS.items()})
        self.challenger, self._stacks, self._trial = None, None, Trial(**self._terms)

    def report(self) -> dict[str, Any]:
        """Return the release that serves, and the challenger's number with the trial's report, None while there is none."""
        trial = None if self.challenger is None else {"challenger": self.challenger, **self._trial.report()}
        return {"release": self.serving, "trial": trial}

    def state(self) -> dict[str, Array]:
        """Return what `load` needs; the tables come from the releases."""
        challenger = _NONE if self.challenger is None else self.challenger
        numbers = np.array([challenger, self._last, self.champion, self.serving], np.int64)
        return {"numbers": numbers} | nest({"trial": self._trial.state()})

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned; a trial whose releases cannot be read any more is dropped."""
        of_0_1 = take(arrays, "numbers").shape == (3,)  # which did not save what serves
        numbers = take(arrays, "numbers", np.zeros(4 - of_0_1, np.int64)).tolist()
        number, self._last, self.champion, self.serving = [*numbers, self.serving][:4]
        self.challenger, self._stacks, self._trial = None, None, Trial(**self._terms)
        if number != _NONE and self._begin(number):
            self._trial.load(part(arrays, "trial"))

    def _begin(self, challenger: int) -> bool:
        """Put a release on trial; return whether its tables and the champion's could be read."""
        self._last = challenger
        try:
            releases = self.store.get(self.champion), self.store.get(challenger)
            champion, against = (stack_of(release, self.store, self._new_stack) for release in releases)
        except (Corrupt, NotFound) as error:
            _log.error("the trial of release %d is dropped: %s", challenger, error)
            return False
        self.challenger, self._stacks = challenger, (champion, against)
        return True


def stack_of(release: Release, store: ReleaseStore, new_stack: Callable[[], Stack]) -> Stack:
    """Return a stack with the tables of a release; raises `Corrupt` where its state cannot be read."""
    stack = new_stack()
    stack.load(part(store.state(release), "stack"))
    return stack
