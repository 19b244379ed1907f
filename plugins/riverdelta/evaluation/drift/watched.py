"""Watched: what drift watches of each row beside its columns: the loss, calibration, and the shares of classes."""

from __future__ import annotations

import numpy as np

from riverdelta.core.features import Floats
from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.measured import Rows
from riverdelta.evaluation.unit import Unit

#: The largest loss that counts, in nats or in typical losses of the base; lower than elsewhere, because the panel bets on
#: shares of the full range.
MOST = 4.0
#: The most classes whose shares are watched: each is a quantity, and less evidence is left for any other.
MOST_CLASSES = 32
LOSS, CALIBRATION = "loss", "calibration"


class Watched:
    """What is watched of a row of a loss, each as a share of its range.

    Attributes
    ----------
    ranges
        The ranges of the loss and, with two labels, of score - label in both directions.
    quantities
        The names of what is watched, and `owner` whose each share is.
    unit
        The unit of the loss, of which `fixed` float64[1] is the value while it is watched.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss, self.unit, self.fixed = loss, Unit(loss), np.ones(1)
        self.ranges = np.array([min(MOST, loss.bound), 2.0, 2.0] if loss.logit else [min(MOST, loss.bound)])
        self._classes = loss.outputs if loss.classes and loss.outputs <= MOST_CLASSES else 0
        names = [f"{kind} {name}" for kind in ("label", "prediction") for name in (loss.classes or ())[: self._classes]]
        self.quantities = (LOSS, *([CALIBRATION] if loss.logit else []), *names)
        self.owner = np.array([0, 1, 1] if loss.logit else range(len(self.quantities)), np.int64)

    def shares(self, base: Floats, served: Floats, label: Floats, group: Group) -> tuple[Doubles, Doubles]:
        """Return the shares of M rows, with the loss itself in the place of its own, and the losses of the base.

        A row that cannot be measured has loss 0.
        """
        rows = Rows.of(self.loss, served, served, label, np.ones(len(label)))
        out = np.full((len(label), len(self.owner)), 0.5)
        lost = self.loss.value(rows.raw[0], rows.label, group)
        out[:, 0] = np.where(rows.good & np.isfinite(lost), lost, 0.0)
        if self._classes:
            codes = np.arange(self._classes)
            predicted = self.loss.rows(base).argmax(axis=1)
            out[:, 1:] = np.hstack([one[:, None] == codes for one in (rows.label, predicted)])
        if self.loss.logit:
            off = np.where(rows.good, self.loss.inverse_link(rows.raw[0])[:, 0] - rows.label, 0.0)
            out[:, 1], out[:, 2] = (1.0 + off) / 2.0, (1.0 - off) / 2.0
        return out, lost if self.unit.constant else self.loss.value(base, rows.label, group)

    def scaled(self, shares: Doubles, typical: Doubles, watching: bool) -> Doubles:
        """Return shares with the loss as a share of its range, in the unit that is in force."""
        unit = self.fixed if watching else self.unit.of(typical, np.ones(len(typical)))
        lost = np.divide(shares[:, 0], unit, out=np.zeros(len(shares)), where=unit > 0)
        return np.column_stack([np.minimum(lost, self.ranges[0]) / self.ranges[0], shares[:, 1:]])
