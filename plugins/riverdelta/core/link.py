"""The logit link and the gate's mixture, in float64 and safe at both ends.

Shapes are free (elementwise); units are nats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

#: A probability output is clipped to [PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR] before it becomes a logit.
PROBABILITY_FLOOR = 1e-7
#: The largest residual that the gate lets through, in logits.
RESIDUAL_BOUND = 30.0


def softplus(z: npt.ArrayLike) -> Floats:
    """Return log(1 + exp(z)) without overflow.

    >>> softplus([0.0, 1000.0]).round(4).tolist()
    [0.6931, 1000.0]
    """
    return np.logaddexp(0.0, np.asarray(z, np.float64))


def sigmoid(z: npt.ArrayLike) -> Floats:
    """Return σ(z) = 1 / (1 + exp(-z)), the probability of a logit, without overflow.

    >>> sigmoid([0.0, -1000.0]).tolist()
    [0.5, 0.0]
    """
    z = np.asarray(z, np.float64)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


def logit(p: npt.ArrayLike) -> Floats:
    """Return log(p / (1 - p)) after clipping p to [1e-7, 1 - 1e-7].

    >>> logit([0.5, 0.0]).round(4).tolist()
    [0.0, -16.1181]
    """
    p = np.clip(np.asarray(p, np.float64), PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    return np.log(p) - np.log1p(-p)


def log_loss(z: npt.ArrayLike, label: npt.ArrayLike) -> Floats:
    """Return each row's log loss -log P(label) = softplus(z) - label·z, in nats.

    >>> log_loss([0.0], [1.0]).round(4).tolist()
    [0.6931]
    """
    z = np.asarray(z, np.float64)
    return softplus(z) - np.asarray(label, np.float64) * z


def mix(base: npt.ArrayLike, corrected: npt.ArrayLike, weight: float) -> Floats:
    """Return the logit of (1 - w)·σ(b) + w·σ(c'), where c' = b + clip(c - b, -B, B) and B is `RESIDUAL_BOUND`.

    With c = b the result is b, bit for bit; with w = 0 it is b up to rounding, with w = 1 it is c'. The two logarithms are
    those of the mixed probability over σ(b) and of the mixed complement over σ(-b), so nothing overflows while B <= 30.

    >>> mix([0.3], [0.3], 0.7).tolist()
    [0.3]
    >>> mix([0.0], [2.0], 1.0).round(6).tolist()
    [2.0]
    """
    b = np.asarray(base, np.float64)
    c = b + np.clip(np.asarray(corrected, np.float64) - b, -RESIDUAL_BOUND, RESIDUAL_BOUND)
    up = (1.0 - weight) + weight * np.exp(softplus(-b) - softplus(-c))
    down = (1.0 - weight) + weight * np.exp(softplus(b) - softplus(c))
    # Subtracted first: with c = b both logarithms are equal and nothing is added to b.
    return b + (np.log(up) - np.log(down))
