"""History: base and served loss over the examples so far, in a bounded number of points, and what the corrections are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.log_loss import log_loss, possible
from riverdelta.evaluation.confidence import ConfidenceSequence

#: The rows of a point at first, and the most points that are kept.
GRAIN, POINTS = 64, 240
#: A row's difference of losses counts as at most so many nats, and the interval misses the truth with this probability.
BOUND, ALPHA = 2.0, 0.05
#: The differences are predicted within this, and their interval is tightest at this sum of squares; see `ConfidenceSequence`.
_GUESS, _BEST_AT = BOUND / 16.0, 30.0 * BOUND**2
_TIME, _WEIGHT, _BASE, _SERVED = range(4)
#: Whole points, rows in the one that is being filled, rows that a point has.
_FULL, _PART, _SIZE = range(3)
_KERNEL = (
    "int64(float32[::1], float32[::1], float32[::1], float32[::1], float64[::1], float64[:, ::1], int64[::1], float64[::1])"
)


@numba.njit(_KERNEL, cache=True)
def _add(base, served, label, weight, time, points, counts, differences):  # type: ignore[no-untyped-def]
    """Add rows to the points, and write each one's difference; return how many rows counted."""
    kept = 0
    for i in range(base.shape[0]):
        w, y, b, s = np.float64(weight[i]), np.float64(label[i]), np.float64(base[i]), np.float64(served[i])
        # What is not finite is less than nothing and not even that.
        if not abs(w) + abs(b) + abs(s) + abs(time[i]) < np.inf or (y != 0.0 and y != 1.0):
            continue
        before, after = log_loss(b, y), log_loss(s, y)
        differences[kept] = min(max(w * (before - after), -BOUND), BOUND)
        kept += 1
        point = points[counts[_FULL]]
        point[_TIME] = time[i]
        point[_WEIGHT] += w
        point[_BASE] += w * before
        point[_SERVED] += w * after
        counts[_PART] += 1
        if counts[_PART] < counts[_SIZE]:
            continue
        counts[_FULL], counts[_PART] = counts[_FULL] + 1, 0
        if counts[_FULL] == POINTS:
            half = POINTS // 2
            for k in range(half):
                points[k] = points[2 * k] + points[2 * k + 1]
                points[k, _TIME] = points[2 * k + 1, _TIME]
            points[half:] = 0.0
            counts[_FULL], counts[_SIZE] = half, 2 * counts[_SIZE]
    return kept


class History:
    """Points of (examples, mean log losses of base and served since the point before, in nats), each of equally many rows.

    A point has `GRAIN` rows at first; when there are `POINTS` of them, each two next to each other become one. So n rows make
    at least `POINTS` / 2 points from `POINTS`·`GRAIN` / 2 rows on, and the same rows make the same bits however they came.

    A loss is at most `log_loss.BOUND` nats. The difference is the mean over rows of clip(w·(loss of base - loss of served),
    -`BOUND`, `BOUND`), with an interval that holds at every row at once, so that it may be looked at all the time:
    `ConfidenceSequence`, which asks of these differences only that they are bounded, and speaks of their mean as clipped.

    With `shadow` the corrections are judged by what they would have served, as nothing of them is.

    >>> history, report = History(), None
    >>> zero, label = np.zeros(15_360, np.float32), np.ones(15_360, np.float32)
    >>> history.update(zero, zero + 1, label, label, np.arange(15_360.0))
    >>> report = history.report()
    >>> report["examples"][:2], len(report["base"]), report["base"][0], round(report["difference"]["mean"], 3)
    ([128, 256], 120, 0.69315, 0.38)
    """

    def __init__(self, shadow: bool = False) -> None:
        self._shadow = shadow
        self._reset()

    def saw(self, examples: Examples) -> None:
        """Take joined examples."""
        rows, label, weight = examples.measured()
        judged = examples.corrected if self._shadow else examples.served
        self.update(examples.base[rows, 0], judged[rows, 0], label, weight, examples.received[rows])

    def update(
        self,
        base: npt.ArrayLike,
        served: npt.ArrayLike,
        label: npt.ArrayLike,
        weight: npt.ArrayLike,
        received: npt.ArrayLike,
    ) -> None:
        """Take N rows: logits, labels 0 or 1, weights, and when the labels came; a row that is not finite is left out."""
        b, s, y, w = (np.ascontiguousarray(a, np.float32) for a in (base, served, label, weight))
        time = np.ascontiguousarray(received, np.float64)
        differences = np.empty(len(y))
        kept = _add(b, s, y, w, time, self._points, self._counts, differences)
        self._difference.update(differences[:kept])

    def report(self) -> dict[str, Any]:
        """Return lists examples, time, base and served (None where weights cancel), and the difference with its interval."""
        full, part, size = self._counts.tolist()
        # A point of few rows would stand out from the others by chance alone.
        points = self._points[: full + (2 * part >= size or (part > 0 and full == 0))]
        weight = points[:, _WEIGHT]
        means = np.divide(points.T, weight, out=np.full((4, len(points)), np.nan), where=weight > 0)
        d = self._difference
        return {
            "examples": [min((i + 1) * size, full * size + part) for i in range(len(points))],
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
        difference = {f"difference/{k}": a for k, a in self._difference.state().items()}
        return {"points": self._points.copy(), "counts": self._counts.copy(), **difference}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned, or begin anew where nothing was saved; raises `Corrupt` at anything else.

        A point whose losses are not `possible` is left out of the lines.
        """
        self._reset()
        if not arrays:
            return
        points, counts = arrays.get("points"), arrays.get("counts")
        if points is None or points.shape != self._points.shape or counts is None or counts.shape != (3,):
            raise Corrupt(f"the saved history's points are not [{POINTS}, 4] with three counts")
        if not (0 <= counts[_FULL] < POINTS and 0 <= counts[_PART] < counts[_SIZE]):
            raise Corrupt(f"the saved history's counts are {counts.tolist()}; expected under {POINTS} points, of whole rows")
        self._points[...], self._counts[...] = points, counts
        rows = counts[_SIZE] + np.abs(self._points[:, [_WEIGHT]])
        self._points[~possible(self._points[:, [_BASE, _SERVED]], rows).all(1), _WEIGHT:] = 0.0
        prefix = "difference/"
        self._difference.load({k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)})

    def _reset(self) -> None:
        self._points, self._counts = np.zeros((POINTS, 4)), np.array([0, 0, GRAIN], np.int64)
        self._difference = ConfidenceSequence(ALPHA, -BOUND, BOUND, guess=(-_GUESS, _GUESS), best_at=_BEST_AT)
