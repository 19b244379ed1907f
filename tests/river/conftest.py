"""What the converters' tests share: one way to run a graph, and the same pipeline in plain River."""

import numpy as np
import pytest
from river.compose import Select

from riverdelta.checks.law import run
from riverdelta.core.nodes import Nodes
from riverdelta.river import River


def ordered(step):
    """Give each Select's set of names an order, which Python draws anew in each process: bits are compared here."""
    for part in getattr(step, "steps", getattr(step, "transformers", {})).values():
        ordered(part)
    if isinstance(step, Select) and hasattr(step, "keys"):
        step.keys = tuple(sorted(step.keys))
    return step


class PlainRiver:
    """A pipeline that River alone learns and predicts with, on the same columns."""

    def __init__(self, pipeline):
        self.pipeline = ordered(pipeline.clone())

    @staticmethod
    def rows(columns):
        flat = {}
        for name, column in columns.items():
            flat |= {f"{name}_{i}": column[:, i] for i in range(column.shape[1])} if column.ndim == 2 else {name: column}
        return [dict(zip(flat, row, strict=True)) for row in zip(*(c.tolist() for c in flat.values()), strict=True)]

    def learn(self, columns, labels, weights=None):
        weights = np.ones(len(labels)) if weights is None else weights
        for x, y, w in zip(self.rows(columns), labels.tolist(), weights.tolist(), strict=True):
            self.pipeline.learn_one(x, bool(y), w=w)

    def logits(self, columns):
        *steps, model = self.pipeline.steps.values()
        out = []
        for x in self.rows(columns):
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
        self.plain = PlainRiver(pipeline)
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
        return self.correction._model


@pytest.fixture
def trained():
    return Trained


@pytest.fixture
def plain():
    return PlainRiver


@pytest.fixture
def run_graph():
    return graph
