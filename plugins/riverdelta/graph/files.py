"""Files: merged models beside the shared weights, and one self-contained file for anyone else."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from riverdelta.errors import Unsupported
from riverdelta.graph.signature import Signature
from riverdelta.graph.weights import write_weights

_LIMIT = 2**31 - 1


def save(model: onnx.ModelProto, signature: Signature, path: Path) -> Path:
    """Write a merged model and, once, the base's weights beside it; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(signature, path.parent)
    return _write(path, model)


def export_single(merged: Path, out: Path) -> Path:
    """Write the merged model at `merged` as one self-contained file, its weights inside.

    Raises `Unsupported` when it would pass protobuf's limit of 2 GiB.
    """
    size = merged.stat().st_size + sum(f.stat().st_size for f in merged.parent.glob("base-*.bin"))
    if size > _LIMIT:
        raise Unsupported(
            f"{merged.name} with its weights has {size} bytes; one ONNX file holds at most {_LIMIT}: copy both files"
        )
    return _write(out, onnx.load(merged))


def _write(path: Path, model: onnx.ModelProto) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(model.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
