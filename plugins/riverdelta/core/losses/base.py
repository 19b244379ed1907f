"""The contract of a loss: what every part that measures, learns, mixes or serves asks it; nothing else knows the task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import kernels
from riverdelta.core.losses.kernels import Kernels
from riverdelta.core.nodes import Nodes

Doubles = npt.NDArray[np.float64]
_LABEL = np.dtype(np.float32)


class Loss(ABC):
    """A loss of raw outputs and labels, once as compiled functions and once as ONNX nodes.

    Raw outputs are float[N, K] with K = `outputs`; float[N] is taken as [N, 1]. Labels are float[N]. A new loss gives the
    class attributes, `kernels`, `link`, `spread`, `mixable`, and the nodes of its link and mixture; one that can pass `bound`
    also `judged`, and one of fewer labels than `labels` says `valid` and `expected`. `riverdelta.checks.check` proves that
    they agree. An instance is given as `task=`.
    """

    #: The task that it is registered for.
    task: ClassVar[str]
    #: What the loss is called where it is shown.
    name: ClassVar[str] = "loss"
    #: K.
    outputs: int = 1
    #: What a raw output is called, in outputs of the merged model and in messages.
    raw: ClassVar[str] = "raw"
    #: The unit of `value`.
    unit: ClassVar[str] = "nats"
    #: The labels that there are; None where any finite number is one.
    labels: ClassVar[tuple[float, ...] | None] = None
    #: Whether the raw output is a logit: one output, labels 0 and 1, and the prediction is the probability of a 1. Where it
    #: is, AUC and calibration are measured, the breaker watches the labels, and silence may count as a 0.
    logit: ClassVar[bool] = False
    #: The most that one row's loss counts as.
    bound: ClassVar[float]
    #: What two scorers' losses of an ordinary row differ by at most: a trial counts a larger difference as this.
    scale: ClassVar[float] = 1.0
    #: The farthest from the base that a raw output is served: a residual beyond it is cut.
    reach: ClassVar[float]
    kernels: ClassVar[Kernels]

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"

    @property
    def expected(self) -> str:
        """Which labels are valid, for the end of an error message."""
        return "a finite number" if self.labels is None else " or ".join(f"{one:g}" for one in self.labels)

    def check_labels(self, label: npt.ArrayLike, what: str = "row", shown: bool = False) -> npt.NDArray[np.float32]:
        """Return labels float32[N]; raises `InvalidInput` that names the first `what` whose label is not one.

        With `shown`, a label may be NaN: its row was shown, and has no label yet.
        """
        try:
            given = np.asarray(label)
        except ValueError:  # lists beside numbers have no shape
            given = np.empty(0, object)
        if given.dtype.kind not in "biuf":
            given = self._numbers(label, what)
        if given.dtype == _LABEL:
            found = given
        else:
            with np.errstate(over="ignore"):
                found = given.astype(_LABEL)
        good = self.valid(found)
        if shown:
            good |= np.isnan(found)
        if not good.all():
            at = int(np.flatnonzero(~good)[0])
            raise InvalidInput(f"{what} {at} has the label {given[at]:g}; expected {self.expected}")
        return found

    def _numbers(self, label: Any, what: str) -> Doubles:
        for at, one in enumerate(label):
            if not isinstance(one, bool | int | float | np.bool_ | np.integer | np.floating):
                raise InvalidInput(f"{what} {at} has the label {one!r}; expected {self.expected} for each {what}")
        return np.array(label, np.float64)

    def valid(self, label: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return bool[N]: whether each label is one."""
        found = np.asarray(label)
        if self.labels is None:
            return np.isfinite(found)
        return reduce(np.logical_or, (found == one for one in self.labels))

    def value(self, raw: npt.ArrayLike, label: npt.ArrayLike) -> Doubles:
        """Return each row's loss float64[N], at most `bound`; NaN where the raw output is NaN."""
        rows = self.rows(raw)
        out = np.empty(len(rows))
        kernels.values(rows, _by_row(label, len(rows)), self.kernels, out)
        return np.minimum(out, self.bound)

    def derivatives(self, raw: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike = 1.0) -> tuple[Doubles, Doubles]:
        """Return gradient and curvature float64[N, K] of the loss times `weight` by the raw outputs."""
        rows = self.rows(raw)
        gradient, curvature = np.empty_like(rows), np.empty_like(rows)
        by_row = _by_row(label, len(rows)), _by_row(weight, len(rows))
        kernels.derivatives(rows, *by_row, self.kernels, gradient, curvature)
        return gradient, curvature

    def inverse_link(self, raw: npt.ArrayLike) -> Doubles:
        """Return the predictions float64[N, K] of raw outputs: what a client is told."""
        rows = self.rows(raw)
        out = np.empty_like(rows)
        kernels.predictions(rows, self.kernels, out)
        return out

    def mix(self, base: npt.ArrayLike, corrected: npt.ArrayLike, weight: float) -> Doubles:
        """Return the raw outputs float64[N, K] of the mixture that is served, `weight` of it the corrected one.

        With corrected = base it is base, bit for bit.
        """
        rows = self.rows(base)
        out = np.empty_like(rows)
        kernels.mixtures(rows, self.rows(corrected), float(weight), self.kernels, out)
        return out

    def rows(self, raw: npt.ArrayLike) -> Doubles:
        """Return raw outputs as float64[N, K]."""
        return np.ascontiguousarray(raw, np.float64).reshape(-1, self.outputs)

    @abstractmethod
    def link(self, prediction: npt.ArrayLike) -> Doubles:
        """Return the raw outputs float64[N, K] of predictions, as a base may return those."""

    @abstractmethod
    def spread(self, base: npt.ArrayLike, corrected: npt.ArrayLike) -> Doubles:
        """Return float64[N]: the most that the losses of two raw outputs can differ by, whatever the label is.

        The corrected one is within `reach` of the base, as it is served.
        """

    def judged(self, base: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return bool[N]: whether a row's base output is such that its loss stays within `bound`, whatever the label is."""
        return np.logical_and.reduce(np.isfinite(self.rows(base)), axis=1)

    @abstractmethod
    def mixable(self, weight: npt.ArrayLike) -> Doubles:
        """Return the largest rate at which exponential weights over rows of a weight lose nothing by mixing.

        It is at most 1, and 0 where no such rate is known; by weight, of whichever shape.
        """

    @abstractmethod
    def export_link(self, nodes: Nodes, prediction: str) -> str:
        """Append nodes of `link` to a graph and return the raw output's tensor float32[N, K]."""

    @abstractmethod
    def export_inverse_link(self, nodes: Nodes, raw: str) -> str:
        """Append nodes of `inverse_link` and return the prediction's tensor float32[N, K]."""

    @abstractmethod
    def export_mixture(self, nodes: Nodes, base: str, corrected: str, weight: str) -> str:
        """Append nodes of `mix`, the weight being float32[1, 1], and return the served raw output's tensor float32[N, K]."""


def _by_row(value: npt.ArrayLike, rows: int) -> Doubles:
    """Return one number a row, as an array that a compiled function takes."""
    return np.array(np.broadcast_to(value, rows), np.float64)
