"""Contest: the newest release against the champion, on every example that is joined after it was made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt, NotFound
from riverdelta.core.examples import Examples
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation.trial import Trial, Verdict
from riverdelta.storage.registry import Release, ReleaseStore

_log = logging.getLogger(__name__)
_NONE = -1
#: What of a trial's report is kept with the release.
_FACTS = {"verdict": "verdict", "difference": "mean", "lower": "lower", "upper": "upper", "trial_examples": "examples"}


class Contest:
    """At most one trial at a time, between frozen tables; a release that comes while it runs waits, and the newest goes next.

    Nothing that is learned depends on it: it decides only which release is the champion.
    """

    def __init__(self, store: ReleaseStore, new_stack: Callable[[], Stack], margin: float, alpha: float) -> None:
        self.store, self._new_stack = store, new_stack
        self._terms: dict[str, Any] = {"margin": margin, "alpha": alpha}
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

    @property
    def verdict(self) -> Verdict:
        """What the trial says so far."""
        return self._trial.verdict

    def tables(self, release: Release) -> Stack:
        """Return a stack with the tables of a release; raises `Corrupt` where its state cannot be read."""
        stack = self._new_stack()
        prefix = "stack/"
        state = self.store.state(release)
        stack.load({name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)})
        return stack

    def offer(self, position: int) -> None:
        """Begin the next trial where none runs and there is a release newer than the champion and all challengers.

        One made after `position` is none yet: it has learned from the records that its trial would judge it on.
        """
        if self.challenger is not None or self.champion == _NONE:
            return
        known = max(self.champion, self._last)
        newer = [release for release in self.store.all() if release.number > known and release.position <= position]
        if newer:
            self._begin(newer[-1].number, Trial(**self._terms))

    def saw(self, examples: Examples) -> None:
        """Judge joined examples."""
        if self._stacks is None:
            return
        base = np.ascontiguousarray(examples.base)
        champion, challenger = (stack.predict(examples.columns, base) for stack in self._stacks)
        rows, label, importance = examples.measured()
        self._trial.update(champion[rows], challenger[rows], label, importance)

    def close(self, verdict: Verdict | None = None) -> None:
        """Write the verdict, the trial's own by default, to the challenger's facts and end the trial."""
        if self.challenger is not None:
            report = self._trial.report() | ({} if verdict is None else {"verdict": verdict})
            self.store.judge(self.challenger, {name: report[key] for name, key in _FACTS.items()})
        self.challenger, self._stacks, self._trial = None, None, Trial(**self._terms)

    def roll_back(self, number: int) -> None:
        """Serve release `number`; the trial ends undecided, and only a release that is made from now on goes on trial."""
        self.close(Verdict.undecided)
        self._last = max((release.number for release in self.store.all()), default=number)
        self.serving = number

    def report(self) -> dict[str, Any] | None:
        """Return the challenger's number and the trial's report, None while there is none."""
        return None if self.challenger is None else {"challenger": self.challenger, **self._trial.report()}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs; the tables come from the releases."""
        challenger = _NONE if self.challenger is None else self.challenger
        numbers = np.array([challenger, self._last, self.champion, self.serving], np.int64)
        return {"numbers": numbers, **{f"trial/{name}": array for name, array in self._trial.state().items()}}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; a trial whose releases cannot be read any more is dropped."""
        number, self._last, self.champion, *serving = arrays["numbers"].tolist()
        self.serving = serving[0] if serving else self.serving  # version 0.1 did not save it
        if number == _NONE:
            return
        trial = Trial(**self._terms)
        trial.load({name.removeprefix("trial/"): array for name, array in arrays.items() if name.startswith("trial/")})
        self._begin(number, trial)

    def _begin(self, challenger: int, trial: Trial) -> None:
        self._last = challenger
        try:
            self._stacks = self.tables(self.store.get(self.champion)), self.tables(self.store.get(challenger))
        except (Corrupt, NotFound) as error:
            _log.error("the trial of release %d is dropped: %s", challenger, error)
            return
        self.challenger, self._trial = challenger, trial
