"""Coverage: the intervals that were served, month by month, beside a fixed one of split conformal prediction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Floats

#: The first rows of a stream, on whose errors the fixed interval is calibrated.
CALIBRATED = 1_000


def by_month(
    label: Floats, base: Floats, lower: Floats, upper: Floats, time: npt.NDArray[np.float64], coverage: float
) -> list[dict[str, Any]]:
    """Return for each month after the calibrated rows: labels, the coverage and mean width of both intervals.

    `lower` and `upper` float32[N] are the ends as served, NaN where none was known, and `base` float32[N] the base's values.
    The fixed interval is base ± the ⌈(n + 1)·coverage⌉-th smallest of the first n errors, and never changes (Lei, G'Sell,
    Rinaldo, Tibshirani, Wasserman 2018).

    >>> label, zeros, day = np.tile(np.float32([-1, 0, 1]), 1_000), np.zeros(3_000, np.float32), np.arange(3_000) * 3_600.0
    >>> by_month(label, zeros, zeros - 2, zeros + 2, day, 0.9)[0]
    {'month': '1970-02', 'labels': 416, 'served': 1.0, 'fixed': 1.0, 'served_width': 4.0, 'fixed_width': 2.0}
    """
    errors = np.sort(np.abs(label - base)[:CALIBRATED].astype(np.float64))
    fixed = float(errors[min(math.ceil((len(errors) + 1) * coverage), len(errors)) - 1])
    month = np.asarray(time, "datetime64[s]").astype("datetime64[M]")
    rows = np.isfinite(lower) & (np.arange(len(label)) >= CALIBRATED)
    within = {"served": (lower <= label) & (label <= upper), "fixed": np.abs(label - base) <= fixed}
    found = []
    for each in np.unique(month[rows]):
        mine = rows & (month == each)
        shares = {name: float(inside[mine].mean()) for name, inside in within.items()}
        widths = {"served_width": float((upper - lower)[mine].mean()), "fixed_width": 2.0 * fixed}
        found.append({"month": str(each), "labels": int(mine.sum()), **shares, **widths})
    return found
