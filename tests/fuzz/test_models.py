"""ONNX files, of a base or of a release: whatever they say, a model that can be served or a `ModelError`, and no other file."""

import os

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import external_data_helper

from riverdelta import Calibration
from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.core.features import Schema
from riverdelta.corrections.stack import Stack
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature

#: What onnx says of a key that it does not know is a warning.
pytestmark = pytest.mark.filterwarnings("ignore:Ignoring unknown external data key")
FUZZ = settings.get_profile("fuzz")
EDITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1 << 12), st.integers(0, 255)), min_size=1, max_size=3)
RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N, 2] x, bool[N] on) => (float[N] p)
<float[4] w = {0.5, 1, 2, 4}, int64 four = {4}, int64[1] one = {1}> {
  row = Mod(user, four)  of = Gather(w, row)  sum = ReduceSum<keepdims = 0>(x, one)  yes = Cast<to = 1>(on)
  no = Constant<value = float {0.25}>()  a = Add(of, sum)  b = Mul(yes, no)  y = Add(a, b)  s = Sigmoid(y)  p = Identity(s)
}"""
SECRET = b"what lies outside" * 100
SIZES = st.integers(-3, 9) | st.sampled_from([1000, 4096, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)])
NAMES = ["", "user", "x", "w", "p", "y", "Sigmoid", "Identity", "Loop", "ai.onnx.ml", "a\0b", "é", "N", "../w"]
TEXTS = st.sampled_from(NAMES) | st.text(max_size=4)
SMALL = st.integers(0, 30) | st.sampled_from([-1, 2**31 - 1])
PLACES = [
    "w.bin",
    "../secret",
    "SECRET",
    "link",
    "folder",
    ".",
    "/dev/zero",
    "pipe",
    "./w.bin",
    "folder/../w.bin",
    "a\0b",
    "w.bin/",
]


def fields(message):
    """Every field that is set, in every message, with the message that has it."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from fields(part)


def values_of(field):
    """What its type allows, the odd ones more often than not."""
    if field.cpp_type == field.CPPTYPE_STRING:
        return TEXTS if field.type == field.TYPE_STRING else st.binary(max_size=9)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return {field.CPPTYPE_FLOAT: st.floats(width=32), field.CPPTYPE_INT64: SIZES}.get(field.cpp_type, SMALL)


def alter(message, field, draw):
    """Drop a field or one of its parts, double that part, or give it another value."""
    value, way = getattr(message, field.name), draw(st.integers(0, 3))
    if way == 0 or (field.message_type is not None and not field.is_repeated):
        message.ClearField(field.name)
    elif not field.is_repeated:
        setattr(message, field.name, draw(values_of(field)))
    else:
        at = draw(st.integers(0, len(value) - 1))
        if way == 1:
            del value[at]
        elif field.message_type is not None:
            value.add().CopyFrom(value[at])
        else:
            value[at : at + 1] = [draw(values_of(field))] * draw(st.integers(1, 3))


@pytest.fixture(scope="module")
def ranker():
    return onnx.parser.parse_model(RANKER)


def read(path, bounded):
    """The signature, once everything that follows from it has been made; None where the file is refused by its name."""
    with bounded():
        try:
            signature = Signature.read(path)
            stack = Stack([Calibration()])
            stack.bind(signature.inputs)
            out = path.parent / "releases" / "000001.onnx"
            save(merge(signature, stack, {}, Schema()), signature, out)
        except (ConfigurationError, Corrupt) as error:
            assert path.name in str(error) or "releases" in str(error), error  # noqa: PT017
            return None
    return signature, out


@settings(FUZZ)
@given(EDITS)
def test_a_base_damaged_anywhere_is_read_and_merged_or_refused(tmp_path, ranker, damage, bounded, edits):
    path = tmp_path / "base.onnx"
    path.write_bytes(damage(ranker.SerializeToString(), edits))
    read(path, bounded)


@settings(FUZZ)
@given(st.data())
def test_a_base_with_any_field_changed_is_read_and_merged_or_refused(tmp_path, ranker, bounded, data):
    model = onnx.ModelProto()
    model.CopyFrom(ranker)
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(fields(model))
        if found:
            alter(*found[data.draw(st.integers(0, len(found) - 1))], data.draw)
    path = tmp_path / "base.onnx"
    path.write_bytes(model.SerializeToString())
    read(path, bounded)


REFERENCES = st.fixed_dictionaries(
    {},
    optional={
        "location": st.sampled_from(PLACES) | st.text(max_size=3),
        "offset": SIZES.map(str) | st.text(max_size=3),
        "length": SIZES.map(str) | st.text(max_size=3),
        "checksum": st.text(max_size=3),
    },
)  # fmt: skip


@settings(FUZZ)
@given(REFERENCES, st.lists(SIZES, max_size=3), st.sampled_from([1, 7, 8, 9, 10, 11, 16, 22, 99, 0]))
def test_weights_outside_the_model_are_its_own_or_refused(tmp_path, bounded, reference, dims, kind):
    folder = tmp_path / "base"
    if not folder.exists():
        (folder / "folder").mkdir(parents=True)
        (tmp_path / "secret").write_bytes(SECRET)
        (folder / "w.bin").write_bytes(np.arange(1000, dtype=np.float32).tobytes())
        (folder / "link").symlink_to(tmp_path / "secret")
        os.mkfifo(folder / "pipe")
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> ranker (float[N] x) => (float[N] y)
        <float[1] w = {1}> { y = Mul(x, w) }"""
    )
    tensor = model.graph.initializer[0]
    tensor.raw_data = b""
    external_data_helper.set_external_data(tensor, "w.bin", 0, 4)
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = tensor.EXTERNAL
    if dims or kind != 1:
        tensor.dims[:], tensor.data_type = dims, kind
    for entry in list(tensor.external_data):
        if entry.key in reference:
            entry.value = reference[entry.key].replace("SECRET", str(tmp_path / "secret"))
    path = folder / "base.onnx"
    path.write_bytes(model.SerializeToString())
    made = read(path, bounded)
    if made is not None:
        assert all(b"outside" not in file.read_bytes() for file in (folder / "releases").iterdir())
