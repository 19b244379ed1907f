"""Base models from ONNX text, and what ONNX Runtime alone makes of a model file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from riverdelta.core.features import Schema
from riverdelta.corrections.stack import Stack
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import all_features

HEADER = '<ir_version: {ir}, opset_import: ["" : {opset}]>\n'


def plain_session(model):
    """A session as anyone would open it, without riverdelta."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model, feeds):
    session = plain_session(model)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@dataclass
class Merged:
    signature: Signature
    schema: Schema
    stack: Stack
    model: onnx.ModelProto
    path: Path


@pytest.fixture
def write(tmp_path):
    """Write a model given as ONNX text (a graph alone gets a header) and return its path."""

    def write(text, name="base.onnx", opset=17, ir=8):
        text = text if text.lstrip().startswith("<") else HEADER.format(ir=ir, opset=opset) + text
        path = tmp_path / name
        onnx.save(onnx.parser.parse_model(text), path)
        return path

    return write


@pytest.fixture
def write_external(write, tmp_path):
    """Write a model with every initializer in an external-data file, in a folder of its own."""

    def write_external(text, name="wide"):
        model = onnx.load(write(text))
        for tensor in model.graph.initializer:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
        folder = tmp_path / "external"
        folder.mkdir(exist_ok=True)
        onnx.save(model, folder / f"{name}.onnx", save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
        return folder / f"{name}.onnx"

    return write_external


@pytest.fixture
def combine(tmp_path):
    """Merge corrections (clones of them, learned by `learn`) with a base file, check the result and save it as a release."""

    def combine(
        path, corrections, taps=None, columns=None, learn=None, number=0, provenance=None, gate_weight=1.0, names=None, **output
    ):
        signature = Signature.read(path, **output)
        taps, declared = taps or {}, Schema.of(columns or {})
        schema = all_features(signature, taps, declared, names or {}).schema
        stack = Stack([c.clone() for c in corrections])
        stack.bind(schema)
        if learn is not None:
            learn(stack)
        model = merge(signature, stack, taps, declared, gate_weight, provenance, names or {})
        release = save(model, signature, tmp_path / "releases" / f"{number:06d}.onnx")
        onnx.checker.check_model(str(release), full_check=True)
        return Merged(signature, schema, stack, model, release)

    return combine


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")

    def place(made):
        path = folder / "base.onnx"
        path.unlink(missing_ok=True)
        path.write_bytes(made.SerializeToString())
        return path

    return place


@pytest.fixture
def plain():
    return run


@pytest.fixture
def rng():
    return np.random.default_rng(7)
