"""Usual: the range in which a statistic, measured again and again, has been so far."""

from __future__ import annotations

import math

import numba
import numpy as np

#: A statistic: its running mean and variance, the largest deviation that passed for usual, measurements, how many in a row
#: were beyond the range, the last value and the range's half width when it was judged.
SERIES = np.dtype([(name, np.float64) for name in ("mean", "variance", "most", "count", "beyond", "value", "reach")])
#: Measurements from which the range is judged, and over which it is remembered.
LEAST, MEMORY = 8, 256.0
#: The range: so many deviations, or so many times the largest that was usual; a deviation counts for so many at most.
DEVIATIONS, OVER, CLIP = 6.0, 1.5, 3.0
#: What is left of the largest deviation after a measurement.
_KEEP = 1.0 - 1.0 / 1024.0


@numba.njit("float64(float64, boolean)", cache=True)
def step_at(count, slow):  # type: ignore[no-untyped-def]
    """The share that the next measurement has in what is learned: that of a mean, and never less than 1/256."""
    return 1.0 / (MEMORY if slow else min(count + 1.0, MEMORY))


@numba.njit(numba.types.boolean(numba.from_dtype(SERIES), *[numba.float64] * 2, *[numba.boolean] * 2), cache=True)
def judge(s, value, floor, both, slow):  # type: ignore[no-untyped-def]
    """Measure a statistic, learn its range, and return whether `value` is the second in a row beyond it.

    With mean m, deviation σ >= floor/6 and M the largest deviation that was usual, x is beyond when |x - m| > max(6σ, 1.5M)
    (x - m without `both`). It is learned as m + clip(x - m, ±3σ) over the last 256 measurements, usual or not: one outlier
    moves little, and what lasts becomes usual. With `slow` each moves as little as in a stream that is long known.

    A deviation counts for M once the one after it was within the range too: the window in which a change begins holds a part
    of it alone, and would widen the range for the windows that hold all of it.
    """
    count = s.count
    if count == 0.0:
        s.mean = value
    before = s.value - s.mean
    off = value - s.mean
    size = abs(off) if both else off
    scale = max(math.sqrt(s.variance), floor / DEVIATIONS)
    s.value, s.reach = value, max(DEVIATIONS * scale, OVER * s.most)
    if count >= LEAST:
        if size > s.reach:
            s.beyond += 1.0
        else:
            usual = s.beyond == 0.0 and count > LEAST
            s.most = max(s.most * _KEEP, (abs(before) if both else before) if usual else 0.0)
            s.beyond = 0.0
        off = min(max(off, -CLIP * scale), CLIP * scale)
    step = step_at(count, slow)
    s.mean += step * off
    s.variance = (1.0 - step) * (s.variance + step * off * off)
    s.count = count + 1.0
    return s.beyond >= 2.0
