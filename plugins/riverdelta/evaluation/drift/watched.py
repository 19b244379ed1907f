"""Watched: what drift bets on beside the columns, which is for the loss to say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Floats
from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.measured import Rows
from riverdelta.evaluation.unit import Unit

#: The largest loss that counts, for each grade of a list; lower than elsewhere, as the panel bets on shares of the full range.
MOST = 4.0
LOSS, CALIBRATION = "loss", "calibration"
#: For classes, the shares of each as a label and as what the base predicts.
SHARES = ("label share", "predicted share")


class Watched:
    """The served loss, with two labels score - label in both directions, and with classes the shares of each, all from 0 to 1.

    The loss of lists is that of a row in its list. A loss without a constant unit is divided by `scale`, the base's typical
    loss when the reference began, so that a lasting change of it is not mistaken for one of the unit.

    >>> from riverdelta.core.losses import Multiclass
    >>> watched = Watched(Multiclass(["cat", "dog"]))
    >>> watched.quantities, watched.named(2)
    (('loss', 'label share', 'predicted share'), "label share of 'dog'")
    """

    def __init__(self, loss: Loss) -> None:
        self.loss, self.unit, self._classes = loss, Unit(loss), loss.classes or ()
        #: The ranges of the losses watched; the shares of classes follow them.
        most = MOST * (loss.labels or (1.0,))[-1] if loss.lists else MOST
        self.ranges = np.array([min(most, loss.bound) if self.unit.constant else most, *([2.0, 2.0] if loss.logit else [])])
        self.quantities = (LOSS, *(SHARES if self._classes else (CALIBRATION,) if loss.logit else ()))
        #: The index of the quantity of each number watched.
        self.owner: npt.NDArray[np.int64] = np.repeat(
            np.arange(len(self.quantities)), [1, *([len(self._classes)] * 2 if self._classes else [2] * loss.logit)]
        )
        #: What losses are divided by; 0 while it is not known.
        self.scale = np.full(1, float(self.unit.constant))

    def __len__(self) -> int:
        return len(self.owner)

    def named(self, at: int) -> str:
        """Return the quantity that number `at` belongs to, of shares with the class."""
        quantity, first = self.quantities[self.owner[at]], len(self.ranges)
        return f"{quantity} of {self._classes[(at - first) % len(self._classes)]!r}" if at >= first else quantity

    def of(self, base: Floats, served: Floats, label: Floats, group: Group) -> tuple[Doubles, Doubles]:
        """Return the numbers of M rows, float64[M, R], the first not yet `scaled`, and the scale before each row, float64[M].

        A row that cannot be measured has loss 0, no error, and no class.
        """
        rows = Rows.of(self.loss, served, base, label, np.ones(len(label)), group)
        losses, out = rows.losses(self.loss), np.zeros((len(label), len(self)))
        out[:, 0] = losses[0]
        if self.loss.logit:
            off = np.where(rows.good, self.loss.inverse_link(rows.raw[0])[:, 0] - rows.label, 0.0)
            out[:, 1], out[:, 2] = (1.0 + off) / 2.0, (1.0 - off) / 2.0
        if self._classes:
            at = np.flatnonzero(rows.good)
            out[at, 1 + rows.label[at].astype(np.int64)] = 1.0
            out[at, 1 + len(self._classes) + rows.raw[1][at].argmax(axis=1)] = 1.0
        return out, self.unit.of(losses[1], rows.good)

    def scaled(self, numbers: Doubles) -> Doubles:
        """Return numbers of rows as they are bet on, from 0 to 1."""
        if self.scale[0] > 0:
            numbers[:, 0] = np.minimum(numbers[:, 0] / self.scale[0], self.ranges[0]) / self.ranges[0]
        return numbers
