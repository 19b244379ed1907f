"""History: base and served loss over the examples so far, in a bounded number of points, and what the corrections are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.confidence import ConfidenceSequence
from riverdelta.errors import Corrupt
from riverdelta.joiner import Examples

#: Rows that are taken at once, and the most points that are kept.
GRAIN, POINTS = 64, 240
#: A row's difference of losses counts as at most so many nats, and the interval misses the truth with this probability.
BOUND, ALPHA = 2.0, 0.05
#: The differences are predicted within this, and their interval is tightest at this sum of squares; see `ConfidenceSequence`.
_GUESS, _BEST_AT = BOUND / 16.0, 30.0 * BOUND**2
_TIME, _WEIGHT, _BASE, _SERVED = range(4)


class History:
    """Points of (examples, mean log losses of base and served since the point before, in nats), each of equally many rows.

    Rows are taken `GRAIN` at a time, whatever the blocks were: a point is a whole number of grains, and when there are
    `POINTS` of them, each two next to each other become one. So n rows make at least `POINTS` / 2 points from
    `POINTS`·`GRAIN` / 2 rows on, and the same rows make the same bits however they came.

    The difference is the mean over rows of clip(w·(loss of base - loss of served), -`BOUND`, `BOUND`), with an interval that
    holds at every row at once, so that it may be looked at all the time: `ConfidenceSequence`.

    With `shadow` the corrections are judged by what they would have served, as nothing of them is.

    >>> history, report = History(), None
    >>> zero, label = np.zeros(15_360, np.float32), np.ones(15_360, np.float32)
    >>> history.update(zero, zero + 1, label, label, np.arange(15_360.0))
    >>> report = history.report()
    >>> report["examples"][:2], len(report["base"]), report["base"][0], round(report["difference"]["mean"], 3)
    ([128, 256], 120, 0.69315, 0.38)
    """

    def __init__(self, shadow: bool = False) -> None:
        self._shadow, self._waiting = shadow, 0
        self._reset()

    def saw(self, examples: Examples) -> None:
        """Take joined examples."""
        rows, label, weight = examples.measured()
        judged = examples.corrected if self._shadow else examples.served
        self.update(examples.base[rows], judged[rows], label, weight, examples.received[rows])

    def update(
        self,
        base: npt.ArrayLike,
        served: npt.ArrayLike,
        label: npt.ArrayLike,
        weight: npt.ArrayLike,
        received: npt.ArrayLike,
    ) -> None:
        """Take N rows: logits, labels 0 or 1, weights, and when the labels came; a row that is not finite is left out."""
        block = np.array([base, served, label, weight, received], np.float64)
        block = block[:, np.isfinite(block).all(0) & ((block[2] == 0) | (block[2] == 1))]
        while block.shape[1]:
            taken = min(GRAIN - self._waiting, block.shape[1])
            self._held[:, self._waiting : self._waiting + taken] = block[:, :taken]
            block, self._waiting = block[:, taken:], self._waiting + taken
            if self._waiting == GRAIN:
                self._take()

    def report(self) -> dict[str, Any]:
        """Return lists examples, time, base and served (None where weights cancel), and the difference with its interval."""
        full, part, grains = self._counts.tolist()
        points = self._points[: full + (part > 0)]
        weight = points[:, _WEIGHT]
        means = np.divide(points.T, weight, out=np.full((4, len(points)), np.nan), where=weight > 0)
        ends = [min((i + 1) * grains, full * grains + part) * GRAIN for i in range(len(points))]
        d = self._difference
        return {
            "examples": ends,
            "time": [round(t, 1) for t in points[:, _TIME].tolist()],
            "base": [round(x, 5) if x == x else None for x in means[_BASE].tolist()],
            "served": [round(x, 5) if x == x else None for x in means[_SERVED].tolist()],
            "difference": {
                "examples": d.count,
                "mean": d.mean if d.count else None,
                "lower": d.lower if d.count else None,
                "upper": d.upper if d.count else None,
                "alpha": ALPHA,
                "bound": BOUND,
            },
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a later `load` needs to go on from here, bit for bit."""
        parts = {"held": self._held[:, : self._waiting], "points": self._points, "counts": self._counts}
        return {name: a.copy() for name, a in parts.items()} | {
            f"difference/{k}": a for k, a in self._difference.state().items()
        }

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned, or begin anew where nothing was saved; raises `Corrupt` at anything else."""
        self._reset()
        if not arrays:
            return
        held, points, counts = (arrays.get(name) for name in ("held", "points", "counts"))
        if held is None or held.shape[:1] != (5,) or held.ndim != 2 or held.shape[1] >= GRAIN:
            raise Corrupt(f"the saved history's 'held' is {None if held is None else held.shape}; expected [5, under {GRAIN}]")
        if points is None or points.shape != self._points.shape or counts is None or counts.shape != (3,):
            raise Corrupt(f"the saved history's points are not [{POINTS}, 4] with three counts")
        if not (0 <= counts[0] < POINTS and 0 <= counts[1] < counts[2]):
            raise Corrupt(f"the saved history's counts are {counts.tolist()}; expected under {POINTS} points, of grains")
        self._waiting = held.shape[1]
        self._held[:, : self._waiting] = held
        self._points[...], self._counts[...] = points, counts
        prefix = "difference/"
        self._difference.load({k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)})

    def _reset(self) -> None:
        self._held = np.zeros((5, GRAIN))
        self._waiting = 0
        self._points = np.zeros((POINTS, 4))
        #: Whole points, grains in the one that is being filled, grains that a point has.
        self._counts = np.array([0, 0, 1], np.int64)
        self._difference = ConfidenceSequence(ALPHA, -BOUND, BOUND, guess=(-_GUESS, _GUESS), best_at=_BEST_AT)

    def _take(self) -> None:
        base, served, label, weight, received = self._held
        losses = [np.logaddexp(0.0, z) - label * z for z in (base, served)]
        self._difference.update(np.clip(weight * (losses[0] - losses[1]), -BOUND, BOUND))
        full, part, grains = self._counts.tolist()
        point = self._points[full]
        point[_TIME] = received[-1]
        point[[_WEIGHT, _BASE, _SERVED]] += weight.sum(), (weight * losses[0]).sum(), (weight * losses[1]).sum()
        part += 1
        if part == grains:
            full, part = full + 1, 0
        if full == POINTS:
            pairs = self._points.reshape(POINTS // 2, 2, 4)
            sums, times = pairs.sum(1), pairs[:, 1, _TIME].copy()
            self._points[...] = 0.0
            self._points[: POINTS // 2] = sums
            self._points[: POINTS // 2, _TIME] = times
            full, grains = POINTS // 2, 2 * grains
        self._counts[:] = full, part, grains
        self._waiting = 0
