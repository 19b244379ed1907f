"""History: the losses of base and served over time, in a bounded number of points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median_low
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.measured import Rows, possible

#: The rows of a point at first, and the maximum number of points.
GRAIN, POINTS = 64, 240
_TIME, _WEIGHT, _BASE, _SERVED = range(4)
#: A point of a line over time: a time in Unix seconds, and the values then.
Point = tuple[float, ...]


class History:
    """Points of (examples, mean losses of base and served since the previous point), each of the same number of rows.

    A point has `GRAIN` rows at first; when there are `POINTS`, each two adjacent ones are merged. So from
    `POINTS`·`GRAIN` / 2 rows on there are at least `POINTS` / 2 points, and the same rows give the same bits however they are
    batched. Losses are clipped at `Loss.bound`. Points continue through rollbacks; `Worth` measures the tables in service.
    For a loss of lists a row is a list with a label above 0, whose loss is the sum over its rows by their weights.

    Parameters
    ----------
    shadow
        Whether the base alone is served; the corrected output is then measured. Default: False.
    loss
        The loss. Default: the log loss.

    Examples
    --------

    >>> history = History()
    >>> zero, label = np.zeros(15_360, np.float32), np.ones(15_360, np.float32)
    >>> history.update(zero, zero + 1, label, label, np.arange(15_360.0))
    >>> report = history.report()
    >>> report["examples"][:2], len(report["base"]), report["base"][0], report["served"][0]
    ([128, 256], 120, 0.69315, 0.31326)
    """

    def __init__(self, shadow: bool = False, loss: Loss = LOG_LOSS) -> None:
        self._shadow, self.loss = shadow, loss
        self._begin()

    def observe(self, examples: Examples) -> None:
        """Add joined examples."""
        rows, label, weight = examples.measured()
        served = examples.corrected if self._shadow else examples.served
        self.update(examples.base[rows], served[rows], label, weight, examples.received[rows], **examples.lists(rows))

    def update(
        self,
        base: npt.ArrayLike,
        served: npt.ArrayLike,
        label: npt.ArrayLike,
        weight: npt.ArrayLike,
        received: npt.ArrayLike,
        group: Group = None,
    ) -> None:
        """Add N rows: outputs, labels, weights, times of the labels (Unix seconds) and lists; rows not finite are skipped."""
        given, time = Rows.of(self.loss, base, served, label, weight, group), np.asarray(received, np.float64)
        good, w = given.good & np.isfinite(time), given.weight
        before, after = w * given.losses(self.loss)
        if self.loss.lists and len(w):
            starts = self.loss.starts(len(w), group, each=True)[:-1]
            before, after = np.add.reduceat(before, starts), np.add.reduceat(after, starts)
            good = np.logical_and.reduceat(good, starts) & (np.add.reduceat(np.where(good, w * given.label, 0.0), starts) > 0)
            time, w = np.maximum.reduceat(time, starts), np.ones(len(starts))
        self._add(np.column_stack([time, w, before, after])[good])

    def report(self) -> dict[str, Any]:
        """Return the lists examples, time, base and served, whose losses are None if the weights cancel."""
        full, rows, size = self._full, self._rows, self._size
        # A point of few rows would differ from the others by chance.
        points = self._points[: full + (2 * rows >= size or (rows > 0 and full == 0))]
        weight = points[:, _WEIGHT]
        means = np.divide(points.T, weight, out=np.full((4, len(points)), np.nan), where=weight > 0)
        return {
            "examples": [min((i + 1) * size, full * size + rows) for i in range(len(points))],
            "time": [round(t, 1) for t in points[:, _TIME].tolist()],
            "base": [round(x, 5) if x == x else None for x in means[_BASE].tolist()],
            "served": [round(x, 5) if x == x else None for x in means[_SERVED].tolist()],
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays from which `load` restores this state, bit for bit."""
        counts = np.array([self._full, self._rows, self._size], np.int64)
        return {"points": self._points.copy(), "counts": counts}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, or start over without arrays; raises `Corrupt` for anything else.

        The losses of a point are dropped if they are not `possible`.
        """
        self._begin()
        if not arrays:
            return
        points, counts = take(arrays, "points", self._points), take(arrays, "counts", np.zeros(3, np.int64))
        full, rows, size = counts.tolist()
        if not (0 <= full < POINTS and 0 <= rows < size):
            raise Corrupt(f"the saved history's counts are {counts.tolist()}; expected under {POINTS} points, of complete rows")
        self._points[...] = points
        self._full, self._rows, self._size = full, rows, size
        most = size + np.abs(points[:, [_WEIGHT]])
        self._points[~possible(self.loss, points[:, [_BASE, _SERVED]], most).all(1), _WEIGHT:] = 0.0

    def _add(self, rows: Doubles) -> None:
        """Add rows [N, (time, weight, weighted losses)] to the points, merging them whenever there are `POINTS`."""
        while len(rows):
            fits = rows[: (POINTS - self._full) * self._size - self._rows]
            at = self._full + (self._rows + np.arange(len(fits))) // self._size
            self._points[at, _TIME] = fits[:, _TIME]
            for column in (_WEIGHT, _BASE, _SERVED):
                np.add.at(self._points[:, column], at, fits[:, column])
            more, self._rows = divmod(self._rows + len(fits), self._size)
            self._full += more
            if self._full == POINTS:
                self._halve()
            rows = rows[len(fits) :]

    def _halve(self) -> None:
        half = POINTS // 2
        pairs = self._points.reshape(half, 2, -1)
        self._points[:half] = np.column_stack([pairs[:, 1, _TIME], pairs[:, :, _WEIGHT:].sum(1)])
        self._points[half:] = 0.0
        self._full, self._size = half, 2 * self._size

    def _begin(self) -> None:
        self._points = np.zeros((POINTS, 4))
        #: The number of full points, the rows in the next one, and the rows of a full point.
        self._full, self._rows, self._size = 0, 0, GRAIN


def parts_of(points: Sequence[Point], column: float) -> list[list[Point]]:
    """Return points in order of time as the parts of a line: a new part begins where no labels came for a long time.

    A long time is 3 columns and 8 times the median interval. The points within one `column` of seconds are averaged, so that a
    burst is one point.

    >>> parts_of([(0.0, 1.0), (1.0, 3.0), (60.0, 5.0), (61.0, 5.0), (3_600.0, 7.0)], column=30.0)
    [[(0.5, 2.0), (60.5, 5.0)], [(3600.0, 7.0)]]
    """
    intervals = [later[0] - earlier[0] for earlier, later in pairwise(points)]
    idle = max(3.0 * column, 8.0 * median_low(intervals or [0.0]))
    bursts: list[list[Point]] = []
    for point in points:
        if not bursts or point[0] - bursts[-1][0][0] > column:
            bursts.append([])
        bursts[-1].append(point)
    parts: list[list[Point]] = []
    for before, burst in pairwise([[], *bursts]):
        if not before or burst[0][0] - before[-1][0] > idle:
            parts.append([])
        parts[-1].append(tuple(map(fmean, zip(*burst, strict=True))))
    return parts
