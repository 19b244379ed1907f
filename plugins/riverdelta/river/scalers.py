"""Converters of scalers: z = (x - centre) · factor, from River's statistics; z is 0 if the factor would be infinite."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from river.preprocessing import MinMaxScaler, StandardScaler

from riverdelta.core.nodes import Nodes
from riverdelta.corrections.table import Table
from riverdelta.river import wide
from riverdelta.river.base import Converter, Flow, Place, Shape, register


class RealScaler(StandardScaler):
    """River's scaler with a window, in which a variance that rounding has made negative counts as 0."""

    def transform_one(self, x: dict[Any, Any]) -> Any:
        scaled = super().transform_one(x)  # type: ignore[no-untyped-call]
        return {name: 0.0 if isinstance(z, complex) else z for name, z in scaled.items()}


class ScalerConverter(Converter):
    """Serves the tables of centres (named by `centre`) and of factors, one row for each key."""

    centre: str

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        before.unmixed(type(self).__name__.removesuffix("Converter"))
        self.after = Shape(before.names, encoded=before.encoded)
        self.tables = {f"{place.path}_{name}": Table(np.zeros((len(before.names), 3))) for name in (self.centre, "factor")}

    @abstractmethod
    def numbers(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return the centre and the factor of each key."""

    def write(self) -> None:
        for table, numbers in zip(self.tables.values(), self.numbers(), strict=True):
            wide.store(table, numbers)

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        if not self.before.names:
            return flow
        width = len(self.before.names)
        centre, factor = (wide.join(nodes, nodes.table(name, t.values), width) for name, t in self.tables.items())
        centred = nodes.add("Sub", flow.matrix(nodes, self.before.names), centre)
        return Flow(((self.before.names, nodes.add("Mul", centred, factor)),), terms=flow.terms)


class StandardScalerConverter(ScalerConverter):
    """Scales by mean and 1 / standard deviation; the factor is 1 with `with_std=False`."""

    centre = "mean"

    @classmethod
    def learner(cls, step: Any) -> Any:
        return step.clone() if step.window_size is None else RealScaler(step.with_std, step.window_size)

    def numbers(self) -> tuple[Sequence[float], Sequence[float]]:
        means, variances = ([_value(d.get(n, 0.0)) for n in self.before.names] for d in (self.step.means, self.step.vars))
        return means, [(v**-0.5 if v > 0 else 0.0) if self.step.with_std else 1.0 for v in variances]


class MinMaxScalerConverter(ScalerConverter):
    """Scales by minimum and 1 / range."""

    centre = "least"

    def numbers(self) -> tuple[Sequence[float], Sequence[float]]:
        least, greatest = ([_value(d[n]) for n in self.before.names] for d in (self.step.min, self.step.max))
        ranges = [high - low for low, high in zip(least, greatest, strict=True)]
        return least, [1.0 / r if r > 0 else 0.0 for r in ranges]


def _value(statistic: Any) -> float:
    """Return the value of a statistic, running or of a window, which has none before its first number."""
    return float((statistic.get() or 0.0) if hasattr(statistic, "get") else statistic)


register(StandardScaler, StandardScalerConverter)
register(MinMaxScaler, MinMaxScalerConverter)
