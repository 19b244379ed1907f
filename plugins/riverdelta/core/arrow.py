"""Arrow: numpy arrays as Arrow arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


def to_arrow(array: Array) -> pa.Array:
    """Return an array of numbers, booleans or strings as Arrow stores it."""
    # From buffers: the general conversion imports pandas, which takes half a second.
    values = np.ascontiguousarray(array).reshape(-1)
    if array.dtype == object:
        texts = [text.encode() for text in values.tolist()]
        kind, buffers = pa.large_string(), [np.cumsum([0, *map(len, texts)], dtype=np.int64), b"".join(texts)]
    else:
        # A bool is stored as uint8, so a uint8 is stored as an untyped byte.
        special = {np.dtype(np.uint8): pa.binary(1), np.dtype(np.bool_): pa.uint8()}
        kind, buffers = special.get(array.dtype) or pa.from_numpy_dtype(array.dtype), [values]
    made = pa.Array.from_buffers(kind, len(values), [None, *map(pa.py_buffer, buffers)])
    for axis in range(array.ndim - 1, 0, -1):
        shape = pa.list_(made.type, array.shape[axis])
        made = pa.Array.from_buffers(shape, int(np.prod(array.shape[:axis])), [None], children=[made])
    return made


def from_arrow(array: pa.Array) -> Array:
    """Return what `to_arrow` was given, as a view if it has no strings; raises `ValueError` or `TypeError`."""
    if pa.types.is_fixed_size_list(array.type):
        inner = from_arrow(array.flatten())
        return inner.reshape(len(array), array.type.list_size, *inner.shape[1:])
    if array.type == pa.binary(1):
        return np.frombuffer(array.buffers()[1], np.uint8, len(array), array.offset)
    if array.type == pa.large_string():
        texts = np.empty(len(array), object)
        texts[:] = array.to_pylist()
        if array.null_count:
            raise ValueError("a string is null")
        return texts
    values: Array = array.to_numpy(zero_copy_only=True)
    if values.dtype == np.uint8:
        if values.max(initial=0) > 1:
            raise ValueError(f"a boolean is {values.max()}; expected 0 or 1")
        return values.view(np.bool_)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"an array is {values.dtype}; expected numbers")
    return values
