"""Kernels of `Entity`: the raw output of a row, and the step that one example takes."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import float64, types

from riverdelta.core.losses.kernels import KERNELS
from riverdelta.corrections import bounded, evidence, limits

#: The largest precision; float32 ends at 3e38.
CERTAIN = np.float32(1e36)
_Floats, _Table, _Sums = types.float32[::1], types.float32[:, ::1], float64[::1]
_Index = types.int32[:, ::1]
#: Unsigned row numbers need no test for negative ones.
_NO_ROWS = np.uint64(0)
_Terms = types.UniTuple(float64, 4)  # type: ignore[no-untyped-call]
#: Unsigned column numbers need no test for negative ones at each element, which saves a third of the time.
_0, _1, _2, _3, _4 = (np.uint64(n) for n in range(5))


@numba.njit(inline="always")
def _dot(a, i, at, b, j, of, length):  # type: ignore[no-untyped-def]
    """Return a[i, at : at + length] · b[j, of : of + length], by four sums in a fixed order: fast without fast math."""
    s0 = s1 = s2 = s3 = 0.0
    fours = length - length % _4
    for d in range(_0, fours, _4):
        s0 += np.float64(a[i, at + d]) * np.float64(b[j, of + d])
        s1 += np.float64(a[i, at + d + _1]) * np.float64(b[j, of + d + _1])
        s2 += np.float64(a[i, at + d + _2]) * np.float64(b[j, of + d + _2])
        s3 += np.float64(a[i, at + d + _3]) * np.float64(b[j, of + d + _3])
    for d in range(fours, length):
        s0 += np.float64(a[i, at + d]) * np.float64(b[j, of + d])
    return (s0 + s1) + (s2 + s3)


@numba.njit(types.void(_Table, types.int64[::1], _Index, _Table, _Table, _Table), cache=True)
def predict(offset, slots, index, x, mean, out):  # type: ignore[no-untyped-def]
    width = np.uint64(x.shape[1])
    for row in range(offset.shape[0]):
        i, slot = np.uint64(row), np.uint64(index[slots[row], 0])
        for k in range(offset.shape[1]):
            out[i, k] = np.float64(offset[i, k]) + _dot(mean, slot, np.uint64(k) * width, x, i, _0, width)


@numba.njit
def _shrink(x, i, begin, size, limit):  # type: ignore[no-untyped-def]
    """Limit the numbers of a feature, and return the factor by which their vector is then scaled to the same limit."""
    for d in range(begin, begin + size):
        x[i, d] = limits.counted(x[i, d], limit[0, d])
    length = math.sqrt(_dot(x, i, begin, x, i, begin, size))
    return np.float32(1.0) if length <= limit[0, begin] else limit[0, begin] / np.float32(length)


@numba.njit
def _resize(mean, touched, precision, used, begin, size, outputs, forgotten, prior, most):  # type: ignore[no-untyped-def]
    """Adapt every entity to another typical size of a feature: bound its |m|², or forget it."""
    width = np.uint64(precision.shape[1]) // np.uint64(outputs)
    for row in range(1, used):
        for k in range(outputs):
            slot, at = np.uint64(row), np.uint64(k) * width + begin
            if precision[slot, at] > np.float32(0.0):
                shrinkage = np.float32(bounded.shrinkage(_dot(mean, slot, at, mean, slot, at, size), most))
                for d in range(at, at + size):
                    precision[slot, d] = prior if forgotten else precision[slot, d]
                    mean[slot, d] *= np.float32(0.0) if forgotten else shrinkage
                touched[slot] |= forgotten or shrinkage != np.float32(1.0)


@numba.njit(
    types.int64(
        *(_Table, _Floats, _Floats, types.int64[::1], types.int64[::1], _Index, types.boolean[::1], types.int64, _Table),
        *(_Table, types.boolean[::1], types.int64[::1], _Table, _Sums, _Sums),
        *(float64[:, ::1], _Table, _Sums, types.int64[::1], _Terms, evidence.TERMS, KERNELS, _Table),
    ),
    cache=True,
)
def learn(  # type: ignore[no-untyped-def]
    offset, label, weight, starts, slots, index, moved, used, x, mean, touched, slot_of, precision, square, present, window,
    limit, sizes, ends, terms, counts, loss, out
):  # fmt: skip
    """Learn a block and return the used rows: slots that have none get the next ones, for which the arrays must have room."""
    variance, forget, clip, radius = terms
    keep, lose, width, outputs = np.float32(forget), np.float32(1.0 - forget), np.uint64(x.shape[1]), offset.shape[1]
    most, features = evidence.longest(starts), ends.shape[0]
    raws, offsets, gradients, curvatures = (
        np.empty((most, outputs)),
        np.empty((most, outputs)),
        np.empty((most, outputs)),
        np.empty((most, outputs)),
    )
    at, ys, ws, reach = np.empty(most, np.uint64), np.empty(most), np.empty(most), np.empty(outputs)
    lengths, shrinks = np.empty((most, features)), np.empty((most, features), np.float32)
    # Views of the first rows; to make them takes as long as to learn a row.
    viewed, raw, y, w, near = np.uint64(most), raws[:most], ys[:most], ws[:most], offsets[:most]
    gradient, curvature, plain = gradients[:most], curvatures[:most], evidence.is_plain(counts)
    for n in range(starts.shape[0] - 1):
        rows = _NO_ROWS
        for row in range(starts[n], starts[n + 1]):
            i, slot = np.uint64(row), np.uint64(index[slots[row], 0])
            # square[0] counts rows, square[1 + f] is the sum of |x|² of feature f, and present[f] counts its rows with x != 0.
            # Feature f ends before column ends[f].
            begin, finite = _0, True
            for f in range(features):
                size = np.uint64(ends[f]) - begin
                lengths[rows, f], shrinks[rows, f] = _dot(x, i, begin, x, i, begin, size), 1.0
                if not lengths[rows, f] <= np.float64(limit[0, begin]) ** 2:
                    finite &= lengths[rows, f] < math.inf
                    shrinks[rows, f] = _shrink(x, i, begin, size, limit)
                begin += size
            for k in range(outputs):
                offsets[rows, k] = offset[i, k]
                raws[rows, k] = offsets[rows, k] + _dot(mean, slot, np.uint64(k) * width, x, i, _0, width)
                out[i, k] = raws[rows, k]
            ys[rows], ws[rows], at[rows] = label[i], weight[i], row
            rows += np.uint64(finite and bounded.is_learned(raws, rows, ys[rows], ws[rows]))
        if rows == _NO_ROWS:
            continue
        if rows != viewed:
            viewed, raw, y, w, near = rows, raws[:rows], ys[:rows], ws[:rows], offsets[:rows]
            gradient, curvature = gradients[:rows], curvatures[:rows]
        unit, anew, clipped = 1.0, False, False
        if plain:
            loss.derivatives(raw, y, w, gradient, curvature)
        if not plain or bounded.largest(gradient) > clip:
            unit, anew, clipped = evidence.count(near, raw, y, w, clip, counts, loss, gradient, curvature)
        if anew:
            mean[1:used], precision[1:used], touched[1:used] = np.float32(0.0), np.float32(0.0), True
        for j in range(_NO_ROWS, rows):
            i = row = at[j]
            slot = np.uint64(index[slots[row], 0])
            if slot == _0:
                slot, slot_of[used], index[slots[row], 0], moved[slots[row]] = np.uint64(used), slots[row], used, True
                used += 1
            square[0] += 1.0
            reach[:] = 0.0
            begin = _0
            for f in range(features):
                size, length = np.uint64(ends[f]) - begin, lengths[j, f]
                usual, typical = True, limits.typical(square[1 + f], present[f])
                if length > 0.0:
                    present[f] += 1.0
                    usual = limits.is_usual(length, present[f], window, f)
                    if usual:
                        square[1 + f] += length
                    else:
                        square[1 + f] = limits.unusual(square[1 + f], present[f], length, window, f, limit, begin, begin + size)
                        shrinks[j, f] = _shrink(x, i, begin, size, limit)
                    typical = limits.typical(square[1 + f], present[f])
                prior = np.float32(min(max(square[1 + f] / square[0], limits.LEAST) / variance, CERTAIN))
                if not (usual or sizes[f] / 4.0 <= typical <= sizes[f] * 4.0):
                    if sizes[f] > 0.0:
                        jumped = not sizes[f] / 16.0 <= typical <= sizes[f] * 16.0
                        most_now = unit * radius / math.sqrt(typical)
                        _resize(mean, touched, precision, used, begin, size, outputs, jumped, prior, most_now)
                    sizes[f] = typical
                shrink = shrinks[j, f]
                # A clipped step is at most the prior deviation.
                back, step = lose * prior, np.float32(unit * math.sqrt(variance / typical) if clipped else math.inf)
                for k in range(outputs):
                    of, g, h = np.uint64(k) * width + begin, np.float32(gradient[j, k]), np.float32(curvature[j, k])
                    for d in range(_0, size):
                        v, belief = x[i, begin + d] * shrink, precision[slot, of + d]
                        was = belief if belief > np.float32(0.0) else prior
                        now = min(max(keep * was + back, prior) + h * v * v, CERTAIN)
                        precision[slot, of + d] = now
                        mean[slot, of + d] -= bounded.within(g * v / now, step)
                    reach[k] += typical * _dot(mean, slot, of, mean, slot, of, size)
                begin += size
            for k in range(outputs):
                shrinkage = np.float32(bounded.shrinkage(reach[k], unit * radius))
                if shrinkage != np.float32(1.0):
                    for d in range(np.uint64(k) * width, np.uint64(k + 1) * width):
                        # Coefficients that overflowed have no direction: they return to 0.
                        mean[slot, d] = mean[slot, d] * shrinkage if shrinkage > np.float32(0.0) else np.float32(0.0)
            touched[slot] = True
    return used
