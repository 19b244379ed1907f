"""Converter of LogisticRegression and LinearRegression: residual = Σ weight·x + intercept."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from river.linear_model import LinearRegression, LogisticRegression

from river import optim
from riverdelta.core.errors import ConfigurationError, Unsupported
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.table import Table
from riverdelta.river import wide
from riverdelta.river.base import Converter, Flow, Place, Shape, register
from riverdelta.river.offset import OffsetLogisticRegression, ResidualRegression

_LOSSES: dict[Any, Any] = {LogisticRegression: optim.losses.BinaryLoss, LinearRegression: optim.losses.RegressionLoss}
_LEARNERS: dict[Any, Any] = {LogisticRegression: OffsetLogisticRegression, LinearRegression: ResidualRegression}


class LinearModelConverter(Converter):
    """Serves the tables `weights`, one row for each key, and `intercept`; categories have their own tables."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        optimizers = [step.optimizer, getattr(step.optimizer, "optimizer", None)]
        if any(isinstance(o, optim.Newton) for o in optimizers) and any(c.drop_zeros for c in before.encoded):
            raise Unsupported("optim.Newton needs every feature in every row; use OneHotEncoder(drop_zeros=False)")
        self.after = Shape(())
        self._weights, self._intercept = Table(np.zeros((len(before.names), 3))), Table(np.zeros((1, 3)))
        self.tables = {f"{place.path}_weights": self._weights, f"{place.path}_intercept": self._intercept}

    @classmethod
    def check(cls, step: Any) -> None:
        what, loss = type(step).__name__, step.loss
        if step.intercept_init != 0:
            _refuse_start(what, f"intercept_init={step.intercept_init!r}", "intercept_init=0")
        if not (isinstance(step.initializer, optim.initializers.Constant) and step.initializer.value == 0):
            _refuse_start(what, f"initializer={type(step.initializer).__name__}", "optim.initializers.Zeros()")
        kind = _LOSSES[type(step)]
        if not isinstance(loss, kind) or type(loss).mean_func is not kind.mean_func:
            raise Unsupported(f"{what} has the loss {type(loss).__name__}; expected a {kind.__name__} on the raw output itself")
        if step.l1 and not hasattr(step.optimizer, "lr"):
            raise Unsupported(
                f"{what} has l1={step.l1} and the optimizer {type(step.optimizer).__name__}, which has no learning rate for "
                f"River to scale it by; set l1 in the optimizer or use another"
            )

    @classmethod
    def learner(cls, step: Any) -> Any:
        fresh = step.clone()
        return _LEARNERS[type(step)](**{name: getattr(fresh, name) for name in signature(type(step)).parameters})

    def write(self) -> None:
        shift = sum(categories.write(self.step) for categories in self.before.encoded)
        wide.store(self._weights, [self.step.weight_of(n) for n in self.before.names])
        wide.store(self._intercept, [self.step.level + shift])

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        """Append the residual and return it as the one term of a flow, float64[N, 1] (or [1, 1] without features)."""
        total = wide.join(nodes, nodes.table(f"{self.place.path}_intercept", self._intercept.values), 1)
        if width := len(self.before.names):
            weights = nodes.table(f"{self.place.path}_weights", self._weights.values)
            column = nodes.add("Transpose", wide.join(nodes, weights, width), perm=[1, 0])
            total = nodes.add("Add", nodes.add("MatMul", flow.matrix(nodes, self.before.names), column), total)
        for term in flow.terms:
            total = nodes.add("Add", total, term)
        return Flow(terms=(total,))


def _refuse_start(what: str, got: str, want: str) -> None:
    raise ConfigurationError(f"{what} has {got}; a correction starts from a residual of exactly 0: use {want}")


register(LogisticRegression, LinearModelConverter)
register(LinearRegression, LinearModelConverter)
