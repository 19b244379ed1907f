"""Evidence: the derivatives of an example as they count, in the kernel of every correction.

- An output whose class was never a learned label has none, so that its raw output stays exactly the base's.
- Where the loss is in squared units of the label (`dispersion` "unit"), raw outputs count in a unit s: the typical size of an
  error of the offset, by the algorithm of `corrections.limits`. So s is robust, follows the label's unit, and does not depend
  on what was learned. If s² changes by a factor of 16 or more at once, the correction starts over.
  Until that algorithm tests sizes, at the 8th error, errors only set the unit: an absurd first label moves nothing.
- For counts ("free"), gradient and curvature are divided by s², at least 1, with s the typical size of gradient / √curvature.
  The curvature counts as at least the gradient, as a Newton step of more than 1 in a log rate would overshoot.
- Logarithmic losses ("none") have s = 1.

`bounded.py` says how `clip` limits an example: in units of s, at most 4 at weight 1; for a count in units of √curvature, where
this exceeds 1, and at most 2 times its typical size.

Source of the division by s²: McCullagh and Nelder 1989, section 9.2.4 (quasi-likelihood, the dispersion φ = s²).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, types

from riverdelta.core.losses import Loss
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.corrections import bounded, limits

#: The arrays in `learner`: which classes were labels, float64[K], and the typical size of an error and, of a
#: count, its typical curvature, float64[2, 11].
SEEN, UNIT = "seen", "unit"
NAMES = SEEN, UNIT
_NONE, _SCALED, _FREE = 0, 1, 2
_KINDS = {"none": _NONE, "unit": _SCALED, "free": _FREE}
#: An example of weight 1 counts as at most this many typical errors.
_FAR = 4.0
#: The columns after those of a window of `limits`: Σx², the number of values, and the typical square in force.
_TOTAL, _ROWS, _KNOWN = 8, 9, 10
WIDTH = 11
_UNSEEN, _UNSCALED = np.empty(0), np.empty((0, WIDTH))
_Rows = float64[:, ::1]
#: (the kind of dispersion, SEEN, UNIT), as `terms` gives them; an array without rows is not used.
TERMS = types.Tuple((types.int64, float64[::1], float64[:, ::1]))  # type: ignore[no-untyped-call]


def arrays(loss: Loss) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that a correction keeps in `learner` for a loss, if any."""
    found: dict[str, npt.NDArray[Any]] = {}
    if loss.classes is not None:
        found[SEEN] = np.zeros(loss.outputs)
    if loss.dispersion != "none":
        found[UNIT] = np.zeros((2, WIDTH))
    return found


