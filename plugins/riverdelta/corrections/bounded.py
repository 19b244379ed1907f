"""Bounds on the effect of one example, as functions that are compiled into every kernel.

- A row is learned only if its weight is not 0 and its raw outputs, weight and label are finite; anything else would stay in the
  state permanently.
- Its weight counts as at most `clip` / |gradient of the loss|, in the gradient and in the curvature. A clipped step is thus the
  step of a lighter example, and never longer than the full one. Of a list, all weights shrink alike (`corrections.evidence`).
- A number counts as at most 4 times its typical size (`corrections.limits`).
- After an update, the coefficients are within `radius`.
"""

from __future__ import annotations

import math

import numba


@numba.njit
def is_learned(raw, label, weight):  # type: ignore[no-untyped-def]
    """Return whether a row with the raw outputs raw[K] is learned."""
    learned = weight != 0.0
    for k in range(raw.shape[0]):
        learned &= abs(raw[k] + weight * label) < math.inf
    return learned


@numba.njit
def largest(gradient):  # type: ignore[no-untyped-def]
    """Return the largest absolute value of gradient[n, K], which `clip` limits."""
    found = 0.0
    for i in range(gradient.shape[0]):
        for k in range(gradient.shape[1]):
            found = max(found, abs(gradient[i, k]))
    return found


@numba.njit
def shrinkage(reach, radius):  # type: ignore[no-untyped-def]
    """Return the factor that scales coefficients of squared size `reach` back to `radius`; NaN if `reach` is NaN."""
    return 1.0 if reach <= radius * radius else radius / math.sqrt(reach)


@numba.njit
def within(value, most):  # type: ignore[no-untyped-def]
    """Return `value` clipped to ±`most`."""
    return min(max(value, -most), most)


def finite(*bounds: float) -> tuple[float, ...]:
    """Return bounds with 1e18 for infinity: what they bound then stays within float32.

    >>> finite(10.0, math.inf)
    (10.0, 1e+18)
    """
    return tuple(min(float(bound), 1e18) for bound in bounds)
