"""Meaning: whether an output of the base is a raw output or a prediction, by proof, by probed rows, or by the user's word."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ModelError
from riverdelta.core.losses import Loss
from riverdelta.graph.head import Head
from riverdelta.graph.link import PREDICTION, RAW, Link
from riverdelta.graph.probe import Probe
from riverdelta.graph.ranges import ANY, ROUNDING, Range, ranges_of
from riverdelta.graph.wiring import Spot, Wiring, operator

_log = logging.getLogger(__name__)
#: A raw output that cannot be this far from 0 on both sides, such as 5σ - 2.5, is hardly one.
_REACH = 5.0
#: A prediction nearer than this to an end of its range is at the end: it says the same of every row.
_END = 1e-6
#: The share of probed values that decides.
_MOST, FEW = 0.9, 0.1


@dataclass(frozen=True)
class Evidence:
    """What is known about the output that `head` reads: a proved range, and probed values.

    `output` is its name in messages. `probe` scores a few rows, once, and only if the graph leaves the meaning open.
    """

    output: str
    head: Head
    loss: Loss
    probe: Probe

    @cached_property
    def link(self) -> Link:
        """The link of the loss."""
        return Link(self.loss)

    @cached_property
    def range(self) -> Range:
        """The bounds of the output, by the graph."""
        return ranges_of(self.probe.model.graph, self.probe.path.parent).get(self.head.tensor, ANY)

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """The probed values; empty if the base cannot be probed."""
        return self.probe.values(self.head)[0].ravel()

    @property
    def predictions(self) -> Range:
        """The bounds of the loss's predictions."""
        return self.link.predictions

    @cached_property
    def proved(self) -> bool:
        """Whether the graph proves that the output is a prediction."""
        (low, high), (least, most) = self.range, self.predictions
        return low >= least - ROUNDING and high <= most + ROUNDING and self.predictions != ANY

    @cached_property
    def found(self) -> str | None:
        """What the output is without the user's word: `prediction` by proof, `raw` by probed values, or None."""
        if self.link.always_raw:
            return RAW
        if self.proved:
            return None if self._winner else PREDICTION
        differ = self.values.size and np.ptp(self.values) > 0 and np.mean(self.values < 0) >= FEW
        return RAW if differ and not self.task and not self._doubt_raw else None

    @property
    def seen(self) -> str:
        """Its values in words, for the middle of a message."""
        if self.range != ANY:
            return f"is always {_between(*self.range)}"
        return self._probed if self.values.size else "can be any number and cannot be probed"

    @property
    def _probed(self) -> str:
        return f"is {_between(self.values.min(), self.values.max())} on {self.values.size} probed values"

    def predicts(self, word: str | None, insisted: bool) -> bool:
        """Return whether the output is a prediction, by the evidence and the user's word, `raw`, `prediction` or None.

        Raises `ModelError` that ends in the line to write, if the two conflict or neither decides. A word that is `insisted` on
        counts against probed values and a narrow range, not against a proof.
        """
        raw, prediction = (self.link.line(self.output, word) for word in (RAW, PREDICTION))
        named, a_raw, kind = prediction if word == PREDICTION else raw, self.link.raw, self.link.prediction
        refused = None
        if word is None and self.found is None and self.proved:
            refused = (
                f"the output {self.output!r} is the largest of several, whichever class that is; name the tensor that has "
                f"them all and a column, or if feedback says whether that class was right, write {prediction}"
            )
        elif word is None and self.found is None:
            task = f"as in the task {self.task}, " if self.task else ""
            refused = f"the output {self.output!r} {self.seen}, {task}which does not show "
            other = f"for that task write task={self.task!r}, else " if self.task not in (None, self.loss.task) else ""
            if self._mostly_inside and self._alone:
                refused += f"whether it is a {a_raw} or a {kind}; {other}write {raw} or {prediction}"
            elif not self._alone:
                refused += (
                    f"that it is a {kind}, and one of {self.head.width} raw outputs alone is no {a_raw}: export the "
                    f"model with the softmax or the sigmoid of them, and write {prediction}"
                )
            else:
                refused += f"that it is a {a_raw}; {other}if it is, write {raw}"
        elif word is None and self.found == RAW and not self.link.always_raw:
            what = self.probe.path.name, self.output, self.seen, a_raw, raw
            _log.warning("%s: the output %r %s, and is taken for a %s; write %s to say so", *what)
        elif word == RAW and self.proved:
            refused = f"{named} {self.seen}, a {kind}; write {prediction}"
        elif word == PREDICTION and (self.range[0] > self.predictions[1] or self.range[1] < self.predictions[0]):
            refused = f"{named} {self.seen}, never a {kind}; write {raw}"
        elif word == PREDICTION and not self._mostly_inside and self.link.of_logits:
            may_be_raw = self._alone and not self._doubt_raw
            rest = f"write {raw}" if may_be_raw else f"and {self.loss} corrects no other number"
            refused = f"{named} {self._probed}, not a {kind}; {rest}"
        elif word and not insisted and (doubt := self._doubt_raw if word == RAW else self._doubt_prediction):
            other, fits = (prediction, self._inside.all()) if word == RAW else (raw, self._alone and not self._doubt_raw)
            insist = f"{named}, link={self.link.name(word)!r}"
            refused = (
                f"{named} {doubt}; {f'write {other}, or ' if fits else ''}if it is a {self.link.word(word)} write {insist}"
            )
        if refused:
            raise ModelError(f"{self.probe.path.name}: {refused}")
        return (word or self.found) == PREDICTION

    @cached_property
    def _winner(self) -> bool:
        """Whether it is the largest number of a row, as the confidence in whichever class is the most probable."""
        wiring = Wiring(self.probe.model.graph, self.probe.path.parent, self.probe.shapes)
        maker = wiring.makers.get(wiring.way(Spot(self.head.tensor, self.head.column))[-1].tensor)
        return maker is not None and operator(maker) in ("ReduceMax", "TopK") and wiring.width(maker.input[0]) != 1

    @property
    def task(self) -> str | None:
        """The other task that the output may be of: of a regressor, or of a number that is never negative.

        skl2onnx gives every classifier a second output, its labels.
        """
        model = self.probe.model
        lone = model.producer_name == "skl2onnx" and len(model.graph.output) == 1
        if lone or any(node.op_type.endswith("Regressor") for node in model.graph.node):
            return "count" if self.range[0] >= 0 else "regression"
        return "count" if self.range == (0.0, inf) else None

    @cached_property
    def _doubt_raw(self) -> str | None:
        """What speaks against a raw output, if anything."""
        if self.range[0] > -_REACH or self.range[1] < _REACH:
            return f"is always {_between(*self.range)}, too narrow for a {self.link.raw}"
        if self.values.size and self._inside.all():
            return f"{self._probed}, as a {self.link.prediction} is"
        ends = self._at_ends(self.loss.inverse_link(self.values))
        if (max(ends) if self.predictions[1] < inf else sum(ends)) >= _MOST:
            what = f"a {self.link.prediction} at the end of its range for nearly every row, as of a regressor"
            return f"{self._probed}, which makes {what}"
        return None

    @cached_property
    def _doubt_prediction(self) -> str | None:
        """What speaks against a prediction, if anything."""
        if self.proved or not self.values.size:
            return None
        if not self._inside.all():
            return f"{self._probed}; a {self.link.prediction} is {_between(*self.predictions)}"
        return (
            f"{self._probed} and nearly always at the end, as a label is" if sum(self._at_ends(self.values)) >= _MOST else None
        )

    @property
    def _alone(self) -> bool:
        """Whether the output can be a raw output by itself: one of several logits is not."""
        return self.head.width <= 2 or not self.link.of_logits

    @property
    def _mostly_inside(self) -> bool:
        return not self.values.size or float(np.mean(self._inside)) >= _MOST / 2

    @property
    def _inside(self) -> npt.NDArray[np.bool_]:
        low, high = self.predictions
        return (self.values >= low - ROUNDING) & (self.values <= high + ROUNDING)

    def _at_ends(self, predictions: npt.NDArray[np.float64]) -> list[float]:
        """Return the shares of predictions at each end of their range."""
        if not predictions.size:
            return [0.0, 0.0]
        low, high = self.predictions
        top = predictions >= 1 / _END if high == inf else np.abs(predictions - high) <= _END
        return [float(np.mean(np.abs(predictions - low) <= _END)), float(np.mean(top))]


def _between(low: float, high: float) -> str:
    if low == high:
        return f"{low:.4g}"
    if low == -inf:
        return f"at most {high:.4g}"
    return f"at least {low:.4g}" if high == inf else f"from {low:.4g} to {high:.4g}"
