"""Weights: the base's large tensors, in one file that all releases share and that is never overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from riverdelta.core.durable import atomic
from riverdelta.core.errors import Corrupt
from riverdelta.graph.reading import external_tensors
from riverdelta.graph.signature import Signature

#: Smaller tensors stay in the model file.
_INLINE_BYTES = 1024
_ALIGNMENT = 4096
# Several elements share a byte: numpy cannot compute the size of such a tensor, so it stays in the model file.
_PACKED = tuple(
    getattr(TensorProto, name) for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2") if hasattr(TensorProto, name)
)


def weights_name(signature: Signature) -> str:
    """Return the file name of the shared weights."""
    return f"base-{signature.digest[:16]}.bin"


def write_weights(signature: Signature, folder: Path) -> None:
    """Write the base's large tensors to `folder`/base-<digest>.bin, unless that file is there already.

    Raises `Corrupt` if the existing file has another size.
    """
    path, places = folder / weights_name(signature), list(_places(signature.model))
    if not places:
        return
    if path.exists():
        if path.stat().st_size != (size := places[-1][1] + places[-1][2]):
            raise Corrupt(f"{path} has {path.stat().st_size} bytes; expected {size}: delete it, and it will be written again")
        return
    with atomic(path) as file:
        for tensor, offset, size in places:
            file.seek(offset)
            data = _bytes(signature.path.parent, tensor)
            if len(data) != size:
                raise Corrupt(f"{signature.path.name}: {tensor.name!r} has {len(data)} bytes; expected {size}")
            file.write(data)
        signature.check_unchanged()


def refer_to_weights(signature: Signature, model: onnx.ModelProto) -> None:
    """Replace the large tensors of `model`, a copy of the base, by references to the shared file."""
    for tensor, offset, size in list(_places(model)):
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.raw_data = b""
        external_data_helper.set_external_data(tensor, weights_name(signature), offset, size)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL


def _places(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, int, int]]:
    """Yield every shared tensor, with its offset and size in the file: the graph's own, then external ones within its nodes."""
    end, stored = 0, model.graph.initializer
    own = (tensor for tensor in stored if external_data_helper.uses_external_data(tensor) or _is_large(tensor))
    outside = (tensor for tensor, _ in external_tensors(model))
    for tensor in (*own, *(tensor for tensor in outside if not any(tensor is one for one in stored))):
        offset, size = end + -end % _ALIGNMENT, _size(tensor)
        yield tensor, offset, size
        end = offset + size


def _is_large(tensor: TensorProto) -> bool:
    return tensor.data_type not in (TensorProto.STRING, *_PACKED) and _size(tensor) >= _INLINE_BYTES


def _size(tensor: TensorProto) -> int:
    if external_data_helper.uses_external_data(tensor):
        fields = {entry.key: entry.value for entry in tensor.external_data}
        if fields.get("length"):
            return int(fields["length"])
    return int(np.prod(tensor.dims, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _bytes(folder: Path, tensor: TensorProto) -> bytes:
    if not external_data_helper.uses_external_data(tensor):
        return numpy_helper.to_array(tensor).tobytes()
    info = external_data_helper.ExternalDataInfo(tensor)
    with (folder / info.location).open("rb") as file:
        file.seek(info.offset or 0)
        return file.read(_size(tensor))
