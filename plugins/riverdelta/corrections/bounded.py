"""Bounded: what one example can do, whatever it holds; the one rule of every kernel, as functions that compile into them.

Every correction that learns by a compiled kernel keeps to this:

- a row is learned where its weight is not 0, and its raw outputs, its weight and its label are finite: what is not would stay
  in the state for good;
- its weight counts as at most `clip` / |gradient of the loss|, in the gradient and the curvature alike: a clipped step is that
  of a lighter example, so never longer;
- a feature counts as at most 4 times its typical size: its square as at most 16 times the mean of its squares other than 0;
- after an update coefficients lie within `radius`.
"""

from __future__ import annotations

import math

import numba

_TAIL = 16.0
#: The least typical square: sizes below 1e-6 count as it.
LEAST = 1e-12


@numba.njit
def is_learned(raw, label, weight):  # type: ignore[no-untyped-def]
    """Return whether a row of raw outputs raw[K] is learned."""
    learned = weight != 0.0
    for k in range(raw.shape[0]):
        learned &= abs(raw[k] + weight * label) < math.inf
    return learned


@numba.njit
def largest(gradient):  # type: ignore[no-untyped-def]
    """Return the size of a row's gradient[K], which is at most `clip`: its largest number, whatever the sign."""
    found = 0.0
    for k in range(gradient.shape[0]):
        found = max(found, abs(gradient[k]))
    return found


@numba.njit
def typical(total, rows):  # type: ignore[no-untyped-def]
    """Return the mean square of a feature with the sum `total` of squares over the `rows` in which it is not 0."""
    return max(total / max(rows, 1.0), LEAST)


@numba.njit
def square(value, total, rows):  # type: ignore[no-untyped-def]
    """Return what a square counts as, beside those before it."""
    if value * rows > _TAIL * max(total, LEAST * rows):
        return _TAIL * max(total / rows, LEAST)
    return value


@numba.njit
def feature(value, total, rows):  # type: ignore[no-untyped-def]
    """Return what a number counts as, beside those before it."""
    counted = square(value * value, total, rows)
    return value if counted == value * value else math.copysign(math.sqrt(counted), value)


@numba.njit
def shrinkage(reach, radius):  # type: ignore[no-untyped-def]
    """Return the factor that takes coefficients of a squared size `reach` back within `radius`; NaN where that is NaN."""
    return 1.0 if reach <= radius * radius else radius / math.sqrt(reach)


@numba.njit
def within(value, most):  # type: ignore[no-untyped-def]
    """Return a number cut to ±most."""
    return min(max(value, -most), most)
