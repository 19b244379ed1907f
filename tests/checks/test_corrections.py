"""The laws bite: each broken correction is caught, and the law that catches it is named."""

import numpy as np
import pytest

from riverdelta import Entity, Linear, Schema
from riverdelta.checks import LawBroken, check_correction

SCHEMA = Schema.of({"u": "int64", "h": "float32"})


class KernelIsIdentity(Entity):
    def learn(self, columns, offset, label, weight):
        return offset.copy()


class ReturnsLogitsAfterTheUpdate(Entity):
    def learn(self, columns, offset, label, weight):
        super().learn(columns, offset, label, weight)
        return self.predict(columns, offset)


class ExportsItsOffset(Entity):
    def export(self, nodes, columns, offset):
        nodes.table("mean", self.served["mean"].values)
        return offset


class LearnsABlockAsOneAverage(Linear):
    def learn(self, columns, offset, label, weight):
        return super().learn(columns, offset, np.full_like(label, label.mean()), weight)


class ForgetsToMarkRows(Entity):
    def learn(self, columns, offset, label, weight):
        logit = super().learn(columns, offset, label, weight)
        self.served["mean"].touched[:] = False
        return logit


class HidesState(Entity):
    hidden = 0

    def learn(self, columns, offset, label, weight):
        self.hidden += len(label)
        return super().learn(columns, offset, label, weight * np.float32(1 + (self.hidden > 150)))


class IgnoresImportance(Entity):
    def learn(self, columns, offset, label, weight):
        return super().learn(columns, offset, label, np.ones_like(weight))


class StartsElsewhere(Linear):
    def bind(self, schema):
        super().bind(schema)
        self.served["ids"].values[:] = 0.001


class BakesItsTable(Entity):
    def export(self, nodes, columns, offset):
        baked = nodes.constant(self.served["mean"].values)
        nodes.table("mean", self.served["mean"].values)
        rows = nodes.add("Gather", baked, self._hash.export(nodes, columns["u"]))
        return nodes.add("Add", offset, rows)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (KernelIsIdentity("u", slots=64), "it_learns"),
        (ReturnsLogitsAfterTheUpdate("u", slots=64), "learn_returns_the_prediction_before_the_update"),
        (ExportsItsOffset("u", slots=64), "the_graph_agrees"),
        (LearnsABlockAsOneAverage("u", "h", slots=64), "learn_returns|a_block_equals_its_rows"),
        (ForgetsToMarkRows("u", slots=64), "changed_rows_are_touched"),
        (HidesState("u", slots=64), "a_block_equals_its_rows|state_round_trips|learn_returns"),
        (IgnoresImportance("u", slots=64), "importance_counts"),
        (StartsElsewhere("u", slots=64), "fresh_residual_is_zero"),
        (BakesItsTable("u", slots=64), "tables_swap"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_correction_is_named_with_the_law_it_breaks(broken, law):
    with pytest.raises(LawBroken, match=law):
        check_correction(broken, SCHEMA)
