"""What the converters' tests share: one way to run a graph, and the same pipeline in plain River."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from river.compose import Select

from riverdelta.core.nodes import Nodes
from riverdelta.river import River

TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


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


def graph(correction, schema, columns, offset, opset=17):
    correction.sync()
    nodes = Nodes(opset)
    with nodes.scope("c"):
        logit = correction.export(nodes, {name: name for name in schema}, "offset")
    tables, overridable = nodes.table_protos()
    inputs = [helper.make_tensor_value_info(n, TYPES[c.dtype], ["N", *c.shape]) for n, c in schema.items()]
    inputs.append(helper.make_tensor_value_info("offset", TensorProto.FLOAT, ["N", 1]))
    outputs = [helper.make_tensor_value_info(logit, TensorProto.FLOAT, ["N", 1])]
    made = helper.make_graph(nodes.nodes, "g", inputs + overridable, outputs, [*nodes.constants, *tables])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([logit], {**columns, "offset": offset})[0]


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
