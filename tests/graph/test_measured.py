"""Measured types: what shape inference does not know is usable, and a graph that takes one text at a time is not a scorer."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from riverdelta import Linear
from riverdelta.core.errors import ConfigurationError, ModelError
from riverdelta.core.features import Schema
from riverdelta.corrections.stack import Stack
from riverdelta.graph import reading
from riverdelta.graph.files import save as save_merged
from riverdelta.graph.inspection import list_tensors
from riverdelta.graph.merge import merge
from riverdelta.graph.reading import read_model
from riverdelta.graph.runtime import extensions, open_session
from riverdelta.graph.signature import Signature, type_of
from riverdelta.graph.taps import all_features, tap_columns

sys.path.insert(0, str(Path(__file__).parent))
import string_bases as texts  # the module beside this file

pytest.importorskip("onnxruntime_extensions")
TEXTS = np.array(["Where is my form?", "", "Où est-ce?", "form " * 40], object)


def test_the_tensors_behind_a_tokenizer_have_types_and_a_merged_model_scores_texts_as_the_base_does(tmp_path):
    signature = Signature.read(texts.counting(tmp_path / "base.onnx"), logit="logit")
    assert type_of(signature.shapes["input_ids"]) == f"int64[N, {texts.LENGTH}]"
    assert str(tap_columns(signature, {"n": "tokens"})["n"]) == "float32[N]"
    stack = Stack([Linear("n")])
    stack.bind(all_features(signature, {"n": "tokens"}, Schema()).schema)
    path = save_merged(merge(signature, stack, {"n": "tokens"}, Schema()), signature, tmp_path / "merged.onnx")
    base = open_session(signature.path, ("CPUExecutionProvider",)).run(None, {"text": TEXTS})[0]
    assert base.tolist() == [7.0 - 8, 2.0 - 8, base[2], texts.LENGTH - 8.0]
    merged = open_session(path, ("CPUExecutionProvider",)).run(["base_logit", "n"], {"text": TEXTS})
    assert np.array_equal(merged[0], base)
    assert np.array_equal(merged[1], base + 8)


def test_a_tokenizer_that_takes_one_or_two_texts_is_refused_with_both_ways_out(tmp_path):
    node = helper.make_node(
        "BertTokenizer", ["text"], ["ids", "types", "mask"], domain="ai.onnx.contrib", vocab_file=texts.VOCABULARY
    )
    path = texts.save(tmp_path / "pairs.onnx", [node, helper.make_node("Cast", ["ids"], ["logit"], to=TensorProto.FLOAT)])
    with pytest.raises(ModelError, match=r"does not compute 3 rows at once.*Scan over the rows.*prepare=tokenize"):
        Signature.read(path, logit="logit")


def test_an_output_that_declares_rows_and_has_one_for_any_number_of_texts_is_refused(tmp_path):
    nodes = [
        helper.make_node("StringJoin", ["text", "space", "axis"], ["joined"], domain="ai.onnx.contrib"),
        helper.make_node("StringLength", ["joined"], ["length"], domain="ai.onnx.contrib"),
        helper.make_node("Cast", ["length"], ["logit"], to=TensorProto.FLOAT),
    ]
    constants = [
        helper.make_tensor("space", TensorProto.STRING, [1], [b" "]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
    ]
    path = texts.save(tmp_path / "joined.onnx", nodes, initializers=constants)
    with pytest.raises(ModelError, match="without a dynamic batch axis"):
        Signature.read(path, logit="logit")


def test_without_the_package_the_operators_are_named_and_the_line_to_install_it(tmp_path, monkeypatch):
    path = texts.counting(tmp_path / "base.onnx")

    def missing():
        monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
        return extensions.__wrapped__()

    monkeypatch.setattr(reading, "extensions", missing)
    with pytest.raises(ModelError, match=r"base.onnx has the operators BertTokenizer: .*pip install 'riverdelta\[text\]'$"):
        read_model(path)


FLAT = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] ids) => (float[batch] logit)
<int64[2] wide = {-1, 2}, int64[2] rows = {0, -1}, int64[1] last = {1}, int64[1] one = {-1}>
{
  x = Cast<to = 1>(ids)
  pair = Concat<axis = 1>(x, x)
  words = Reshape(pair, wide)
  again = Reshape(pair, rows)
  top, at = TopK<axis = 1>(again, last)
  two = Concat<axis = 1>(top, top)
  flat = Reshape(words, one)
  shape = Shape(x)
  s = Gather<axis = 0>(shape, last)
  n = ConstantOfShape(s)
  logit = ReduceMean<axes = [1], keepdims = 0>(x)
}"""


def test_a_tap_counts_rows_and_not_tokens_where_the_graph_alone_does_not_say(tmp_path):
    onnx.save(onnx.parser.parse_model(FLAT), tmp_path / "flat.onnx")
    signature = Signature.read(tmp_path / "flat.onnx", logit="logit")
    assert str(tap_columns(signature, {"v": "two"})["v"]) == "float32[N, 2]"
    for tensor in ("words", "flat", "n"):
        with pytest.raises(
            ConfigurationError, match=rf"tap 'v' names tensor '{tensor}', which is \w+\[(not the batch|sequence)"
        ):
            tap_columns(signature, {"v": tensor})
    use = {tensor.name: (tensor.type, tensor.use) for tensor in list_tensors(tmp_path / "flat.onnx")}
    assert use["two"] == ("float32[N, 2]", "tap")
    assert [use[tensor][1] for tensor in ("words", "flat", "n")] == ["-"] * 3
