"""The contract of a loss: everything that measures, learns, mixes or serves uses it; nothing else knows the task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import kernels
from riverdelta.core.losses.kernels import Kernels
from riverdelta.core.nodes import Nodes

Doubles = npt.NDArray[np.float64]
#: The list of each row, int64[N]; rows of one list are adjacent.
Group = npt.NDArray[np.int64] | None
_LABEL = np.dtype(np.float32)


class Loss(ABC):
    """A loss of raw outputs and labels, as compiled functions and as ONNX nodes.

        Raw outputs are float[N, K] with K = `outputs`; float[N] is read as [N, 1]. Labels are float[N]. Pass an instance as
    `task=`; `riverdelta.checks.check` checks that its parts agree.

    Notes
    -----
    Everything has a default that suits a loss of one output and any finite label, except for what every loss defines.

    - Every loss: `task`, `bound`, `reach`, `kernels`, `link`, `spread`, `mixable`, and the nodes of links and mixture; `name`,
      `raw` and `unit` are words for it. If it can exceed `bound`, or is evaluated for fewer outputs: `judged`.
    - Some numbers are not labels: `labels` if there are few, otherwise `valid`, `expected` and `label_schema`.
    - Labels have names: `classes`, `read_labels`, `label_of`. The base decides how many outputs there are: `of_base`.
    - Labels are numbers: `dispersion`; for intervals, `span` if predictions are limited, and `deviation` with its nodes if
      errors grow with the prediction; `period` for a baseline. `mixable` holds in a range alone: `in_range`.
    - An example is a list of rows: `lists`. `spread`, `judged` and the nodes are then given `group`, which others need not
      take. `positions` and `item` are for what is learned of positions, and for a baseline.
    """

    #: The task name that it is registered for.
    task: ClassVar[str]
    #: What the loss is called where it is shown.
    name: ClassVar[str] = "loss"
    #: The number of raw outputs, K.
    outputs: int = 1
    #: The name of a raw output, in the merged model and in messages.
    raw: ClassVar[str] = "raw"
    #: What `link=` says of a base whose output is a prediction; None: the name of a raw output.
    inverse_name: ClassVar[str | None] = None
    #: The unit of `value`.
    unit: ClassVar[str] = "nats"
    #: The valid labels; None if any finite number is valid.
    labels: tuple[float, ...] | None = None
    #: Whether an example is a list of rows, such as those of one request. Otherwise each row is an example.
    lists: ClassVar[bool] = False
    #: For `lists`, the positions whose probability of being examined is learned from clicks.
    positions: int = 0
    #: The names of the classes that the outputs stand for, in order; None for other labels.
    classes: tuple[str, ...] | None = None
    #: What learning measures of how labels vary, and whether a trial counts in typical losses of the base: "none" for losses of
    #: probabilities, which count as they are; "unit" for a squared loss of a raw output in the label's unit; "free" for counts,
    #: whose labels vary by an unknown factor.
    dispersion: ClassVar[str] = "none"
    #: The least and the largest prediction, at which an interval ends.
    span: tuple[float, float] = (-np.inf, np.inf)
    #: The id column of what a row of a list shows, for a baseline; None without one.
    item: str | None = None
    #: Seconds after which labels repeat, for a baseline; None without one.
    period: float | None = None
    #: Whether the raw output is a logit: one output, labels 0 and 1, and the prediction is the probability of a 1. If so, AUC
    #: and calibration are measured, and silence may count as a 0.
    logit: ClassVar[bool] = False
    #: The bound at which one row's loss is clipped.
    bound: float
    #: The largest normal difference of two scorers' losses on a row, for `dispersion` "none": a trial clips larger ones.
    scale: ClassVar[float] = 1.0
    #: The largest residual that is served; larger ones are clipped.
    reach: float
    kernels: ClassVar[Kernels]

    def of_base(self, outputs: int | None, classes: Sequence[str] | None) -> Loss:
        """Return the loss for a base with that many outputs and class names (None: unknown): itself, unless these decide it.

        Raises `ConfigurationError` if they do not fit.
        """
        return self

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"

    @property
    def expected(self) -> str:
        """The valid labels, for the end of an error message."""
        return "a finite number" if self.labels is None else " or ".join(f"{one:g}" for one in self.labels)

    @property
    def example(self) -> str:
        """What an example is called where its loss is shown."""
        return "list" if self.lists else "row"

    @property
    def label_schema(self) -> dict[str, Any]:
        """The JSON schema of a label as clients send it."""
        if self.labels is None:
            return {"type": "number"}
        return {"enum": [int(one) if one.is_integer() else one for one in self.labels]}

    def check_labels(
        self, label: npt.ArrayLike, what: str = "row", shown: bool = False, first: int = 0
    ) -> npt.NDArray[np.float32]:
        """Return labels float32[N]; raises `InvalidInput` naming the first `what` whose label is invalid.

        With `shown`, a label may be NaN: the row was shown and has no label yet. Rows are counted from `first` on.
        """
        try:
            given = np.asarray(label)
        except ValueError:  # lists beside numbers have no shape
            given = np.empty(0, object)
        if given.dtype.kind not in "biuf" or (self.labels is None and _has_truths(label, given)):
            given = self._numbers(label, what, first)
        if given.dtype == _LABEL:
            found = given
        else:
            with np.errstate(over="ignore"):
                found = given.astype(_LABEL)
        good = self.valid(found)
        if found is not given:
            # Rounding to float32 makes 1e-50 and 0.99999999 valid.
            good &= self.valid(given)
        if shown:
            good |= np.isnan(found)
        if not good.all():
            at = int(np.flatnonzero(~good)[0])
            odd = str(given[at]).removesuffix(".0")
            raise InvalidInput(f"{what} {first + at} has the label {odd}; expected {self.expected}")
        return found

    def read_labels(
        self, label: npt.ArrayLike, what: str = "row", shown: bool = False, first: int = 0
    ) -> npt.NDArray[np.float32]:
        """Return the codes float32[N] of labels as clients send them: numbers, and names of classes where the loss has them.

        Raises as `check_labels`, which checks codes.
        """
        return self.check_labels(label, what, shown, first)

    def label_of(self, code: float) -> str | float:
        """Return the label of a code, as clients send it."""
        return code

    def _numbers(self, label: Any, what: str, first: int) -> Doubles:
        for at, one in enumerate(label, first):
            truth = isinstance(one, bool | np.bool_)
            if (truth and self.labels is None) or not (truth or isinstance(one, int | float | np.integer | np.floating)):
                raise InvalidInput(f"{what} {at} has the label {one!r}; expected {self.expected} for each {what}")
        return np.array(label, np.float64)

    def valid(self, label: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return bool[N]: whether each label is valid."""
        found = np.asarray(label)
        if self.labels is None:
            return np.isfinite(found)
        return reduce(np.logical_or, (found == one for one in self.labels))

    def value(self, raw: npt.ArrayLike, label: npt.ArrayLike, group: Group = None) -> Doubles:
        """Return each row's loss float64[N], at most `bound`; NaN if the raw output is NaN.

        For a loss of `lists`, `group` int64[N] has the list of each row; rows of a list are adjacent (default: a single list).
        """
        return np.minimum(self._uncut(raw, label, group), self.bound)

    def _uncut(self, raw: npt.ArrayLike, label: npt.ArrayLike, group: Group) -> Doubles:
        rows = self.rows(raw)
        out = np.empty(len(rows))
        kernels.values(rows, _by_row(label, len(rows)), self.starts(len(rows), group), self.kernels, out)
        return out

    def derivatives(
        self, raw: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike = 1.0, group: Group = None
    ) -> tuple[Doubles, Doubles]:
        """Return gradient and curvature float64[N, K] of the loss times `weight` by the raw outputs."""
        rows = self.rows(raw)
        gradient, curvature = np.empty_like(rows), np.empty_like(rows)
        by_row = _by_row(label, len(rows)), _by_row(weight, len(rows))
        kernels.derivatives(rows, *by_row, self.starts(len(rows), group), self.kernels, gradient, curvature)
        return gradient, curvature

    def inverse_link(self, raw: npt.ArrayLike, group: Group = None) -> Doubles:
        """Return the predictions float64[N, K] of raw outputs, as clients get them."""
        rows = self.rows(raw)
        out = np.empty_like(rows)
        kernels.predictions(rows, self.starts(len(rows), group), self.kernels, out)
        return out

    def mix(self, base: npt.ArrayLike, corrected: npt.ArrayLike, weight: float, group: Group = None) -> Doubles:
        """Return the raw outputs float64[N, K] of the served mixture, with `weight` on the corrected prediction.

        If corrected = base the result is base, bit for bit.
        """
        rows = self.rows(base)
        out = np.empty_like(rows)
        starts = self.starts(len(rows), group)
        kernels.mixtures(rows, self.rows(corrected), float(weight), starts, self.kernels, out)
        return out

    def starts(self, rows: int, group: Group = None, each: bool = False) -> npt.NDArray[np.int64]:
        """Return where each list begins, and the number of rows; without `lists` all rows, or with `each` one each.

        >>> from riverdelta.core.losses import LOG_LOSS
        >>> LOG_LOSS.starts(3).tolist(), LOG_LOSS.starts(3, each=True).tolist()
        ([0, 3], [0, 1, 2, 3])
        """
        if not self.lists and each:
            return np.arange(rows + 1)
        if not self.lists or group is None:
            return np.array([0, rows])
        return np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1, [rows]])

    def deviation(self, prediction: Doubles) -> Doubles:
        """Return the size of an ordinary error at a prediction, up to a factor, for intervals around it."""
        return np.ones_like(prediction)

    def export_deviation(self, nodes: Nodes, prediction: str) -> str:
        """Append the nodes of `deviation` and return its tensor, or a constant."""
        return nodes.constant(1.0, np.float32)

    def rows(self, raw: npt.ArrayLike) -> Doubles:
        """Return raw outputs as float64[N, K]."""
        return np.ascontiguousarray(raw, np.float64).reshape(-1, self.outputs)

    @abstractmethod
    def link(self, prediction: npt.ArrayLike) -> Doubles:
        """Return the raw outputs float64[N, K] of predictions, for a base that returns predictions."""

    @abstractmethod
    def spread(self, base: npt.ArrayLike, corrected: npt.ArrayLike, group: Group = None) -> Doubles:
        """Return float64[N]: the largest difference between the losses of two raw outputs, whatever the label.

        The corrected one is clipped to within `reach` of the base, as when served.
        """

    def judged(self, base: npt.ArrayLike, label: npt.ArrayLike, group: Group = None) -> npt.NDArray[np.bool_]:
        """Return bool[N]: whether a row's base output is finite and its loss within `bound`, so that the gate evaluates it."""
        with np.errstate(invalid="ignore"):
            known = self._uncut(base, label, group) <= self.bound
        return known & np.logical_and.reduce(np.isfinite(self.rows(base)), axis=1)

    @abstractmethod
    def mixable(self, weight: npt.ArrayLike) -> Doubles:
        """Return the largest rate at which exponential weights lose nothing by mixing, for rows of the given weight.

        It is at most 1 for a loss in nats, and 0 if no such rate is known; shaped as `weight`. For a loss of lists, the weight
        is Σ label·weight over the list.
        """

    def in_range(self, base: npt.ArrayLike, corrected: npt.ArrayLike) -> npt.NDArray[np.bool_] | bool:
        """Return bool[N]: whether `mixable` holds for mixtures of these outputs; True if it holds for all."""
        return True

    @abstractmethod
    def export_link(self, nodes: Nodes, prediction: str) -> str:
        """Append the nodes of `link` to a graph and return the raw output's tensor float32[N, K]."""

    @abstractmethod
    def export_inverse_link(self, nodes: Nodes, raw: str, group: str | None = None) -> str:
        """Append the nodes of `inverse_link` and return the prediction's tensor float32[N, K].

        `group` is the tensor of each row's list, int64[N], for a loss of lists; without it there is a single list.
        """

    @abstractmethod
    def export_mixture(self, nodes: Nodes, base: str, corrected: str, weight: str, group: str | None = None) -> str:
        """Append the nodes of `mix`, with the weight float32[1, 1], and return the served raw output's tensor float32[N, K]."""


def _has_truths(label: Any, given: npt.NDArray[Any]) -> bool:
    """Whether labels have true or false among them, which numpy reads as 1 and 0 beside numbers."""
    return given.dtype.kind == "b" or (isinstance(label, list) and bool in map(type, label))


def _by_row(value: npt.ArrayLike, rows: int) -> Doubles:
    """Return one number per row, as an array for a compiled function."""
    return np.array(np.broadcast_to(value, rows), np.float64)