def terms(loss: Loss, learner: Mapping[str, npt.NDArray[Any]]) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the argument `terms` of a kernel."""
    return _KINDS[loss.dispersion], learner.get(SEEN, _UNSEEN), learner.get(UNIT, _UNSCALED)


def unit(loss: Loss, learner: Mapping[str, npt.NDArray[Any]]) -> float:
    """Return the unit of a raw output, as it is now."""
    return float(np.sqrt(typical(learner[UNIT], 0))) if loss.dispersion == "unit" else 1.0


@numba.njit(inline="always")
def is_plain(terms):  # type: ignore[no-untyped-def]
    """Return whether an example counts as its loss says. Kernels then do without `count` unless `clip` limits it."""
    return terms[0] == _NONE and terms[1].shape[0] == 0


@numba.njit
def typical(sizes, f):  # type: ignore[no-untyped-def]
    """Return the typical square of feature f of sizes[F, 11]."""
    return limits.typical(sizes[f, _TOTAL], sizes[f, _ROWS])


@numba.njit
def meet(square, sizes, f, limit):  # type: ignore[no-untyped-def]
    """Add a square above 0 to feature f of sizes[F, 11], and set limit[0, f] if it is time."""
    window = sizes[:, :_TOTAL]
    sizes[f, _ROWS] += 1.0
    if limits.is_usual(square, sizes[f, _ROWS], window, f):
        sizes[f, _TOTAL] += square
    else:
        sizes[f, _TOTAL] = limits.unusual(sizes[f, _TOTAL], sizes[f, _ROWS], square, window, f, limit, f, f + 1)


@numba.njit
def is_known(terms):  # type: ignore[no-untyped-def]
    """Return whether enough errors have set the unit for it to be robust."""
    return terms[0] != _SCALED or terms[2][0, _ROWS] >= limits.FEWEST


@numba.njit
def observe(offset, label, terms, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    """Observe the rows of a list; return the unit s with them, and whether the correction starts over.

    Overwrites gradient[n, K] and curvature[n, K].
    """
    kind, seen, sizes = terms
    rows = label.shape[0]
    if seen.shape[0] > 0:
        for i in range(rows):
            seen[int(label[i])] = 1.0
    if kind == _NONE:
        return 1.0, False
    loss.derivatives(offset, label, np.ones(rows), gradient, curvature)
    limit = np.full((1, 2), np.float32(limits.MOST))
    for i in range(rows):
        for k in range(gradient.shape[1]):
            if gradient[i, k] != 0.0:
                h = max(curvature[i, k], limits.LEAST)
                meet(gradient[i, k] * gradient[i, k] / h, sizes, 0, limit)
                if kind == _FREE:
                    meet(h, sizes, 1, limit)
    square = typical(sizes, 0)
    if kind == _FREE:
        return max(math.sqrt(square), 1.0), False
    known = sizes[0, _KNOWN]
    if not is_known(terms) or known / 4.0 <= square <= known * 4.0:
        return math.sqrt(square), False
    sizes[0, _KNOWN] = square
    return math.sqrt(square), known > 0.0 and not known / 16.0 <= square <= known * 16.0


@numba.njit
def scale(terms, s):  # type: ignore[no-untyped-def]
    """Return the unit of a raw output."""
    return s if terms[0] == _SCALED else 1.0


@numba.njit
def _derive(raw, label, weight, terms, s, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    loss.derivatives(raw, label, weight, gradient, curvature)
    kind, seen, _ = terms
    if kind == _FREE:
        for i in range(gradient.shape[0]):
            for k in range(gradient.shape[1]):
                gradient[i, k] /= s * s
                curvature[i, k] = max(curvature[i, k] / (s * s), abs(gradient[i, k]))
    if seen.shape[0] > 0:
        for i in range(gradient.shape[0]):
            for k in range(gradient.shape[1]):
                if seen[k] == 0.0:
                    gradient[i, k] = 0.0
                    curvature[i, k] = 0.0


@numba.njit
def derive(raw, label, weight, clip, terms, s, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    """Fill gradient[n, K] and curvature[n, K] of a list; return the largest gradient that `clip` allows."""
    _derive(raw, label, weight, terms, s, loss, gradient, curvature)
    kind, _, sizes = terms
    if kind == _NONE:
        return clip
    clip = min(clip, _FAR * weight.max())
    if kind == _SCALED:
        return clip * s if is_known(terms) else 0.0
    most = 0.0
    for i in range(curvature.shape[0]):
        for k in range(curvature.shape[1]):
            most = max(most, curvature[i, k] / weight[i])
    return clip * math.sqrt(max(min(most, _FAR * typical(sizes, 1) / (s * s)), 1.0))


@numba.njit
def derive_clipped(raw, label, weight, clip, terms, s, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    """Fill gradient[n, K] and curvature[n, K], of lighter rows if `clip` limits them; return whether it does.

    It then overwrites weight[n].
    """
    most = derive(raw, label, weight, clip, terms, s, loss, gradient, curvature)
    if not bounded.largest(gradient) > most:
        return False
    heaviest = weight.max()
    for i in range(weight.shape[0]):
        weight[i] /= heaviest
    _derive(raw, label, weight, terms, s, loss, gradient, curvature)
    lighter = most / bounded.largest(gradient)
    for i in range(weight.shape[0]):
        weight[i] *= lighter
    _derive(raw, label, weight, terms, s, loss, gradient, curvature)
    return True


@numba.njit
def count(offset, raw, label, weight, clip, terms, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    """Fill gradient[n, K] and curvature[n, K] of a list; return the unit of a raw output, whether the correction starts over,
    and whether `clip` limits the rows, which may overwrite weight[n]."""
    s, anew = observe(offset, label, terms, loss, gradient, curvature)
    return scale(terms, s), anew, derive_clipped(raw, label, weight, clip, terms, s, loss, gradient, curvature)


@numba.njit(float64(_Rows, _Rows, float64[::1], float64[::1], float64, TERMS, KERNELS, _Rows, _Rows), cache=True)
def even(offset, raw, label, weight, clip, terms, loss, gradient, curvature):  # type: ignore[no-untyped-def]
    """Fill gradient[n, K] and curvature[n, K] of a list for steps at a rate that no curvature divides; return the unit of a raw
    output.

    The curvature of counts, and the gradient with it, is divided by its typical size, where this is above 1, and is at most 4
    times that. Overwrites weight[n] if `clip` limits it.
    """
    s, _, _ = count(offset, raw, label, weight, clip, terms, loss, gradient, curvature)
    kind, _, sizes = terms
    if kind == _FREE:
        usual = max(typical(sizes, 1) / max(typical(sizes, 0), 1.0), 1.0)
        for i in range(gradient.shape[0]):
            for k in range(gradient.shape[1]):
                size = max(usual, curvature[i, k] / (_FAR * weight[i]))
                gradient[i, k] /= size
                curvature[i, k] /= size
    return s


@numba.njit
def longest(starts):  # type: ignore[no-untyped-def]
    """Return the rows of the longest list, at least 1."""
    found = 1
    for n in range(starts.shape[0] - 1):
        found = max(found, starts[n + 1] - starts[n])
    return found
