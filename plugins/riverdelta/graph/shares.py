"""Shares: whether the columns of an output are the probabilities of classes, of which one is right, or their logits."""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ModelError
from riverdelta.core.losses import Loss
from riverdelta.graph.head import Head
from riverdelta.graph.link import PREDICTION, RAW
from riverdelta.graph.meaning import FEW, Evidence
from riverdelta.graph.probe import Probe

_log = logging.getLogger(__name__)
#: Probabilities of float16 add up to one this nearly.
_ROUNDING = 2e-3


class Shares(Evidence):
    """What is known about an output of several numbers a row: as of one, and what probed rows add up to."""

    @cached_property
    def totals(self) -> npt.NDArray[np.float64]:
        """What each probed row adds up to."""
        return self.values.reshape(-1, self.head.width).sum(axis=1)

    @property
    def found(self) -> str | None:
        """What the output is without the user's word: a prediction if its rows are shares of one, raw if some are negative."""
        if self.link.always_raw:
            return RAW
        if self.proved or (self.values.size and self._inside.all()):
            return PREDICTION if self._exclusive else None
        differ = self.values.size and np.ptp(self.values) > 0
        return RAW if self.range[1] <= 0 or (differ and np.mean(self.values < 0) >= FEW) else None

    @property
    def _exclusive(self) -> bool:
        """Whether nothing speaks against rows that add up to one."""
        return not self.totals.size or float(np.abs(self.totals - 1).max()) <= _ROUNDING

    def predicts(self, word: str | None, insisted: bool) -> bool:
        raw, prediction = (self.link.line(self.output, word) for word in (RAW, PREDICTION))
        kind, refused = self.link.prediction, None
        added = f"whose rows add up to {self.totals.min():.4g} to {self.totals.max():.4g}" if self.totals.size else ""
        one = f"output={f'{self.output}[0]'!r} for one of them"
        if self.link.always_raw:
            return False
        if word is None and self.found is None and (self.proved or self._inside.all()) and self.totals.size:
            refused = (
                f"the output {self.output!r} has numbers from 0 to 1 {added}, as of labels that do not exclude each other; "
                f'write task="binary", {one}; or if one class is right and they are to add up to 1, {prediction}, '
                f"link={self.link.name(PREDICTION)!r}"
            )
        elif word is None and self.found is None:
            refused = (
                f"the output {self.output!r} {self.seen}, which does not show whether its columns are the {self.link.raw}s "
            )
            refused += f"or the probabilities of classes; write {raw} or {prediction}"
        elif word is None and self.found == RAW:
            what = self.probe.path.name, self.output, self.seen, self.link.raw, raw
            _log.warning("%s: the output %r %s, and its columns are taken for %ss; write %s to say so", *what)
        elif word == RAW and self.proved:
            refused = f"{raw} {self.seen}, a {kind}; write {prediction}"
        elif word == RAW and not insisted and self.values.size and self._inside.all() and self._exclusive:
            refused = f"{raw} {self.seen}, and its rows add up to 1, as of a {kind}; write {prediction}, or if it is a "
            refused += f"{self.link.raw} write {raw}, link={self.link.name(RAW)!r}"
        elif word == PREDICTION and not self._inside.all():
            refused = f"{prediction} {self.seen}, not a {kind}; write {raw}"
        elif word == PREDICTION and not insisted and not self._exclusive:
            refused = f"{prediction} has numbers {added}, not to 1; write {prediction}, link={self.link.name(PREDICTION)!r} if "
            refused += "they are to add up to 1"
        if refused:
            raise ModelError(f"{self.probe.path.name}: {refused}")
        return (word or self.found) == PREDICTION


def evidence_of(output: str, head: Head, loss: Loss, probe: Probe) -> Evidence:
    """Return what is known about an output of one number a row, or of several."""
    return (Shares if loss.outputs > 1 else Evidence)(output, head, loss, probe)
