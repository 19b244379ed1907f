"""Examination: how likely users look at each position of a list, learned from the clicks themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, take
from riverdelta.core.checked import positive
from riverdelta.core.features import Floats, Ints

#: The least probability of examination: a click weighs at most 20 times that of the first position.
FLOOR = 0.05
#: Clicks that each position begins with, as if all positions were examined alike.
_PRIOR = 20.0
#: The step of list t is (t + 1) ** -_FADE, at least `_LEAST_STEP`.
_FADE, _LEAST_STEP = 0.9, 1e-4


class Examination:
    """The probability that a row is examined, relative to the first position, for each of `positions` positions.

    Learned from lists with clicks, one pass, a constant amount of work a row. It begins with 1 for all positions: no clicks are
    weighted until there is evidence. Rows at the same position must differ in relevance from list to list, and rows of the same
    relevance must come at different positions: swap neighbours, or order at random, in a part of the requests. Where the order
    always follows the score, position and score cannot be told apart.

    Parameters
    ----------
    positions
        Positions with a probability of their own; rows further down have that of the last.

    Examples
    --------
    >>> rng, examination = np.random.default_rng(0), Examination(2)
    >>> for _ in range(2000):  # two rows of equal relevance; the second is examined half as often
    ...     click = np.float32([1, 0] if rng.random() < 2 / 3 else [0, 1])
    ...     _ = examination.update(np.array([0, 1]), click, np.zeros(2), np.zeros(2, np.int64))
    >>> bool(abs(examination.of(np.array([1]))[0] - 0.5) < 0.05)
    True

    Notes
    -----
    The position-based click model: a row of relevance r at position k is clicked at the rate θ_k·r. Given the number C of
    clicks of a list, clicks are multinomial with shares θ_k·r_i / Σ_j θ_j·r_j, and r_i is exp(z_i) with z the corrected output
    as served, which is learned from the same shares (`Stack`). This is the regression-EM of Wang et al. 2018 ("Position Bias
    Estimation for Unbiased Learning to Rank in Personal Search", WSDM) for relevance known up to a factor of the list: the
    regression is the ranker. The maximum over θ is found by the step of Hunter 2004 ("MM algorithms for generalized
    Bradley-Terry models"), θ_k = Σ clicks at k / Σ_lists C·r_i / Σ_j θ_j·r_j, whose two sums are running means with decreasing
    steps, as in online EM (Cappé and Moulines 2009).
    """

    def __init__(self, positions: int) -> None:
        self.positions = int(positive("positions", positions))
        self._clicks, self._expected = (np.ones(self.positions) for _ in range(2))
        self._lists = 0

    def of(self, place: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the probability of examination float64[N] at positions int[N]; NaN for -1, which is unknown."""
        theta = self._theta()[np.clip(place, 0, self.positions - 1)]
        return np.where(place < 0, np.nan, theta)

    def update(
        self, place: npt.NDArray[Any], clicks: Floats, corrected: npt.NDArray[Any], group: Ints
    ) -> npt.NDArray[np.float64]:
        """Learn from lists, in order: positions int[N], clicks or grades float32[N], corrected outputs, lists int64[N].

        Returns the probability of examination float64[N] of each row, as known before its list. A list with a row whose
        position is unknown, or without a click, says nothing.
        """
        known = np.empty(len(place))
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        ends = np.append(starts[1:], len(group))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            at, clicked = place[start:end], clicks[start:end].astype(np.float64)
            known[start:end] = self.of(at)
            raw = corrected[start:end].reshape(-1).astype(np.float64)
            if (at < 0).any() or not clicked.sum() > 0 or not np.isfinite(raw).all():
                continue
            at = np.minimum(at, self.positions - 1)
            share = known[start:end] * np.exp(raw - raw.max())
            relevance = np.exp(raw - raw.max()) / share.sum() * clicked.sum()
            self._lists += 1
            step = max((self._lists + _PRIOR) ** -_FADE, _LEAST_STEP)
            for sums, rows in ((self._clicks, clicked), (self._expected, relevance)):
                sums *= 1.0 - step
                sums += step * np.bincount(at, rows, minlength=self.positions)
            self._expected[:] = np.maximum(self._expected, 1e-12)
        return known

    def report(self) -> dict[str, Any]:
        """Return the probabilities by position, and the lists that they were learned from."""
        return {"positions": self._theta().tolist(), "lists": self._lists}

    def state(self) -> dict[str, Array]:
        """Return the state to save."""
        return {"clicks": self._clicks.copy(), "expected": self._expected.copy(), "lists": np.array([self._lists], np.int64)}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; {} leaves it as it began."""
        if arrays:
            self._clicks[:], self._expected[:] = take(arrays, "clicks", self._clicks), take(arrays, "expected", self._expected)
            self._lists = int(take(arrays, "lists", np.zeros(1, np.int64))[0])

    def _theta(self) -> npt.NDArray[np.float64]:
        theta = self._clicks / self._expected
        return np.clip(theta / max(theta[0], 1e-12), FLOOR, 1.0)
