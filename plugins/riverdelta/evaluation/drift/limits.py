"""Limits: how large the shares of a number's bins may become before drift bets on a change."""

from __future__ import annotations

import numpy as np

from riverdelta.core.losses.base import Doubles

#: How far a mean may be above the reference's: in its standard errors, and in its own unit.
ERRORS, TOLERANCE = 5.0, 0.02
#: How far a share may rise relative to the reference's; for shares below 0.08 this is less than `TOLERANCE`.
RELATIVE = 0.25


def largest(share: Doubles, error: Doubles, rows: int) -> Doubles:
    """Return how large the mean of each share may be, by the `share` in `rows` rows of the reference and its standard `error`.

    It may rise by `TOLERANCE` and `ERRORS` standard errors, or by `RELATIVE` of itself and Wilson's interval of `ERRORS`
    standard errors, which holds for rare values too, if that is less.

    Reference: Wilson 1927 (the interval).

    >>> largest(np.array([0.1, 0.01]), np.array([0.003, 0.001]), rows=8_192).round(3).tolist()
    [0.135, 0.02]
    """
    wide = ERRORS**2 / (2 * rows)
    wilson = np.sqrt(np.maximum(error**2, share * (1 - share) / rows) + (wide / ERRORS) ** 2)
    most = np.minimum(share + ERRORS * error + TOLERANCE, share * (1 + RELATIVE) + wide + ERRORS * wilson)
    return np.minimum(most, 1.0)
