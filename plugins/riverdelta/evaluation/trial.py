"""Trial: whether a challenger may replace the champion, tested on the losses of both on the same examples."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.core.features import Floats
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Group
from riverdelta.evaluation.confidence import ConfidenceSequence
from riverdelta.evaluation.unit import Compared, Unit

#: Differences are predicted within ±1/16 of the bound, which makes the scale 17/16 of the bound instead of twice it.
_GUESS = 1.0 / 16.0
#: The sum of squares, in units of bound², at which the bounds are tightest.
_BEST_AT = 30.0


class Verdict(StrEnum):
    """The result of a trial."""

    undecided = "undecided"
    promoted = "promoted"
    rejected = "rejected"


#: Verdicts by the side of the line on which the mean is, with confidence.
_VERDICTS = (Verdict.undecided, Verdict.promoted, Verdict.rejected)


class Trial:
    """A sequential test of a challenger against the champion that may be read after every example.

    For a joined example of weight w, x = clip(w·(loss of the champion - loss of the challenger) / unit, -bound, bound); each
    loss is that of the frozen release's raw output and at most `Loss.bound`; those of the rows of a list, each times its
    weight, are added. The `Unit` is 1 nat, or for other losses what is typical for the base, and depends only on earlier
    examples. With μ_t the average of E[x | the examples before] over the first t, the challenger is promoted once a lower
    bound of μ_t exceeds -`margin` (not worse by more than the margin), and rejected once an upper bound is below -`margin`.
    The guarantee needs only that x is bounded, and is about the mean of x.

    P(ever promoted) <= `alpha` for a challenger that is worse by the margin or more (μ_t <= -margin at every t), and P(ever
    rejected) <= `alpha` for one that is not, although every example is looked at and however they depend on each other: see
    `ConfidenceSequence`, whose two bounds have the error `alpha` each. A challenger exactly at the margin stays undecided. The
    guarantee is for one trial: k promotions in a row may lose k margins.

    The verdict is final, and falls at the same example however the stream is split into blocks. The mean of clipped
    differences is tested; the report has the unclipped one too.

    Parameters
    ----------
    margin
        Largest acceptable loss of a promotion per example (default 0.002): in nats, or as a share of the base's typical loss,
        as `Unit` says; 0 <= margin < bound. A smaller margin takes longer.
    alpha
        Probability of each of the two errors above, 0 to 1 (default 0.05). Lower it to promote with more certainty.
    bound
        Largest difference of losses that counts, in the same unit (default `Loss.scale`, or 1 typical loss). A larger
        bound clips less and takes longer: 6.2·bound/margin examples for two equal releases.
    loss
        The loss of the task.

    >>> label = np.tile(np.float32([0, 1]), 1000)
    >>> trial = Trial(margin=0.01)
    >>> trial.update(np.zeros(2000, np.float32), label - 0.5, label, np.ones(2000, np.float32)).value
    'promoted'
    >>> report = trial.report()
    >>> report["examples"], round(report["mean"], 3), report["better"]
    (30, 0.219, False)
    """

    def __init__(self, margin: float = 0.002, alpha: float = 0.05, bound: float | None = None, loss: Loss = LOG_LOSS) -> None:
        self._unit = Unit(loss)
        bound = self._unit.largest if bound is None else bound
        if not 0.0 < bound < math.inf:
            raise ConfigurationError(
                f"bound is {bound!r}; expected the largest difference of two losses that counts, in {self._unit.name}, above 0"
            )
        if not 0.0 <= margin < bound:
            raise ConfigurationError(
                f"margin is {margin!r}; expected a number of {self._unit.name} from 0 to below the bound {bound}"
            )
        self.margin, self.alpha, self.bound, self.loss = float(margin), float(alpha), float(bound), loss
        guess = self.bound * _GUESS
        self._mean = ConfidenceSequence(
            self.alpha, -self.bound, self.bound, sides=1, guess=(-guess, guess), best_at=_BEST_AT * self.bound**2
        )
        self._skipped = self._clipped = 0
        self._unclipped = np.zeros(1)
        self._verdict = Verdict.undecided

    @property
    def verdict(self) -> Verdict:
        """The verdict so far: undecided, promoted or rejected."""
        return self._verdict

    def update(
        self,
        champion: Floats,
        challenger: Floats,
        label: Floats,
        weight: Floats,
        base: Floats | None = None,
        group: Group = None,
    ) -> Verdict:
        """Add M rows in order and return the verdict: raw outputs float32[M, K] of both releases, labels and weights.

        `base` float32[M, K] gives the unit by its losses (default: the champion); `group` int64[M] says which rows are one
        list, for a loss of lists.

        An example for which only the challenger's output is not finite counts as -bound. One is skipped, and counted as such,
        if the champion's output is not finite, the weight is 0 or not finite, the label is invalid, or the base has
        had no loss yet. Weights may be negative: a row of weight -1 takes an earlier one back. Raises `InvalidInput` if
        lengths differ.
        """
        if self._verdict is not Verdict.undecided:
            return self._verdict
        given = Compared.of(self.loss, (champion, challenger, champion if base is None else base), label, weight, group)
        counted, before = given.known & (given.weight != 0), self._unit.state()
        unit = self._unit.of(given.typical[counted], given.weight[counted])
        examples, unit = np.flatnonzero(counted)[unit > 0], unit[unit > 0]
        won = given.won[examples] / unit
        found = np.where(np.isnan(won), -self.bound, won)
        taken, side = self._mean.until(np.clip(found, -self.bound, self.bound), -self.margin)
        self._verdict = _VERDICTS[side]
        self._clipped += int((np.abs(found[:taken]) >= self.bound).sum())
        self._unclipped = np.add.accumulate(np.append(self._unclipped, found[:taken]))[-1:]
        self._skipped -= taken
        self._skipped += int(examples[taken - 1]) + 1 if side else len(counted)
        if side:
            # Examples after the verdict change nothing, wherever a block ends.
            counted[examples[taken - 1] + 1 :] = False
            self._unit.load(before)
            self._unit.of(given.typical[counted], given.weight[counted])
        return self._verdict

    def report(self) -> dict[str, float | int | str | bool | None]:
        """Return the statistics at the last example that counted; before the first, mean and variance are null.

        examples, skipped (examples left out), clipped (examples at ±bound), mean (of x: above 0 is better), unclipped (the
        mean without clipping, which has no guarantee), lower and upper (of μ_t, each with the error alpha), variance (of x
        about its predictions), better (lower > 0), worse (upper < 0), verdict, the terms margin, alpha and bound, unit (what
        all these are measured in), and scale (the base's typical loss, in the loss's unit; 1 for a constant unit).
        """
        m = self._mean
        return {
            "examples": m.count,
            "skipped": self._skipped,
            "clipped": self._clipped,
            "mean": m.mean if m.count else None,
            "unclipped": float(self._unclipped[0]) / m.count if m.count else None,
            "lower": m.lower,
            "upper": m.upper,
            "variance": m.variance if m.count else None,
            "better": m.lower > 0.0,
            "worse": m.upper < 0.0,
            "verdict": self._verdict.value,
            **{name: getattr(self, name) for name in ("margin", "alpha", "bound")},
            "unit": self._unit.name,
            "scale": self._unit.scale,
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {
            "terms": np.array([self.margin, self.alpha, self.bound]),
            "rows": np.array([self._skipped, self._clipped, _VERDICTS.index(self._verdict)], np.int64),
            "unclipped": self._unclipped.copy(),
            **self._mean.state(),
            **self._unit.state(),
        }

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, including its terms, which never change during a trial; raises `Corrupt`."""
        terms, rows, unclipped = (take(arrays, name, like) for name, like in list(self.state().items())[:3])
        skipped, clipped, verdict = rows.tolist()
        if not (skipped >= 0 and clipped >= 0 and 0 <= verdict <= 2):
            raise Corrupt(f"the saved trial's 'rows' is {rows.tolist()}; expected two counts and a verdict, 0 to 2")
        try:
            margin, alpha, bound = terms.tolist()
            other = Trial(margin, alpha, bound, self.loss)
        except ConfigurationError as error:
            raise Corrupt(f"the saved trial's 'terms' are not valid: {error}") from None
        other._mean.load(arrays)
        other._unit.load(arrays)
        other._unclipped = unclipped.copy()
        other._skipped, other._clipped, other._verdict = skipped, clipped, _VERDICTS[verdict]
        vars(self).update(vars(other))
