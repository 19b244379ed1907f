"""Bases with operators of onnxruntime-extensions: a tokenizer of one text in a Scan over the rows, and a score."""

import onnx
from onnx import TensorProto, helper

LENGTH = 16
VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "my", "form", "##s", "?", "e", "##t"])
_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]


def tokens(text, vocabulary=VOCABULARY, length=LENGTH):
    """The nodes that tokenize `text` string[N]: input_ids, token_type_ids and attention_mask int64[N, length]."""
    names = ("input_ids", "token_type_ids", "attention_mask")
    bert = helper.make_node(
        "BertTokenizer", ["texts"], ["ids", "types", "mask"], domain="ai.onnx.contrib", vocab_file=vocabulary,
        do_lower_case=1, strip_accents=1, max_length=length,
    )  # fmt: skip
    nodes = [
        helper.make_node("Unsqueeze", ["one", "zero"], ["texts"]),
        bert,
        helper.make_node("Shape", ["ids"], ["used"]),
        helper.make_node("Sub", ["length", "used"], ["left"]),
        helper.make_node("Concat", ["zero", "left"], ["pads"], axis=0),
        *(helper.make_node("Pad", [part, "pads"], [f"row_{part}"]) for part in ("ids", "types", "mask")),
    ]
    body = helper.make_graph(
        nodes,
        "one_text",
        [helper.make_tensor_value_info("one", TensorProto.STRING, [])],
        [helper.make_tensor_value_info(f"row_{part}", TensorProto.INT64, [length]) for part in ("ids", "types", "mask")],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("length", TensorProto.INT64, [1], [length]),
        ],
    )
    return helper.make_node("Scan", [text], list(names), body=body, num_scan_inputs=1)


def save(path, nodes, output="logit", initializers=(), shape=("N",)):
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, list(shape))],
        list(initializers),
    )
    onnx.save(helper.make_model(graph, opset_imports=_OPSETS, ir_version=8), path)
    return path


def counting(path):
    """A base whose logit is the number of tokens of a text, less 8."""
    nodes = [
        tokens("text"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["mask", "last"], ["tokens"], keepdims=0),
        helper.make_node("Sub", ["tokens", "eight"], ["logit"]),
    ]
    constants = [
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("eight", TensorProto.FLOAT, [], [8.0]),
    ]
    return save(path, nodes, initializers=constants)
