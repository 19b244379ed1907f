"""A third party adds an estimator by a converter of its own."""

import pytest
from river.linear_model import LogisticRegression
from river.preprocessing import Binarizer

from riverdelta import Schema
from riverdelta.checks import check
from riverdelta.core.errors import Unsupported
from riverdelta.river import Converter, Flow, River, Shape, base, register


class BinarizerConverter(Converter):
    def __init__(self, step, before, place):
        super().__init__(step, before, place)
        self.after = Shape(before.names)

    def export(self, nodes, flow):
        above = nodes.add("Greater", flow.matrix(nodes, self.before.names), nodes.constant(self.step.threshold, "float64"))
        return Flow(((self.before.names, above),))


def test_a_registered_converter_joins_the_supported_ones(monkeypatch):
    with pytest.raises(Unsupported, match="Binarizer"):
        River(Binarizer(0.5) | LogisticRegression(), ("h", "v"))
    monkeypatch.setattr(base, "_CONVERTERS", dict(base._CONVERTERS))
    register(Binarizer, BinarizerConverter)
    schema = Schema.of({"h": "float32", "v": "float32[2]"})
    check(River(Binarizer(0.5, float) | LogisticRegression(), ("h", "v")), schema)
