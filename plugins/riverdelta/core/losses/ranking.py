"""Ranking: clicks or grades of the rows of one list, scores, and mixtures of list probabilities."""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.losses.base import Doubles, Group, Loss
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, PREDICT, VALUE, Kernels
from riverdelta.core.losses.multiclass import export_mixed_logs, log_sum, mix_logs
from riverdelta.core.nodes import Nodes

_REACH, _MOST_GRADES, _MOST_POSITIONS = 30.0, 31, 1_000
#: The largest range of scores in a list, in which float32 scores are exact to 6·10⁻⁴, and the log of the most rows of one.
_RANGE, _LOG_ROWS = 10_000.0, 24.0


@numba.njit(VALUE, cache=True)
def _value(raw, label, losses):  # type: ignore[no-untyped-def]
    total = log_sum(raw[:, 0]) if label.shape[0] else 0.0
    for i in range(label.shape[0]):
        # A row without a click has no loss, but a NaN of it stays one.
        losses[i] = label[i] * (total - raw[i, 0])


@numba.njit(DERIVATIVES, cache=True)
def _derivatives(raw, label, weight, gradient, curvature):  # type: ignore[no-untyped-def]
    total = log_sum(raw[:, 0]) if label.shape[0] else 0.0
    clicks = 0.0
    for i in range(label.shape[0]):
        clicks += weight[i] * label[i]
    for i in range(label.shape[0]):
        p = math.exp(raw[i, 0] - total)
        gradient[i, 0] = clicks * p - weight[i] * label[i]
        curvature[i, 0] = clicks * 2.0 * p * max(1.0 - p, 0.0)


@numba.njit(MIX, cache=True)
def _mix(base, corrected, weight, served):  # type: ignore[no-untyped-def]
    if base.shape[0]:
        mix_logs(base[:, 0], corrected[:, 0], weight, _REACH, served[:, 0])


@numba.njit(PREDICT, cache=True)
def _predict(raw, prediction):  # type: ignore[no-untyped-def]
    total = log_sum(raw[:, 0]) if raw.shape[0] else 0.0
    for i in range(raw.shape[0]):
        prediction[i, 0] = math.exp(raw[i, 0] - total)


class Ranking(Loss):
    """The log loss of a list, in nats: Σ y·(log Σ exp(z) - z) over the rows of a request, with clicks or grades y.

    Parameters
    ----------
    grades
        The largest grade (default 1: clicked or not), 1 to 31.
    positions
        Positions whose probability of being examined is learned from clicks, 0 to 1,000 (default 0: none). Set it if users see
        lists from the top, feedback has the position of every row, and no propensity is known.
    item
        The id column of what a row shows, which a correction reads (default: none). With it the baseline `popularity` is
        measured.

    Raises
    ------
    ConfigurationError
        If `grades` is not an integer from 1 to 31, or `positions` one from 0 to 1,000.

    Notes
    -----
    Scores z matter only by their differences within a list. The prediction is the list probability, the softmax over the
    list, and the mixture is one of list probabilities, as in `Multiclass`. A list whose Σ y·weight is W is mixed without loss
    at rates up to 1/max(W, 1). The curvature is 2·W·p·(1 - p), for the reason given there. A list without clicks teaches
    nothing.

    Source: Cao, Qin, Liu, Tsai, Li 2007, "Learning to rank: from pairwise approach to listwise approach" (top one probability).

    Examples
    --------
    >>> loss = Ranking()
    >>> loss.value([0.0, 0.0, 5.0], [1, 0, 1], group=np.array([7, 7, 8])).round(4).tolist()
    [0.6931, 0.0, 0.0]
    """

    task = "ranking"
    name = "list log loss"
    raw = "rank"
    inverse_name = "log"
    lists = True
    reach = _REACH
    kernels = Kernels(_value, _derivatives, _mix, _predict)

    def __init__(self, grades: int = 1, positions: int = 0, item: str | None = None) -> None:
        if isinstance(grades, bool) or not isinstance(grades, int) or not 1 <= grades <= _MOST_GRADES:
            raise ConfigurationError(
                f"grades is {grades!r}; expected the largest grade, 1 to {_MOST_GRADES}: Ranking(grades=4)"
            )
        if isinstance(positions, bool) or not isinstance(positions, int) or not 0 <= positions <= _MOST_POSITIONS:
            raise ConfigurationError(
                f"positions is {positions!r}; expected the number of positions to learn, 0 to {_MOST_POSITIONS}: "
                "Ranking(positions=10)"
            )
        self.grades, self.positions, self.item = grades, positions, item
        #: A row's loss is clipped at its grade times the range, the residuals and the log of the list's length.
        self.bound = grades * (_RANGE + 2.0 * _REACH + _LOG_ROWS)

    def __repr__(self) -> str:
        more = {name: value for name in ("positions", "item") if (value := getattr(self, name))}
        return f"Ranking(grades={self.grades!r}{''.join(f', {name}={value!r}' for name, value in more.items())})"

    @property
    def labels(self) -> tuple[float, ...]:  # type: ignore[override]
        """The grades."""
        return tuple(float(grade) for grade in range(self.grades + 1))

    def link(self, prediction: npt.ArrayLike) -> Doubles:
        return np.log(np.clip(self.rows(prediction), 1e-30, 1.0))

    def spread(self, base: npt.ArrayLike, corrected: npt.ArrayLike, group: Group = None) -> Doubles:
        moved = self.mix(base, corrected, 1.0, group) - self.rows(base)
        return np.asarray(self.grades * np.abs(moved)[:, 0])

    def mixable(self, weight: npt.ArrayLike) -> Doubles:
        return np.asarray(1.0 / np.maximum(weight, 1.0))

    def export_link(self, nodes: Nodes, prediction: str) -> str:
        ends = [nodes.constant(end, np.float32) for end in (1e-30, 1.0)]
        return nodes.add("Log", nodes.add("Clip", prediction, *ends))

    def export_inverse_link(self, nodes: Nodes, raw: str, group: str | None = None) -> str:
        return nodes.add("Exp", self._normalized(nodes, raw, group))

    def export_mixture(self, nodes: Nodes, base: str, corrected: str, weight: str, group: str | None = None) -> str:
        return export_mixed_logs(nodes, base, corrected, weight, _REACH, lambda scores: self._normalized(nodes, scores, group))

    def _normalized(self, nodes: Nodes, scores: str, group: str | None) -> str:
        """Append the nodes of log probabilities within lists: of all rows, or of those with one number in `group` int64[N]."""
        if group is None:
            return nodes.add("LogSoftmax", scores, axis=0)
        flat = nodes.add("Reshape", scores, nodes.constant([-1], np.int64))
        ids, _, at = nodes.add_all("Unique", 3, group)
        lists = nodes.add("Shape", ids)
        least, none = (nodes.add("Expand", nodes.constant(v, np.float32), lists) for v in (np.finfo(np.float32).min, 0.0))
        most = nodes.add("ScatterElements", least, at, flat, axis=0, reduction="max")
        shifted = nodes.add("Sub", flat, nodes.add("Gather", most, at))
        total = nodes.add("ScatterElements", none, at, nodes.add("Exp", shifted), axis=0, reduction="add")
        return nodes.column(nodes.add("Sub", shifted, nodes.add("Gather", nodes.add("Log", total), at)))
