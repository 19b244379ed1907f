"""StandardScaler: z = (x - mean) / deviation, and 0 where the deviation is 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from river.preprocessing import StandardScaler

from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Table
from riverdelta.river import wide
from riverdelta.river.base import Converter, Flow, Place, Shape, register


class RealScaler(StandardScaler):
    """River's scaler of a window, whose running variance can round to just below 0: such a deviation counts as 0."""

    def transform_one(self, x: dict[Any, Any]) -> Any:
        scaled = super().transform_one(x)  # type: ignore[no-untyped-call]
        return {name: 0.0 if isinstance(z, complex) else z for name, z in scaled.items()}


class StandardScalerConverter(Converter):
    """Tables `mean` and `factor` (1 / deviation), a row for each key; with or without deviation, whole or windowed."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        before.unmixed("StandardScaler")
        self.after = Shape(before.names, encoded=before.encoded)
        self._mean, self._factor = (Table(np.zeros((len(before.names), 3))) for _ in range(2))
        self.tables = {f"{place.path}_mean": self._mean, f"{place.path}_factor": self._factor}

    @classmethod
    def learner(cls, step: Any) -> Any:
        return step.clone() if step.window_size is None else RealScaler(step.with_std, step.window_size)

    def write(self) -> None:
        means, variances = ([_value(d.get(n, 0.0)) for n in self.before.names] for d in (self.step.means, self.step.vars))
        factors = [v**-0.5 if v > 0 else 0.0 for v in variances] if self.step.with_std else np.ones(len(means))
        wide.store(self._mean, means)
        wide.store(self._factor, factors)

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        if not self.before.names:
            return flow
        width = len(self.before.names)
        mean, factor = (wide.join(nodes, nodes.table(name, t.values), width) for name, t in self.tables.items())
        centred = nodes.add("Sub", flow.matrix(nodes, self.before.names), mean)
        return Flow(((self.before.names, nodes.add("Mul", centred, factor)),), terms=flow.terms)


def _value(statistic: Any) -> float:
    """Return a running number, or that of a window."""
    return float(statistic.get() if hasattr(statistic, "get") else statistic)


register(StandardScaler, StandardScalerConverter)
