"""Derivatives: the gradient and the curvature of a list, as pipelines learn from it, and the unit of their residuals."""

from __future__ import annotations

import numpy as np

from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.corrections import evidence

#: The name of the array in `state`, float64[1], with the unit of a residual; 0 before the first example.
SCALE = "scale"
#: The largest gradient of an example, how far a unit may be from the typical error, and the least curvature at weight 1: that
#: of a logit of about 14.
_CLIP, _OFF, _LEAST = 10.0, 4.0, 1e-6


class Derivatives:
    """What lists teach pipelines, by `corrections.evidence`.

    Notes
    -----
    River's learning rates suit a curvature of about 1 and residuals of about 1. So the curvature of counts is divided by its
    typical size, and where the loss is in the label's unit, pipelines learn residuals in a unit of their own. It is the typical
    error when they begin; if that is 4 times larger or smaller later, they start over with the new one.
    """

    #: The names of the arrays of `state`.
    NAMES = *evidence.NAMES, SCALE

    def __init__(self, loss: Loss) -> None:
        self.loss, self.state = loss, evidence.arrays(loss)
        if loss.dispersion == "unit":
            self.state[SCALE] = np.zeros(1)

    @property
    def unit(self) -> float:
        """The unit of a residual, in raw outputs."""
        return float(self.state[SCALE][0]) or 1.0 if SCALE in self.state else 1.0

    def learn(self, offset: Doubles, raw: Doubles, label: Doubles, weight: Doubles) -> tuple[Doubles, Doubles, bool]:
        """Return gradient and curvature float64[n, K] of a list, and whether `unit` changed.

        It overwrites weights that are limited. An output whose class was never a label has a gradient of 0.
        """
        gradient, curvature = np.empty_like(raw), np.empty_like(raw)
        terms = evidence.terms(self.loss, self.state)
        typical = evidence.even(offset, raw, label, weight, _CLIP, terms, self.loss.kernels, gradient, curvature)
        np.maximum(curvature, _LEAST * weight[:, np.newaxis], out=curvature)
        scale = self.state.get(SCALE)
        if scale is None or not evidence.is_known(terms) or scale[0] / _OFF <= typical <= scale[0] * _OFF:
            return gradient, curvature, False
        scale[0] = typical
        return gradient, curvature, True
