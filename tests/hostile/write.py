"""Write the files of this folder that are no text, each from a good one: python tests/hostile/write.py"""

import json
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save

from riverdelta.core.hashing import digest
from riverdelta.core.records import Feedback, encode
from riverdelta.storage.registry import Delta, State

FOLDER = Path(__file__).parent


def feedback(**changed):
    """Two pieces of feedback."""
    ints = np.arange(2)
    arrays = {"incarnation": ints, "request": ints, "index": ints.astype(np.int32), "label": np.ones(2, np.float32)}
    return encode(Feedback(**{**arrays, "time": np.ones(2), "late": ints == 1, "source": ints, **changed}))


def lengthened(record, rows):
    """A record whose description of its batch says `rows` wherever it said 2."""
    batch = record.index(b"\xff\xff\xff\xff", 4)
    end = batch + 8 + int.from_bytes(record[batch + 4 : batch + 8], "little")
    described = record[batch:end].replace((2).to_bytes(8, "little"), rows.to_bytes(8, "little"))
    return record[:batch] + described + record[end:]


def sealed(header, data=b"", length=None):
    """A safetensors file of any header, behind the digest that fits it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = (len(text) if length is None else length).to_bytes(8, "little") + text + data
    return digest(body) + body


def one(dtype, shape, end):
    """A header of one array."""
    return {"weights": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def resealed(arrays):
    """A file of arrays, which are not all that a delta has."""
    body = save(arrays)
    return digest(body) + body


def delta(swap):
    """The live state `swap`, whole."""
    return Delta(State(1, swap, 10), None, {"t": (None, np.ones((1, 1), np.float32))}).encode()


def model(kind=1):
    """A model with one table, the way that releases have them, whose input is of any type."""
    text = """<ir_version: 8, opset_import: ["" : 17]> ranker (float[N] x, float[1] riverdelta_w) => (float[N] y)
    <float[1] riverdelta_w = {1}> { y = Mul(x, riverdelta_w) }"""
    made = onnx.parser.parse_model(text)
    made.graph.input[0].type.tensor_type.elem_type = kind
    return made.SerializeToString().replace(b"riverdelta_w", b"riverdelta/w")


STATE = np.array([[1, 1, 9], [-1, -1, -1]])
FILES = {
    "length_past_its_buffer.arrow": lengthened(feedback(), 1 << 40),
    "negative_length.arrow": lengthened(feedback(), (1 << 64) - 2),
    "bool_byte_of_2.arrow": feedback(late=np.array([0, 2], np.uint8)),
    "int32_where_int64_belongs.arrow": feedback(request=np.arange(2, dtype=np.int32)),
    "labels_of_two_axes.arrow": feedback(label=np.ones((2, 1), np.float32)),
    "cut_in_its_schema.arrow": feedback()[:200],
    "shape_past_its_bytes.checkpoint": sealed(one("F32", [1 << 40], 4), bytes(4)),
    "shape_that_overflows.checkpoint": sealed(one("F32", [1 << 62, 1 << 62], 4), bytes(4)),
    "type_that_numpy_lacks.checkpoint": sealed(one("F4", [2], 1), bytes(1)),
    "header_of_2_to_the_63_bytes.checkpoint": sealed(one("F32", [1], 4), bytes(4), 1 << 63),
    "header_that_is_no_text.checkpoint": sealed(b"\xff\xfe{}"),
    "digest_of_another.checkpoint": sealed(one("F32", [1], 4), bytes(4))[:-1] + b"\1",
    "name_that_is_no_text.onnx": model().replace(b"riverdelta/w", b"riverdelta/\xff"),
    "input_of_type_99.onnx": model(99),
    # Under this name, a file that somebody copied.
    "000000000000020 copy.checkpoint": sealed(one("F32", [1], 4), bytes(4)),
    # It holds swap 2.
    "000000000003.live": delta(2),
    "000000000004.live": delta(4)[:-1] + b"\1",
    "000000000005.live": resealed({"state": STATE}),
    "000000000006.live": resealed({"state": STATE[:1], "received": np.ones(1), "published": np.ones(1)}),
    "000000000007.live": resealed({"state": STATE.astype(np.float64), "received": np.ones(1), "published": np.ones(1)}),
}

if __name__ == "__main__":
    for name, data in FILES.items():
        (FOLDER / name).write_bytes(data)
