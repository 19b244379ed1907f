"""Tensors of the Open Inference Protocol v2, between bytes, JSON lists and numpy.

Source: kserve/open-inference-protocol, "Predict Protocol - Version 2", and Triton's binary tensor data extension.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput, kind, short

_DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ON_THE_WIRE = {name: np.dtype(dtype).newbyteorder("<") for name, dtype in _DTYPES.items()}
MOST_AXES = 8
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Tensor:
    """One named tensor; `data` is a numpy array, or for BYTES an object array of bytes."""

    name: str
    datatype: str
    data: npt.NDArray[Any]


def datatype_of(dtype: str) -> str:
    """Return the protocol's name of a column's dtype."""
    return "BYTES" if dtype == "string" else _NAMES[dtype]


def from_list(name: str, datatype: str, shape: list[int], data: Any) -> Tensor:
    """Read a tensor from a JSON list, flat or nested; raises `InvalidInput` naming the tensor."""
    size = _size(name, datatype, shape)
    flat = _flat(name, data, size)
    array = _encoded(name, flat) if datatype == "BYTES" else _exactly(name, datatype, flat)
    return Tensor(name, datatype, array.reshape(shape))


def from_bytes(name: str, datatype: str, shape: list[int], raw: bytes) -> Tensor:
    """Read a tensor from its little-endian bytes; BYTES elements carry a 4-byte length each."""
    size = _size(name, datatype, shape)
    if datatype == "BYTES":
        return Tensor(name, datatype, _strings(name, size, raw).reshape(shape))
    dtype = _ON_THE_WIRE[datatype]
    if len(raw) != size * dtype.itemsize:
        raise InvalidInput(f"tensor {name!r} has {len(raw)} bytes; {datatype}{shape} needs {size * dtype.itemsize}")
    # Any byte but 0 is true and becomes 1: the model and the journal use the byte itself.
    values = np.frombuffer(raw, np.uint8) != 0 if datatype == "BOOL" else np.frombuffer(raw, dtype)
    return Tensor(name, datatype, values.reshape(shape))


def to_bytes(tensor: Tensor) -> bytes:
    """Return a tensor as its little-endian bytes."""
    if tensor.datatype == "BYTES":
        return b"".join(_LENGTH.pack(len(v)) + v for v in tensor.data.ravel().tolist())
    return tensor.data.astype(_ON_THE_WIRE[tensor.datatype], copy=False).tobytes()


def to_list(tensor: Tensor) -> list[Any]:
    """Return a tensor as a flat JSON list."""
    values: list[Any] = tensor.data.ravel().tolist()
    return [v.decode() for v in values] if tensor.datatype == "BYTES" else values


def objects(values: list[Any]) -> npt.NDArray[Any]:
    """Return values as an array of objects, which numpy would otherwise make strings of one length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def refuse_another_size(name: str, found: int, size: int) -> None:
    """Raise `InvalidInput` if a tensor has another number of values than its shape."""
    if found != size:
        raise InvalidInput(f"tensor {name!r} has {found} values; its shape needs {size}")


def column(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as a column: [N, 1] is taken as [N] (clients that batch add the axis), BYTES as strings."""
    data = tensor.data.reshape(-1) if tensor.data.ndim == 2 and tensor.data.shape[1] == 1 else tensor.data
    if tensor.datatype != "BYTES":
        return data
    try:
        return objects([v.decode() for v in data.ravel().tolist()]).reshape(data.shape)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"tensor {tensor.name!r} contains bytes that are not UTF-8: {error}") from None


def _size(name: str, datatype: str, shape: list[int]) -> int:
    if datatype != "BYTES" and datatype not in _DTYPES:
        raise InvalidInput(f"tensor {name!r} has datatype {short(datatype)}; expected one of {', '.join([*_DTYPES, 'BYTES'])}")
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        raise InvalidInput(f"tensor {name!r} has shape {short(shape)}; expected a list of sizes of at least 0")
    # numpy multiplies the other axes even if one is 0.
    if len(shape) > MOST_AXES or math.prod(n or 1 for n in shape) > 2**31:
        raise InvalidInput(f"tensor {name!r} has shape {shape}; expected at most {MOST_AXES} axes and 2³¹ values")
    return math.prod(shape)


def _exactly(name: str, datatype: str, values: list[Any]) -> npt.NDArray[Any]:
    want = np.dtype(_DTYPES[datatype])
    # Checked before numpy, which would make every value as wide as the longest string and accept lists deeper than any shape.
    kinds = set(map(type, values))
    if kinds - {bool, int, float}:
        odd = next(v for v in values if not isinstance(v, int | float))
        said = f"lists nested over {MOST_AXES} deep" if isinstance(odd, list) else f"{kind(odd)} among its values"
        raise InvalidInput(f"tensor {name!r} has {said}; expected {datatype}")
    if want.kind in "iu":
        limits = np.iinfo(want)
        if not values or (kinds == {int} and limits.min <= min(values) and max(values) <= limits.max):
            return np.array(values, want)
        good = [type(v) is int and limits.min <= v <= limits.max for v in values]
        at, larger = good.index(False), " (send a larger id as BYTES)" if want.itemsize == 8 else ""
        expected = f"{datatype}, an integer from {limits.min} to {limits.max}{larger}"
        raise InvalidInput(f"tensor {name!r} has {values[at]!r} as element {at}; expected {expected}")
    try:
        array = np.array(values)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"tensor {name!r} has data that is not {datatype}: {error}") from None
    if array.size and array.dtype.kind not in ("b" if want.kind == "b" else "iuf"):
        raise InvalidInput(f"tensor {name!r} has values of {array.dtype}; expected {datatype}")
    with np.errstate(over="ignore"):  # a value that is too large becomes infinite, and the column rejects it with its row
        return array.astype(want)


def _encoded(name: str, values: list[Any]) -> npt.NDArray[Any]:
    for i, v in enumerate(values):
        if not isinstance(v, str | bytes):
            raise InvalidInput(f"tensor {name!r} has {kind(v)} as element {i}; BYTES are strings")
    try:
        return objects([v.encode() if isinstance(v, str) else v for v in values])
    except UnicodeEncodeError as error:
        raise InvalidInput(f"tensor {name!r} has text that is not UTF-8: {error}") from None


def _flat(name: str, data: Any, size: int) -> list[Any]:
    """Return the `size` values of nested lists, flattened one axis at a time up to the largest number of axes."""
    if not isinstance(data, list):
        raise InvalidInput(f"tensor {name!r} has data that is {kind(data)}; expected a list")
    for _ in range(MOST_AXES):
        if not data or not isinstance(data[0], list):
            break
        if not all(isinstance(part, list) for part in data):
            raise InvalidInput(f"tensor {name!r} mixes lists and values on one level; expected one or the other")
        data = list(chain.from_iterable(data))
    refuse_another_size(name, len(data), size)
    return data


def _strings(name: str, size: int, raw: bytes) -> npt.NDArray[Any]:
    values: list[bytes] = []
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise InvalidInput(f"tensor {name!r} ends inside the length of element {len(values)}")
        if len(values) == size:
            raise InvalidInput(f"tensor {name!r} has more than {size} elements, which its shape needs")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            raise InvalidInput(f"tensor {name!r}: element {len(values)} has {length} bytes, but only {len(raw) - at} are left")
        values.append(raw[at : at + length])
        at += length
    if len(values) != size:
        raise InvalidInput(f"tensor {name!r} has {len(values)} elements; its shape needs {size}")
    return objects(values)
