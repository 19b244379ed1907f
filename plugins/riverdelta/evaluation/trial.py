"""Trial: whether a challenger may take the champion's place, judged on the losses of both on the same examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.core.features import Floats
from riverdelta.core.log_loss import BOUND
from riverdelta.evaluation.confidence import ConfidenceSequence

#: The differences are predicted within ±1/16 of the bound, which keeps the scale at 17/16 of it and not at twice it.
_GUESS = 1.0 / 16.0
#: The sum of squares, in squares of the bound, at which the bounds are tightest.
_BEST_AT = 30.0
_KERNEL = "int64(float32[::1], float32[::1], float32[::1], float32[::1], float64, float64[::1], float64[::1], int64[::1])"


class Verdict(StrEnum):
    """What a trial says of the challenger."""

    undecided = "undecided"
    promoted = "promoted"
    rejected = "rejected"


#: By the side of the line on which the mean surely lies.
_VERDICTS = (Verdict.undecided, Verdict.promoted, Verdict.rejected)


@numba.njit(_KERNEL, cache=True)
def _differences(champion, challenger, label, weight, bound, whole, clipped, rows):  # type: ignore[no-untyped-def]
    """Write the difference of each row that counts, whole and clipped, and the row's number; return how many count."""
    kept = 0
    for i in range(champion.shape[0]):
        y, w = np.float64(label[i]), np.float64(weight[i])
        if not (math.isfinite(champion[i]) and math.isfinite(w) and w != 0.0 and (y == 0.0 or y == 1.0)):
            continue
        x = -bound
        if math.isfinite(challenger[i]):
            a, b = min(max(np.float64(champion[i]), -BOUND), BOUND), min(max(np.float64(challenger[i]), -BOUND), BOUND)
            # softplus(a) - softplus(b) - y·(a - b) with one logarithm; equal logits give exactly 0.
            ea, eb = math.exp(-abs(a)), math.exp(-abs(b))
            x = w * (max(a, 0.0) - max(b, 0.0) + math.log1p((ea - eb) / (1.0 + eb)) - y * (a - b))
        whole[kept], clipped[kept], rows[kept] = x, min(max(x, -bound), bound), i
        kept += 1
    return kept


@numba.njit("int64(float64[::1], float64, float64[::1])", cache=True)
def _add(whole, bound, total):  # type: ignore[no-untyped-def]
    """Add the differences to their sum and return how many were clipped."""
    clipped = 0
    for i in range(whole.shape[0]):
        total[0] += whole[i]
        clipped += abs(whole[i]) >= bound
    return clipped


