"""What a base model is read as, and what is said of those that cannot be corrected."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from riverdelta.core.errors import ModelError, Unsupported
from riverdelta.graph import runtime
from riverdelta.graph.reading import opset_of
from riverdelta.graph.signature import Signature

HOSTILE = Path(__file__).parents[1] / "hostile"
LINEAR = "ranker (float[N, 2] x) => (float[N, 1] logit) <float[2, 1] w = {0.5, -1.5}> { logit = MatMul(x, w) }"
HALVES = ", ".join(["0.5"] * 600)
WIDE = f"ranker (float[N, 600] x) => (float[N, 1] logit) <float[600, 1] w = {{{HALVES}}}> {{ logit = MatMul(x, w) }}"


def test_inputs_become_columns_and_the_batch_axis_keeps_its_name(write):
    path = write(
        "ranker (int64[rows] user, float[rows] hour, float[rows, 3] vec, bool[rows, length] mask) => (float[rows] logit)"
        " { m = Cast <to = 1> (mask) logit = Neg(hour) }"
    )
    signature = Signature.read(path)
    assert {name: str(c) for name, c in signature.inputs.items()} == {
        "user": "int64[N]",
        "hour": "float32[N]",
        "vec": "float32[N, 3]",
        "mask": "bool[N, ?]",
    }
    assert (signature.output, signature.predicts, signature.batch, opset_of(signature.model)) == ("logit", False, "rows", 17)


def test_an_input_that_is_an_initializer_is_no_column(write):
    path = write(
        "ranker (float[N, 2] x, float[2, 1] w) => (float[N, 1] y) <float[2, 1] w = {0.5, -1.5}> { y = MatMul(x, w) }", ir=3
    )
    assert list(Signature.read(path).inputs) == ["x"]


@pytest.mark.parametrize(
    ("body", "named", "predicts"),
    [
        ("{ y = Neg(x) }", {}, False),
        ("{ y = Sigmoid(x) }", {}, True),
        ("<int64[1] flat = {-1}> { p = Sigmoid(x) q = Reshape(p, flat) y = Identity(q) }", {}, True),
        ("{ y = Softplus(x) }", {"probability": "y", "link": "logit"}, True),
        ("{ p = Sigmoid(x) y = Mul(p, x) }", {}, False),
    ],
)
def test_an_output_is_raw_or_a_prediction_as_named_or_as_the_graph_shows(write, body, named, predicts):
    assert Signature.read(write(f"ranker (float[N] x) => (float[N] y) {body}"), **named).predicts == predicts


@pytest.mark.parametrize(
    ("file", "error", "words"),
    [
        ("static_batch", ModelError, ["'x'", "[8, 2]", "dynamic", "dynamic_shapes"]),
        ("static_output", ModelError, ["'logit'", "[1, 1]", "dynamic"]),
        ("int_output", ModelError, ["label", "int64[N]", "output="]),
        ("three_classes", ModelError, ["'logits'", "multiclass", "write output='logits[0]'"]),
        ("two_outputs", ModelError, ["2 float outputs", "write output='click' or output='buy'"]),
        ("complex_input", Unsupported, ["'city'", "COMPLEX64"]),
        ("scalar_input", ModelError, ["'temperature'", "[]", "batch axis"]),
        ("no_inputs", ModelError, ["no inputs"]),
        ("undefined_tensor", ModelError, ["weights"]),
    ],
)
def test_a_base_that_cannot_be_corrected_is_refused_by_name(write, file, error, words):
    path = write((HOSTILE / f"{file}.onnxtxt").read_text())
    with pytest.raises(error) as refused:
        Signature.read(path)
    assert [word for word in ["base.onnx", *words] if word not in str(refused.value)] == []


def test_an_output_that_is_not_there_is_answered_with_near_names(write):
    with pytest.raises(ModelError, match=r"no output 'logits': did you mean logit\?"):
        Signature.read(write(LINEAR), logit="logits")


def test_a_named_int_output_is_refused_with_its_type(write):
    path = write((HOSTILE / "int_output.onnxtxt").read_text())
    with pytest.raises(ModelError, match=r"'label' is int64\[N\]"):
        Signature.read(path, logit="label")


def test_a_logit_that_a_sigmoid_made_is_refused(write):
    path = write((HOSTILE / "sigmoid_as_logit.onnxtxt").read_text())
    with pytest.raises(ModelError, match="probability='logit'"):
        Signature.read(path, logit="logit")
    assert Signature.read(path).predicts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m, version: setattr(m.opset_import[0], "version", version),
            r"base\.onnx has opset 99 of ai\.onnx; .* export it again with ops",
        ),
        (
            lambda m, version: setattr(m, "ir_version", version),
            r"base\.onnx has IR version 99; ONNX Runtime .* onnx\.save\(model, 'base\.onnx'\)",
        ),
        (
            lambda m, version: m.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", version)),
            r"base\.onnx has opset 99 of ai\.onnx\.ml; .* target_opset={'ai\.onnx\.ml': \d+} \(skl2onnx: to_onnx\)",
        ),
    ],
    ids=["opset", "IR version", "opset of trees"],
)
def test_what_is_newer_than_the_runtime_is_named_with_what_the_runtime_takes(write, change, words):
    path = write(LINEAR)

    def write_with(version):
        model = onnx.load(write(LINEAR))
        change(model, version)
        path.write_bytes(model.SerializeToString())

    write_with(99)
    with pytest.raises(ModelError, match=words) as refused:
        Signature.read(path)
    write_with(int(re.search(r"supports up to (\d+)", str(refused.value))[1]))
    assert not Signature.read(path).predicts
    runtime.open_session(path)


def test_both_links_at_once_are_refused(write):
    with pytest.raises(ModelError, match="name one output"):
        Signature.read(write(LINEAR), logit="logit", probability="logit")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"ranker\.onnx"):
        Signature.read(tmp_path / "ranker.onnx")


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="is a folder"):
        Signature.read(tmp_path)


def test_a_model_cut_at_any_byte_is_refused(write, tmp_path):
    whole = write(
        "ranker (float[N, 2] x) => (float[N] y) <int64[1] one = {1}> { h = ReduceSum(x, one) y = Neg(h) }"
    ).read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            Signature.read(cut)


def test_bytes_that_are_no_model_are_refused(tmp_path):
    path = tmp_path / "noise.onnx"
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(200))
        with pytest.raises(ModelError, match=r"noise\.onnx"):
            Signature.read(path)


@pytest.fixture
def external(write_external):
    return write_external(WIDE)


def test_external_weights_stay_on_disk_and_count_in_the_digest(external):
    before = Signature.read(external)
    assert before.model.ByteSize() < 600
    assert before.digest == Signature.read(external).digest
    weights = external.with_name("wide.bin")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert Signature.read(external).digest != before.digest


def test_a_base_that_changes_after_it_was_read_has_no_digest(external):
    read = Signature.read(external)
    weights = external.with_name("wide.bin")
    weights.write_bytes(weights.read_bytes()[::-1])
    with pytest.raises(ModelError, match="has changed since it was read; restart"):
        read.digest  # noqa: B018


def test_missing_external_data_is_named_with_its_tensor(external):
    external.with_name("wide.bin").unlink()
    with pytest.raises(ModelError, match=r"'w'.*wide\.bin"):
        Signature.read(external)


def test_external_data_cut_short_is_named_with_both_sizes(external):
    weights = external.with_name("wide.bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"wide\.bin has 1000 bytes and 'w' ends at 2400"):
        Signature.read(external)


@pytest.mark.parametrize("location", ["../wide.bin", "/etc/hostname", ""])
def test_external_data_outside_the_folder_is_refused(external, location):
    model = onnx.load(external, load_external_data=False)
    entry = next(e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w'"):
        Signature.read(external)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("offset", "-4", "invalid reference to external data|it is damaged"),
        ("length", "-1", "invalid reference to external data|it is damaged"),
        ("offset", "x", "invalid reference to external data"),
        ("location", "a\0b", "invalid reference to external data"),
        ("length", str(2**62), "has 2400 bytes and 'w' ends at"),
        ("offset", str(2**63), "has 2400 bytes and 'w' ends at"),
    ],
)
def test_external_data_of_impossible_place_or_size_is_refused(external, key, value, words):
    model = onnx.load(external, load_external_data=False)
    next(e for e in model.graph.initializer[0].external_data if e.key == key).value = value
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=words):
        Signature.read(external)


@pytest.mark.parametrize("dims", [[2**40, 2**40], [-600, 1], [2**63 - 1, 2**63 - 1, 2]])
def test_external_data_of_a_shape_that_its_file_cannot_hold_is_refused(external, dims):
    model = onnx.load(external, load_external_data=False)
    tensor = model.graph.initializer[0]
    tensor.dims[:] = dims
    del tensor.external_data[[e.key for e in tensor.external_data].index("length")]
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"has 2400 bytes and 'w' ends at|it is damaged"):
        Signature.read(external)


def test_an_input_of_a_type_that_does_not_exist_is_refused(write):
    path = write(LINEAR)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = 99
    path.write_bytes(model.SerializeToString())
    with pytest.raises((ModelError, Unsupported), match=r"base\.onnx"):
        Signature.read(path)
