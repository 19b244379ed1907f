"""Unit: the limit of a pipeline's gradient for losses without a fixed one, from the typical error of the base."""

from __future__ import annotations

import numpy as np

from riverdelta.core.losses import Loss
from riverdelta.corrections import evidence


class Unit:
    """The typical size of an error, by `corrections.evidence`; without `state`, the loss has a fixed unit."""

    #: The names of the arrays of `state`.
    NAMES = evidence.NAMES

    def __init__(self, loss: Loss) -> None:
        self.loss, self.state, self.size = loss, evidence.arrays(loss), 1.0

    def observe(self, offset: float, label: float) -> bool:
        """Observe a row; return whether its unit is another one (s² by a factor of 16 or more): then a pipeline starts over."""
        spare = np.empty((2, 1, 1))
        self.size, anew = evidence.observe(np.full((1, 1), offset), np.full(1, label), self.terms, self.loss.kernels, *spare)
        return bool(anew)

    def most(self, raw: float, label: float, weight: float, clip: float) -> float:
        """Return the largest gradient of an example of a weight: `clip` typical errors of a value, as of a logit."""
        if self.loss.dispersion == "unit":
            return clip * self.size if evidence.is_known(self.terms) else 0.0
        rows, spare = (np.full((1, 1), raw), np.full(1, label), np.full(1, weight)), np.empty((2, 1, 1))
        return float(evidence.derive(*rows, clip, self.terms, self.size, self.loss.kernels, *spare))

    @property
    def terms(self) -> tuple[object, ...]:
        """The argument `terms` of the functions of `corrections.evidence`."""
        return evidence.terms(self.loss, self.state)