class Trial:
    """Test a challenger against the champion on x = clip(w·(loss of the champion - loss of the challenger), -bound, bound).

    Losses are log losses, at most `log_loss.BOUND` nats each, of the logits that both frozen releases give to one joined
    example of weight w. With μ_t the average of E[x | the examples before] over the first t: promoted at the first t where
    surely μ_t > -`margin` (not worse by more than the margin), rejected at the first where surely μ_t < -`margin`, undecided
    until then. The guarantee below needs a bounded x and nothing else of the losses, and speaks of the mean of that x.

    P(ever promoted) <= `alpha` for a challenger that is worse by the margin or more (μ_t <= -margin at every t), and
    P(ever rejected) <= `alpha` for one that is not, although every example is looked at and however they depend on each
    other: see `ConfidenceSequence`, whose two bounds have the error `alpha` each. A challenger exactly at the margin goes on
    undecided. The guarantee is of one trial: k promotions in a row may lose k margins.

    The verdict falls once, at an example that does not depend on how the stream was split, and later rows change nothing.
    `margin` in nats, 0 <= margin < bound. `bound` in nats: a larger one clips less and takes longer, 6.2·bound/margin examples
    for two equal releases. It is the mean of clipped differences that is tested; the report has the unclipped one too.

    >>> label = np.tile(np.float32([0, 1]), 1000)
    >>> trial = Trial(margin=0.01)
    >>> trial.update(np.zeros(2000, np.float32), label - 0.5, label, np.ones(2000, np.float32)).value
    'promoted'
    >>> report = trial.report()
    >>> report["examples"], round(report["mean"], 3), report["better"]
    (30, 0.219, False)
    """

    def __init__(self, margin: float = 0.002, alpha: float = 0.05, bound: float = 1.0) -> None:
        if not 0.0 < bound < math.inf:
            raise ConfigurationError(f"bound is {bound!r}; expected the largest difference of two losses, in nats above 0")
        if not 0.0 <= margin < bound:
            raise ConfigurationError(f"margin is {margin!r}; expected nats from 0 to below the bound {bound}")
        if not 0.0 < alpha < 1.0:
            raise ConfigurationError(f"alpha is {alpha!r}; expected a probability of error between 0 and 1, both excluded")
        self.margin, self.alpha, self.bound = float(margin), float(alpha), float(bound)
        guess = self.bound * _GUESS
        self._mean = ConfidenceSequence(
            self.alpha, -self.bound, self.bound, sides=1, guess=(-guess, guess), best_at=_BEST_AT * self.bound**2
        )
        self._skipped = self._clipped = 0
        self._unclipped = np.zeros(1)
        self._verdict = Verdict.undecided

    @property
    def verdict(self) -> Verdict:
        """Undecided, promoted or rejected."""
        return self._verdict

    def update(self, champion_logit: Floats, challenger_logit: Floats, label: Floats, weight: Floats) -> Verdict:
        """Take M examples in order: logits float32[M] of both on the same rows, labels 0 or 1, weights; return the verdict.

        A row that the challenger alone does not score with a finite number counts as -bound. One without a finite logit of the
        champion, a finite weight other than 0, or a label of 0 or 1 is skipped and counted as such. Weights may be negative: a
        row of weight -1 takes an earlier one back. Raises `InvalidInput` where lengths differ.
        """
        given = (champion_logit, challenger_logit, label, weight)
        block = [np.ascontiguousarray(a, np.float32) for a in given]
        if len({a.shape for a in block}) > 1 or block[0].ndim != 1:
            shapes = ", ".join(str(list(a.shape)) for a in block)
            raise InvalidInput(f"champion, challenger, label and weight have shapes {shapes}; expected four of one length [M]")
        if self._verdict is not Verdict.undecided:
            return self._verdict
        whole, clipped = np.empty((2, len(block[0])))
        rows = np.empty(len(block[0]), np.int64)
        kept = _differences(block[0], block[1], block[2], block[3], self.bound, whole, clipped, rows)
        taken, side = self._mean.until(clipped[:kept], -self.margin)
        self._verdict = _VERDICTS[side]
        self._clipped += _add(whole[:taken], self.bound, self._unclipped)
        self._skipped += (int(rows[taken - 1]) + 1 if side else len(rows)) - taken
        return self._verdict

    def report(self) -> dict[str, float | int | str | bool | None]:
        """Return what is known at the last example that counted; the mean and its variance are None before the first.

        examples, skipped (rows left out), clipped (examples at ±bound), mean (of x, in nats: above 0 is better), unclipped (the
        mean without ±bound, of which nothing is guaranteed), lower and upper (of μ_t, each with the error alpha), variance
        (of x about its predictions), better (surely by any amount: lower > 0), worse (surely by any amount: upper < 0),
        verdict, and the terms margin, alpha and bound.
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
            "margin": self.margin,
            "alpha": self.alpha,
            "bound": self.bound,
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a later `load` needs to go on from here, bit for bit."""
        return {
            "terms": np.array([self.margin, self.alpha, self.bound]),
            "rows": np.array([self._skipped, self._clipped, _VERDICTS.index(self._verdict)], np.int64),
            "unclipped": self._unclipped.copy(),
            **self._mean.state(),
        }

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what `state` returned, its terms too: a trial ends under those it began with; raises `Corrupt`."""
        for name, dtype, shape in (("terms", "float64", (3,)), ("rows", "int64", (3,)), ("unclipped", "float64", (1,))):
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype != dtype:
                found = "missing" if array is None else f"{array.dtype}{list(array.shape)}"
                raise Corrupt(f"the saved trial's {name!r} is {found}; expected {dtype}{list(shape)}")
        skipped, clipped, verdict = arrays["rows"].tolist()
        if not (skipped >= 0 and clipped >= 0 and 0 <= verdict <= 2):
            raise Corrupt(f"the saved trial's 'rows' is {arrays['rows'].tolist()}; expected two counts and a verdict, 0 to 2")
        try:
            other = Trial(*arrays["terms"].tolist())
        except ConfigurationError as error:
            raise Corrupt(f"the saved trial's 'terms' make no trial: {error}") from None
        other._mean.load(arrays)
        self.margin, self.alpha, self.bound, self._mean = other.margin, other.alpha, other.bound, other._mean
        self._unclipped = arrays["unclipped"].copy()
        self._skipped, self._clipped, self._verdict = skipped, clipped, _VERDICTS[verdict]
