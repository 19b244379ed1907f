"""Files: merged models beside their shared weights, and export to one self-contained file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from riverdelta.core.durable import write
from riverdelta.core.errors import Corrupt, Unsupported
from riverdelta.core.nodes import PREFIX
from riverdelta.graph.reading import external_tensors
from riverdelta.graph.signature import Signature
from riverdelta.graph.weights import write_weights

_LIMIT = 2**31 - 1
_OURS = "riverdelta."


def save(model: onnx.ModelProto, signature: Signature, path: Path) -> Path:
    """Write a merged model and, if not there yet, the base's weights beside it; the file appears in full or not at all."""
    write_weights(signature, path.parent)
    return _write(path, model)


def export_single(merged: Path, out: Path) -> Path:
    """Write the merged model at `merged` as one self-contained file, its weights inside.

    Raises `Unsupported` if it would exceed protobuf's limit of 2 GiB, and `Corrupt` if it or its weights cannot be read.
    """
    with _readable(merged):
        outside = external_tensors(onnx.load(merged, load_external_data=False))
        size = merged.stat().st_size + sum(info.length or 0 for _, info in outside)
    if size > _LIMIT:
        raise Unsupported(
            f"{merged.name} with its weights has {size} bytes; one ONNX file holds at most {_LIMIT}: copy both files"
        )
    with _readable(merged):
        model = onnx.load(merged)
    return _write(out, model)


def with_tables(merged: Path, tables: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, str]) -> bytes:
    """Return the model at `merged` with other values of its tables, and other properties; raises `Corrupt`."""
    with _readable(merged):
        model = onnx.load(merged, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.name in tables:
                tensor.CopyFrom(onnx.numpy_helper.from_array(tables[tensor.name], tensor.name))
        for each in model.metadata_props:
            each.value = facts.get(each.key.removeprefix(_OURS), each.value)
        return bytes(model.SerializeToString())


def base_digest(merged: Path) -> str:
    """Return the digest of the base model inside the merged model at `merged`; raises `Corrupt`."""
    return provenance(merged)["base_digest"]


def provenance(merged: Path) -> dict[str, str]:
    """Return what `merge` noted in the model at `merged`: `base_digest`, and what a release adds; raises `Corrupt`."""
    with _readable(merged):
        properties = {p.key: p.value for p in onnx.load(merged, load_external_data=False).metadata_props}
        noted = {key.removeprefix(_OURS): value for key, value in properties.items() if key.startswith(_OURS)}
        return {"base_digest": noted.pop("base_digest"), **noted}


def origins(merged: Path | onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the tensor of the base from which each output of a merged model comes, and the operators between the two.

    The tensor is identified by the place of its node, because a merge may rename it. Raises `Corrupt`.
    """
    with _readable(merged):
        graph = (onnx.load(merged, load_external_data=False) if isinstance(merged, Path) else merged).graph
        makers = {name: (f"{at}.{i}", node) for at, node in enumerate(graph.node) for i, name in enumerate(node.output)}
        found = {}
        for output in graph.output:
            name, steps = output.name, list[str]()
            while name in makers and makers[name][1].name.startswith(PREFIX):
                steps.append(makers[name][1].op_type)
                name = makers[name][1].input[0]
            found[output.name] = (makers[name][0] if name in makers else name, *reversed(steps))
        return found


@contextmanager
def _readable(merged: Path | onnx.ModelProto) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # protobuf's, onnx's and the file system's errors share no base class but Exception
        raise Corrupt(f"{merged} cannot be read with its weights: {error}") from error


def _write(path: Path, model: onnx.ModelProto) -> Path:
    write(path, model.SerializeToString())
    return path
