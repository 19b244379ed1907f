"""History: base and served loss over the examples so far, in a bounded number of points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.evaluation.measured import Rows, possible

#: The rows of a point at first, and the most points that are kept.
GRAIN, POINTS = 64, 240
_TIME, _WEIGHT, _BASE, _SERVED = range(4)


class History:
    """Points of (examples, mean losses of base and served since the point before), each of equally many rows.

    A point has `GRAIN` rows at first; when there are `POINTS` of them, each two next to each other become one. So n rows make
    at least `POINTS` / 2 points from `POINTS`·`GRAIN` / 2 rows on, and the same rows make the same bits however they came.

    A loss is at most `Loss.bound`. The points go on through rollbacks: `Worth` measures the tables that serve now.

    With `shadow` the corrections are judged by what they would have served, as none of it is.

    >>> history, report = History(), None
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
        """Take joined examples."""
        rows, label, weight = examples.measured()
        judged = examples.corrected if self._shadow else examples.served
        self.update(examples.base[rows], judged[rows], label, weight, examples.received[rows])

    def update(
        self, base: npt.ArrayLike, served: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike, received: npt.ArrayLike
    ) -> None:
        """Take N rows: raw outputs, labels, weights, and when the labels came; a row that is not finite is left out."""
        given, time = Rows.of(self.loss, base, served, label, weight), np.asarray(received, np.float64)
        good = given.good & np.isfinite(time)
        before, after = (self.loss.value(raw[good], given.label[good]) for raw in given.raw)
        w = given.weight[good]
        self._add(np.column_stack([time[good], w, w * before, w * after]))

    def report(self) -> dict[str, Any]:
        """Return lists examples, time, base and served (None where weights cancel)."""
        full, rows, size = self._full, self._rows, self._size
        # A point of few rows would stand out from the others by chance alone.
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
        """Return what a later `load` needs to go on from here, bit for bit."""
        counts = np.array([self._full, self._rows, self._size], np.int64)
        return {"points": self._points.copy(), "counts": counts}

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned, or begin anew where nothing was saved; raises `Corrupt` at anything else.

        A point whose losses are not `possible` is left out of the lines.
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
        """Add rows [N, (time, weight, weighted losses)] to the points, until these are too many."""
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
        #: Points that are full, rows in the next one, rows that a point has.
        self._full, self._rows, self._size = 0, 0, GRAIN
