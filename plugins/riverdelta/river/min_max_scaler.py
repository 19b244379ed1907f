"""MinMaxScaler: z = (x - least) / (greatest - least), and 0 where both are one."""

from __future__ import annotations

from typing import Any

import numpy as np
from river.preprocessing import MinMaxScaler

from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Table
from riverdelta.river import wide
from riverdelta.river.base import Converter, Flow, Place, Shape, register


class MinMaxScalerConverter(Converter):
    """Tables `least` and `factor` (1 / range), a row for each key; whole or windowed."""

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        super().__init__(step, before, place)
        before.unmixed("MinMaxScaler")
        self.after = Shape(before.names, encoded=before.encoded)
        self._least, self._factor = (Table(np.zeros((len(before.names), 3))) for _ in range(2))
        self.tables = {f"{place.path}_least": self._least, f"{place.path}_factor": self._factor}

    def write(self) -> None:
        least = [float(self.step.min[n].get()) for n in self.before.names]
        ranges = [float(self.step.max[n].get() - self.step.min[n].get()) for n in self.before.names]
        wide.store(self._least, least)
        wide.store(self._factor, [1.0 / r if r > 0 else 0.0 for r in ranges])

    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        if not self.before.names:
            return flow
        width = len(self.before.names)
        least, factor = (wide.join(nodes, nodes.table(name, t.values), width) for name, t in self.tables.items())
        above = nodes.add("Sub", flow.matrix(nodes, self.before.names), least)
        return Flow(((self.before.names, nodes.add("Mul", above, factor)),), terms=flow.terms)


register(MinMaxScaler, MinMaxScalerConverter)
