"""Meaning: whether an output of the base is a raw output or a prediction, by proof, by probed rows, or by the user's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, helper

from riverdelta.core.errors import ModelError
from riverdelta.core.losses import Loss
from riverdelta.core.nodes import Nodes
from riverdelta.graph.interval import ROUNDING, Range
from riverdelta.graph.ranges import maker_of, range_of

_OPSET = 17
#: The name of the link of an output that is raw already.
IDENTITY = "identity"
#: A prediction nearer than this to an end of its range is at the end: it says the same of every row.
_END = 1e-6
#: The share of probed values that decides.
_MOST, _FEW = 0.9, 0.1
#: These are made from models of a number, of which a logit is only one.
_REGRESSORS = ("LinearRegressor", "SVMRegressor")


@dataclass(frozen=True)
class Evidence:
    """What is known about a tensor: the range that the graph proves, the operator that makes it, and probed values."""

    path: Path
    output: str
    loss: Loss
    range: Range
    maker: str | None
    probe: Callable[[], npt.NDArray[np.float64]] = field(default=lambda: np.empty(0))

    @classmethod
    def of(
        cls,
        path: Path,
        model: ModelProto,
        output: str,
        loss: Loss,
        probe: Callable[[], npt.NDArray[np.float64]] = lambda: np.empty(0),
    ) -> Evidence:
        """Return the evidence in a graph; `probe` scores rows once, and only if the graph leaves the meaning open."""
        maker = maker_of(model, output)
        return cls(path, output, loss, range_of(model, output, path.parent), maker.op_type if maker else None, probe)

    @cached_property
    def predictions(self) -> Range:
        """The range of the loss's predictions."""
        return predictions_of(self.loss)

    @cached_property
    def proved(self) -> str | None:
        """What the graph proves: `prediction`, `label` (a prediction of integers), `raw`, or None."""
        if self.range.within(self.predictions.low, self.predictions.high):
            return "label" if self.range.whole and self.predictions.high < inf else "prediction"
        return "raw" if self.range.known and self._can_be_raw else None

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """The probed values; empty if the base cannot be probed."""
        return self.probe()

    @property
    def seen(self) -> str:
        """Its values in words, for the middle of a message."""
        if not self.range.unbounded or not self.values.size:
            return f"is always {_between(self.range.low, self.range.high)}"
        return self._probed

    @property
    def _probed(self) -> str:
        return f"is {_between(self.values.min(), self.values.max())} on {self.values.size} probed values"

    def predicts(self, word: str | None, insisted: bool) -> bool:
        """Return whether the output is a prediction, by the evidence and the user's word, `raw`, `prediction` or None.

        Raises `ModelError` that ends in the line to write, if the two conflict or neither decides. A word that is `insisted` on
        counts against probed values, not against a proof.
        """
        if self.predictions.unbounded or not self.predictions.known:
            return word == "prediction"
        if word is None:
            return self._unasked()
        if word == "raw" and self.proved in ("prediction", "label"):
            self._refuse(f"logit={self.output!r} {self.seen}, a {self._kind}", f"write probability={self.output!r}")
        if word == "prediction" and (self.range.low > self.predictions.high or self.range.high < self.predictions.low):
            self._refuse(f"probability={self.output!r} {self.seen}, never a {self._kind}", f"write logit={self.output!r}")
        if not insisted:
            (self._doubt_raw if word == "raw" else self._doubt_prediction)()
        return word == "prediction"

    @property
    def _kind(self) -> str:
        return "probability" if self.loss.logit else "prediction"

    @property
    def _can_be_raw(self) -> bool:
        # Within [-1, 1] are a tanh and a difference of probabilities.
        return self.range.low < 0 < self.range.high and not self.range.within(-1, 1)

    def _unasked(self) -> bool:
        if self.proved == "prediction":
            return True
        negative = np.mean(self.values < 0) >= _FEW if self.values.size else self.proved == "raw"
        if self.proved != "label" and self._can_be_raw and negative and not self._at_an_end and self.maker not in _REGRESSORS:
            return False
        what = f"the output {self.output!r} {self.seen}"
        made = f", made by {self.maker}" if self.maker in _REGRESSORS else ""
        self._refuse(
            f"{what}{made}, which does not show whether it is a {self.loss.raw} or a {self._kind}",
            f"write {self._line('raw')} or {self._line('prediction')}",
        )

    def _doubt_raw(self) -> None:
        what = f"logit={self.output!r} {self._probed}" if self.values.size else ""
        instead = f"write probability={self.output!r}, or if it is a {self.loss.raw} {self._insist('raw')}"
        if self.proved != "raw":
            if self.range.low >= 0 or self.range.high <= 0:
                self._refuse(
                    f"logit={self.output!r} is always {_between(self.range.low, self.range.high)}, of one sign", instead
                )
            if self.values.size and self._inside.all():
                self._refuse(f"{what}, as a {self._kind} is", instead)
        if self._at_an_end:
            ends = f"a {self._kind} of {self.predictions.low:g} or {self.predictions.high:g} for nearly every row"
            self._refuse(f"{what}, which makes {ends}, as of a regressor", f"if it is a {self.loss.raw} {self._insist('raw')}")

    def _doubt_prediction(self) -> None:
        instead = f"write logit={self.output!r}, or if it is a {self._kind} {self._insist('prediction')}"
        what = f"probability={self.output!r} {self.seen}"
        if self.proved == "label":
            self._refuse(
                f"{what} and an integer, a label",
                f"correct the {self._kind} that it is made of, or {self._insist('prediction')}",
            )
        if self.proved == "prediction" or not self.values.size:
            return
        if not self._inside.all():
            allowed = _between(self.predictions.low, self.predictions.high)
            self._refuse(f"{what}; a {self._kind} is {allowed}", instead)
        if self._is_at_an_end(self.values):
            self._refuse(f"{what} and nearly always at the end", instead)

    @property
    def _inside(self) -> npt.NDArray[np.bool_]:
        low, high = self.predictions.low, self.predictions.high
        return (self.values >= low - ROUNDING) & (self.values <= high + ROUNDING)

    @property
    def _at_an_end(self) -> bool:
        return self._is_at_an_end(self.loss.inverse_link(self.values)) if self.loss.outputs == 1 else False

    def _is_at_an_end(self, predictions: npt.NDArray[np.float64]) -> bool:
        ends = [end for end in (self.predictions.low, self.predictions.high) if abs(end) < inf]
        return bool(predictions.size) and any(np.mean(np.abs(predictions - end) <= _END) >= _MOST for end in ends)

    def _line(self, word: str) -> str:
        return f"{'logit' if word == 'raw' else 'probability'}={self.output!r}"

    def _insist(self, word: str) -> str:
        return f"write {self._line(word)}, link={(IDENTITY if word == 'raw' else self.loss.raw)!r}"

    def _refuse(self, what: str, then: str) -> NoReturn:
        raise ModelError(f"{self.path.name}: {what}; {then}")


def predictions_of(loss: Loss) -> Range:
    """Return the range of a loss's predictions, by the nodes that export them.

    >>> from riverdelta.core.losses import LOG_LOSS
    >>> predictions_of(LOG_LOSS)
    Range(low=0, high=1, known=True, whole=False)
    """
    nodes = Nodes(_OPSET)
    output = loss.export_inverse_link(nodes, "raw")
    graph = GraphProto(node=nodes.nodes, initializer=nodes.constants, input=[helper.make_tensor_value_info("raw", 1, None)])
    return range_of(ModelProto(graph=graph, opset_import=[helper.make_opsetid("", _OPSET)]), output, Path())


def _between(low: float, high: float) -> str:
    if low == high:
        return f"{low:.4g}"
    if low == -inf and high == inf:
        return "any number"
    if low == -inf:
        return f"at most {high:.4g}"
    return f"at least {low:.4g}" if high == inf else f"from {low:.4g} to {high:.4g}"
