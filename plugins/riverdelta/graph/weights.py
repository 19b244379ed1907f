"""Weights: the base's tensors in one file that every release shares and nobody overwrites."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from riverdelta.errors import Unsupported
from riverdelta.graph.signature import Signature, external_tensors

#: Tensors under this size stay in the model file.
_INLINE_BYTES = 1024
_ALIGNMENT = 4096


def weights_name(signature: Signature) -> str:
    """Return the bare file name of the shared weights."""
    return f"base-{signature.digest[:16]}.bin"


def write_weights(signature: Signature, folder: Path) -> None:
    """Write the base's large tensors to `folder`/base-<digest>.bin, unless that file is there already."""
    path = folder / weights_name(signature)
    if path.exists():
        return
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for tensor in _large(signature.model):
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                file.write(_bytes(signature.path.parent, tensor))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def refer_to_weights(signature: Signature, model: onnx.ModelProto) -> None:
    """Point the large tensors of `model`, a copy of the base, at the shared file."""
    large = {id(t) for t in _large(model)}
    for tensor, _ in external_tensors(model):
        if id(tensor) not in large and tensor.name not in {t.name for t in model.graph.initializer}:
            raise Unsupported(f"{signature.path.name}: {tensor.name!r} is external and inside a node; make it an initializer")
    offset = 0
    for tensor in _large(model):
        offset += -offset % _ALIGNMENT
        size = _size(tensor)
        tensor.ClearField("raw_data")
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.raw_data = b""
        external_data_helper.set_external_data(tensor, weights_name(signature), offset, size)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        offset += size


def _large(model: onnx.ModelProto) -> list[TensorProto]:
    return [
        t
        for t in model.graph.initializer
        if t.data_type != TensorProto.STRING and (external_data_helper.uses_external_data(t) or _size(t) >= _INLINE_BYTES)
    ]


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
