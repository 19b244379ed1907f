"""Files: merged models beside their shared weights, and export for other runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import external_data_helper

from riverdelta.core.durable import atomic, write
from riverdelta.core.errors import Corrupt, Unsupported
from riverdelta.core.nodes import PREFIX
from riverdelta.graph.names import MOVED
from riverdelta.graph.reading import check_external, external_tensors
from riverdelta.graph.signature import Signature
from riverdelta.graph.trimming import freeze, trim
from riverdelta.graph.weights import write_weights

_LIMIT = 2**31 - 1
_OURS = "riverdelta."


def save(model: onnx.ModelProto, signature: Signature, path: Path) -> Path:
    """Write a merged model and, if not there yet, the base's weights beside it; the file appears in full or not at all."""
    write_weights(signature, path.parent)
    return _write(path, model)


def export(merged: Path, out: Path, alone: bool = False) -> list[Path]:
    """Write the merged model at `merged` for any runtime, its tables as constants, and return the files written.

    That is one self-contained file, or, beyond protobuf's limit of 2 GiB, `<out>.data` beside it with the base's weights; with
    `alone`, `Unsupported` is raised instead. Raises `Corrupt` if the model or its weights cannot be read.
    """
    with _readable(merged):
        model = onnx.load(merged, load_external_data=False)
        freeze(model.graph)
        trim(model.graph)
        outside = [*external_tensors(model)]
        size = model.ByteSize() + sum(info.length or 0 for _, info in outside)
        if size <= _LIMIT:
            external_data_helper.load_external_data_for_model(model, str(merged.parent))
            outside = []
    if not outside:
        return [_write(out, model)]
    if alone:
        raise Unsupported(
            f"{merged.name} with its weights has {size} bytes; one ONNX file holds at most {_LIMIT}: "
            f"`riverdelta export` writes two"
        )
    beside = out.with_name(f"{out.name}.data")
    with _readable(merged):
        check_external(merged, model)
        (location,) = {info.location for _, info in outside}
        weights = merged.with_name(location).open("rb")
    with weights, atomic(beside) as file:
        shutil.copyfileobj(weights, file)
    for tensor, _ in outside:
        next(entry for entry in tensor.external_data if entry.key == "location").value = beside.name
    return [_write(out, model), beside]


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


def provenance(merged: Path) -> dict[str, str]:
    """Return what `merge` noted in the model at `merged`: `base_digest`, and what a release adds; raises `Corrupt`."""
    with _readable(merged):
        properties = {p.key: p.value for p in onnx.load(merged, load_external_data=False).metadata_props}
        noted = {key.removeprefix(_OURS): value for key, value in properties.items() if key.startswith(_OURS)}
        return {"base_digest": noted.pop("base_digest"), **noted}


def origins(merged: Path | onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the tensor of the base from which each output of a merged model comes, and the operators between the two.

    The tensor has its name in the base, also if the merge has renamed it. Raises `Corrupt`.
    """
    with _readable(merged):
        graph = (onnx.load(merged, load_external_data=False) if isinstance(merged, Path) else merged).graph
        makers = {name: node for node in graph.node for name in node.output}
        found = {}
        for output in graph.output:
            name, steps = output.name, list[str]()
            while name in makers and makers[name].name.startswith(PREFIX):
                steps.append(makers[name].op_type)
                name = makers[name].input[0]
            found[output.name] = (name.removeprefix(MOVED), *reversed(steps))
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
