"""What the converters' tests share: one way to run a graph, and the same pipeline in plain River."""

import numpy as np
import pytest
from river.compose import Select

from riverdelta.checks.law import run
from riverdelta.core.nodes import Nodes
from riverdelta.river import River
from riverdelta.river.select import PresentSelect


def ordered(step):
    """Give each Select's set of names an order, which Python draws anew in each process: bits are compared here.

    It also passes over what is absent, as the numbers of the first rows are.
    """
    for part in getattr(step, "steps", getattr(step, "transformers", {})).values():
        ordered(part)
    if isinstance(step, Select) and hasattr(step, "keys"):
        step.keys, step.__class__ = tuple(sorted(step.keys)), PresentSelect
    return step


class PlainRiver:
    """A pipeline that River alone learns and predicts with, on the same columns, in which its numbers are limited."""

    def __init__(self, correction):
        self.pipeline, self._correction = ordered(correction.pipeline.clone()), correction.clone()
        self._correction.bind(correction._reader.schema)

    def learn(self, columns, labels, weights=None):
        mine, rows = self._correction, len(labels)
        weights, numbers = np.ones(rows) if weights is None else weights, mine._reader.numbers(columns, rows)
        start = mine._limits.learn(numbers, np.ones(rows, np.bool_), np.arange(rows + 1))
        for i, (x, y, w) in enumerate(zip(mine._reader.rows(columns, numbers), labels.tolist(), weights.tolist(), strict=True)):
            self.pipeline.learn_one(x if i >= start else mine._reader.ids(x), bool(y), w=w)

    def logits(self, columns):
        *steps, model = self.pipeline.steps.values()
        out = []
        numbers = self._correction._reader.numbers(columns, len(next(iter(columns.values()))))
        numbers = self._correction._limits.apply(numbers)
        for x in self._correction._reader.rows(columns, numbers):
            for step in steps:
                x = step.transform_one(x)
            out.append(model._raw_dot_one(x))
        return np.array(out)


def graph(correction, schema, columns, offset):
    correction.sync()
    nodes = Nodes(17)
    with nodes.scope("c"):
        logit = correction.export(nodes, {name: name for name in schema}, "offset")
    return run(nodes, logit, {**columns, "offset": offset})


class Trained:
    """One pipeline twice: as a correction with an offset of 0, and in plain River, after the same rows."""

    def __init__(self, pipeline, schema, columns, labels, **settings):
        self.schema = schema
        self.correction = River(pipeline, features=tuple(schema), **settings)
        self.correction.bind(schema)
        self.plain = PlainRiver(self.correction)
        rows = len(labels)
        zeros, labels = np.zeros((rows, 1), np.float32), labels.astype(np.float32)
        self.correction.learn(columns, zeros, labels, np.ones(rows, np.float32))
        self.plain.learn(columns, labels)

    def gap(self, columns):
        """The largest difference of the graph's logits from plain River's."""
        rows = len(next(iter(columns.values())))
        served = graph(self.correction, self.schema, columns, np.zeros((rows, 1), np.float32))
        return np.abs(served[:, 0] - self.plain.logits(columns)).max()

    @property
    def model(self):
        return self.correction._outputs[0].model


@pytest.fixture
def trained():
    return Trained


@pytest.fixture
def plain():
    return PlainRiver


@pytest.fixture
def run_graph():
    return graph
