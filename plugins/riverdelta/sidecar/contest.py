"""Contest: compares the newest release with the champion, on the examples joined after it was made."""

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
from riverdelta.learning.erased import Erased
from riverdelta.learning.observers import Observer
from riverdelta.learning.outcomes import Outcome
from riverdelta.storage.registry import Release, ReleaseStore

_log = logging.getLogger(__name__)
_NONE = -1
#: The verdict of a release that an operator promoted, unless its trial had promoted it.
BY_HAND = "promoted by hand"
#: The facts of a release that a trial's report gives.
_FACTS = {"verdict": "verdict", "difference": "mean", "lower": "lower", "upper": "upper", "trial_examples": "examples"}


class Contest(Observer):
    """Decides which release is the champion and which serves, by one trial at a time between frozen tables.

    Releases made during a trial wait; the newest is the next challenger. Examples and outcomes are only recorded as they are
    read; `settle` updates the registry.
    """

    def __init__(self, store: ReleaseStore, new_stack: Callable[[], Stack], settings: Settings, loss: Loss = LOG_LOSS) -> None:
        self.store, self._new_stack, self._guard = store, new_stack, settings.guard
        self._terms: dict[str, Any] = {"margin": settings.promote_margin, "alpha": settings.promote_alpha, "loss": loss}
        self._trial = Trial(**self._terms)
        self._stacks: tuple[Stack, Stack] | None = None
        champion = store.champion()
        #: The champion at the last record read; after a restart the store may be ahead.
        self.champion = _NONE if champion is None else champion.number
        #: The release that serves at the last record read.
        self.serving = self.champion
        #: The release on trial, and the newest that has been on trial.
        self.challenger: int | None = None
        self._last = _NONE
        #: The last outcome that is not yet in the registry.
        self.owed: Outcome | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict of the trial so far."""
        return self._trial.verdict

    def registered_champion(self) -> Release:
        """Return the registry's champion."""
        champion = self.store.champion()
        assert champion is not None  # release 0 exists before the first step
        return champion

    def on_examples(self, position: int, examples: Examples) -> None:
        """Score joined examples by champion and challenger, and add their losses to the trial."""
        if self._stacks is None:
            return
        base = np.ascontiguousarray(examples.base)
        champion, challenger = (stack.predict(examples.columns, base) for stack in self._stacks)
        rows, label, importance = examples.measured()
        group = None if examples.group is None else examples.group[rows]
        self._trial.update(champion[rows], challenger[rows], label, importance, base[rows], group)

    def on_outcome(self, outcome: Outcome) -> None:
        """Record an outcome for `settle`."""
        self.owed = outcome

    def settle(self, position: int) -> Outcome | None:
        """Update the registry for what was read up to `position`; return the outcome that it acted on, if any.

        It can be called again if a full disk stopped it: the outcome stays `owed` until the caller has acted on it too.
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
                # The trial ends, and only releases made from now on are challengers.
                self.close(Verdict.undecided)
                self._last, self.serving = max((release.number for release in self.store.all()), default=number), number
            elif outcome.action == "release" and self._guard == "live":
                self.serving = number
        if outcome.action == "promote" and (done or number == self.challenger):
            # Without its own promotion the challenger has no verdict.
            self.close(None if done and number == self.challenger else Verdict.undecided)
        if done and outcome.champion and number is not None and "by" not in outcome.details:
            verdicts = {release.number: release.facts.get("verdict") for release in self.store.all()}
            if verdicts.get(number) != Verdict.promoted:
                self.store.judge(number, {"verdict": BY_HAND})
        if outcome.action in ("promote", "release"):
            self.offer(position)
        return outcome

    def offer(self, position: int) -> None:
        """Begin the next trial if none runs and there is a release newer than the champion and all challengers.

        A release made after `position` waits: it has learned from the records that its trial would measure it on.
        """
        if self.challenger is not None or self.champion == _NONE:
            return
        known = max(self.champion, self._last)
        newer = [release for release in self.store.all() if release.number > known and release.position <= position]
        if newer:
            self._begin(newer[-1].number)

    def close(self, verdict: Verdict | None = None) -> None:
        """End the trial and write the verdict, by default the trial's own, to the challenger's facts."""
        if self.challenger is not None:
            report = self._trial.report() | ({} if verdict is None else {"verdict": verdict})
            self.store.judge(self.challenger, {name: report[key] for name, key in _FACTS.items()})
        self.challenger, self._stacks, self._trial = None, None, Trial(**self._terms)

    def forget(self, erased: Erased) -> None:
        """Reset the coefficients of an erased id in the tables on trial."""
        if self._stacks is not None and (name := erased.subject.name) is not None:
            for stack in self._stacks:
                stack.forget_id(name, erased.subject.own, erased.columns)

    def report(self) -> dict[str, Any]:
        """Return the release that serves, and the trial's report with its challenger, None if no trial runs."""
        trial = None if self.challenger is None else {"challenger": self.challenger, **self._trial.report()}
        return {"release": self.serving, "trial": trial}

    def state(self) -> dict[str, Array]:
        """Return the state to save, without the tables, which are in the releases."""
        challenger = _NONE if self.challenger is None else self.challenger
        numbers = np.array([challenger, self._last, self.champion, self.serving], np.int64)
        return {"numbers": numbers} | nest({"trial": self._trial.state()})

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; a trial whose releases can no longer be read is dropped."""
        of_0_1 = take(arrays, "numbers").shape == (3,)  # 0.1 did not save which release serves
        numbers = take(arrays, "numbers", np.zeros(4 - of_0_1, np.int64)).tolist()
        number, self._last, self.champion, self.serving = [*numbers, self.serving][:4]
        self.challenger, self._stacks, self._trial = None, None, Trial(**self._terms)
        if number != _NONE and self._begin(number):
            self._trial.load(part(arrays, "trial"))

    def _begin(self, challenger: int) -> bool:
        """Put a release on trial; return False if its tables or the champion's cannot be read."""
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
    """Return a stack with the tables of a release; raises `Corrupt` if its state cannot be read."""
    stack = new_stack()
    stack.load(part(store.state(release), "stack"))
    return stack
