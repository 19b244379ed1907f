"""Kernels of `Linear`: the raw output of a row, and the step that one example takes."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import float64, types

from riverdelta.core.losses.kernels import KERNELS
from riverdelta.corrections import bounded, evidence, limits

_Floats, _Table, _State, _Slots = types.float32[::1], types.float32[:, ::1], float64[:, ::1], types.int64[:, ::1]
#: The least divisor of a number.
_LEAST = math.sqrt(limits.LEAST)
#: Unsigned row numbers need no test for negative ones.
_NO_ROWS = np.uint64(0)
_Terms = types.UniTuple(float64, 6)  # type: ignore[no-untyped-call]


@numba.njit(inline="always")
def _raw(slots, values, x, ids, dense, i, k, o):  # type: ignore[no-untyped-def]
    residual = 0.0
    for s in range(slots.shape[1]):
        residual += np.float64(ids[slots[i, s], k]) * np.float64(values[i, s])
    for d in range(x.shape[1]):
        residual += np.float64(dense[d, k]) * np.float64(x[i, d])
    return o + residual


@numba.njit(inline="always")
def _step(state, row, at, coefficient, g, per, ftrl, rate, beta, l1, l2, radius):  # type: ignore[no-untyped-def]
    """Return a coefficient after a step of gradient g; state[row, at:] is (Σ(g·per)², FTRL's z)."""
    u = g * per
    squares = state[row, at] + u * u
    if ftrl:
        sigma = (math.sqrt(squares) - math.sqrt(state[row, at])) / rate
        z = state[row, at + 1] + g - sigma * coefficient
        if abs(z) <= l1:
            coefficient = 0.0
        else:
            divisor = (beta + math.sqrt(squares)) / rate + l2
            coefficient = -(z - math.copysign(l1, z)) / divisor
            if abs(coefficient) > radius:
                # z returns to the value that gives the bound. Otherwise an attack would accumulate in z and outlast itself.
                coefficient = math.copysign(radius, coefficient)
                z = -coefficient * divisor - math.copysign(l1, coefficient)
        state[row, at + 1] = z
    elif squares > 0.0:
        coefficient = bounded.within(coefficient - rate * (g / math.sqrt(squares) + l2 * coefficient), radius)
    state[row, at] = squares
    return coefficient


@numba.njit(types.void(_Table, _Slots, _Table, _Table, _Table, _Table, _Table), cache=True)
def predict(offset, slots, values, x, ids, dense, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        for k in range(offset.shape[1]):
            out[i, k] = _raw(slots, values, x, ids, dense, i, k, np.float64(offset[i, k]))


@numba.njit(
    types.void(
        *(_Table, _Floats, _Floats, types.int64[::1], _Slots, _Table, _Table, _Table, types.boolean[::1], _State, _Table),
        *(_State, _State, _State, _Table, types.boolean, _Terms, evidence.TERMS, KERNELS, _Table),
    ),
    cache=True,
)
def learn(  # type: ignore[no-untyped-def]
    offset, label, weight, starts, slots, values, x, ids, touched, id_state, dense, dense_state, scale, window, limit, ftrl,
    terms, counts, loss, out
):  # fmt: skip
    rate, beta, l1, l2, clip, radius = terms
    most, outputs, width = evidence.longest(starts), offset.shape[1], x.shape[1]
    raws, offsets, gradients, curvatures = (
        np.empty((most, outputs)),
        np.empty((most, outputs)),
        np.empty((most, outputs)),
        np.empty((most, outputs)),
    )
    at, ys, ws, squares = np.empty(most, np.uint64), np.empty(most), np.empty(most), np.empty((most, width))
    # Views of the first rows; to make them takes as long as to learn a row.
    viewed, raw, y, w, near = np.uint64(most), raws[:most], ys[:most], ws[:most], offsets[:most]
    gradient, curvature, plain = gradients[:most], curvatures[:most], evidence.is_plain(counts)
    for n in range(starts.shape[0] - 1):
        rows = _NO_ROWS
        for i in range(starts[n], starts[n + 1]):
            size = 0.0
            for d in range(width):
                squares[rows, d] = np.float64(x[i, d]) * np.float64(x[i, d])
                size += squares[rows, d]
                x[i, d] = limits.counted(x[i, d], limit[0, d])
            for k in range(outputs):
                offsets[rows, k] = offset[i, k]
                raws[rows, k] = _raw(slots, values, x, ids, dense, i, k, offsets[rows, k])
                out[i, k] = raws[rows, k]
            ys[rows], ws[rows], at[rows] = label[i], weight[i], i
            rows += np.uint64(size < math.inf and bounded.is_learned(raws, rows, ys[rows], ws[rows]))
        if rows == _NO_ROWS:
            continue
        if rows != viewed:
            viewed, raw, y, w, near = rows, raws[:rows], ys[:rows], ws[:rows], offsets[:rows]
            gradient, curvature = gradients[:rows], curvatures[:rows]
        per, anew, largest_step, penalty, farthest = 1.0, False, clip, l1, radius
        if plain:
            loss.derivatives(raw, y, w, gradient, curvature)
        else:
            s, anew = evidence.observe(near, y, counts, loss, gradient, curvature)
            unit = evidence.scale(counts, s)
            largest_step = evidence.derive(raw, y, w, clip, counts, s, loss, gradient, curvature)
            per, penalty, farthest = 1.0 / unit, l1 * unit, radius * unit
        if anew:
            ids[:], id_state[:], dense[:], dense_state[:], touched[:] = np.float32(0.0), 0.0, np.float32(0.0), 0.0, True
        for j in range(_NO_ROWS, rows):
            i = at[j]
            for k in range(outputs):
                gradient[j, k] = bounded.within(gradient[j, k], largest_step)
            for p in range(slots.shape[1]):
                v = np.float64(values[i, p])
                if v != 0.0:
                    slot = slots[i, p]
                    for k in range(outputs):
                        g, c = gradient[j, k] * v, np.float64(ids[slot, k])
                        ids[slot, k] = _step(id_state, slot, 2 * k, c, g, per, ftrl, rate, beta, penalty, l2, farthest)
                    touched[slot] = True
            for d in range(width):
                if squares[j, d] > 0.0:
                    # scale[d] is (largest |x|, Σx², rows with x != 0), of limited x. Of each output's three columns in
                    # dense_state, the last is the coefficient of x / largest.
                    largest = max(scale[d, 0], abs(np.float64(x[i, d])), _LEAST)
                    scale[d, 2] += 1.0
                    if limits.is_usual(squares[j, d], scale[d, 2], window, d):
                        scale[d, 1] += squares[j, d]
                    else:
                        scale[d, 1] = limits.unusual(scale[d, 1], scale[d, 2], squares[j, d], window, d, limit, d, d + 1)
                        x[i, d] = limits.counted(x[i, d], limit[0, d])
                        # The largest |x| of numbers of one typical size is within 1 to 4 times that size.
                        typical = limits.typical(scale[d, 1], scale[d, 2])
                        if not 0.99 * typical <= largest * largest <= 64.0 * typical:
                            largest = 2.0 * math.sqrt(typical)
                    if largest != scale[d, 0]:
                        # Coefficients and FTRL's z shrink with another scale. If it is another unit, the feature starts over.
                        ratio = min(scale[d, 0], largest) / max(scale[d, 0], largest)
                        for k in range(outputs):
                            dense_state[d, 3 * k] *= ratio > 0.125
                            dense_state[d, 3 * k + 1 : 3 * k + 3] *= ratio * (ratio > 0.125)
                        scale[d, 0] = largest
                    v = np.float64(x[i, d]) / largest
                    for k in range(outputs):
                        of = 3 * k
                        g, c = gradient[j, k] * v, dense_state[d, of + 2]
                        dense_state[d, of + 2] = _step(dense_state, d, of, c, g, per, ftrl, rate, beta, penalty, l2, farthest)
                        dense[d, k] = dense_state[d, of + 2] / largest
