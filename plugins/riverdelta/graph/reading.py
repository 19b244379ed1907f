"""Reading: a model file as it is on disk, with the checks that make it safe to use."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, external_data_helper, helper, shape_inference

from riverdelta.core.errors import ModelError
from riverdelta.graph.measured import completed, operators_of
from riverdelta.graph.names import reads
from riverdelta.graph.runtime import SMALLEST, VERSION, extensions, open_session

_LARGE = 1 << 16


def read_model(path: Path) -> tuple[onnx.ModelProto, dict[str, ValueInfoProto]]:
    """Return a model file's structure, its external data left on disk, and the type of every tensor; raises `ModelError`."""
    model = _load(path)
    _free_axes(model)
    _sort(model.graph)
    _name_opsets_once(model)
    _check_versions(path, model)
    _check_extensions(path, model)
    check_external(path, model)
    structure = _structure(path, model)
    _check_structure(path, structure)
    return model, completed(path, model, lambda measured: _shapes(path, structure, measured))


def external_tensors(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, external_data_helper.ExternalDataInfo]]:
    """Yield every tensor whose bytes are outside the model file, with their location."""
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            yield tensor, external_data_helper.ExternalDataInfo(tensor)


def check_external(path: Path, model: onnx.ModelProto) -> None:
    """Raise `ModelError` naming the tensor, if external data is missing, too short or outside the model's folder."""
    try:
        outside = [(tensor, info, (path.parent / info.location).resolve()) for tensor, info in external_tensors(model)]
    except (ValueError, OSError) as error:  # an offset that is not a number, or an impossible file name
        raise ModelError(f"{path.name} has an invalid reference to external data: {error}") from None
    for tensor, info, data in outside:
        if not data.is_relative_to(path.parent.resolve()):
            raise ModelError(
                f"{path.name}: the weights of {tensor.name!r} are in {info.location!r}, outside the model's folder"
            )
        if not data.is_file():
            raise ModelError(f"{path.name}: the weights of {tensor.name!r} are in {data}, which is missing; copy that file too")
        start, size = info.offset or 0, _size(path, tensor) if info.length is None else info.length
        if start < 0 or size < 0:
            raise ModelError(f"{path.name}: {tensor.name!r} has {size} bytes from byte {start} of {data.name}; it is damaged")
        if data.stat().st_size < (need := start + size):
            raise ModelError(f"{path.name}: {data.name} has {data.stat().st_size} bytes and {tensor.name!r} ends at {need}")


def files_of(path: Path, model: onnx.ModelProto) -> list[Path]:
    """Return the files of a model: its own, then those of its external data."""
    return [path, *(path.parent / location for location in sorted({info.location for _, info in external_tensors(model)}))]


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of a model's default operator set, or 0 if it has none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}; base= takes the path of an ONNX model") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; base= takes the path of an ONNX file") from None
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path} is not an ONNX model, or it is truncated ({path.stat().st_size} bytes): {error}") from None
    if not model.graph.node or not model.ir_version:
        raise ModelError(f"{path} holds no graph ({path.stat().st_size} bytes); expected an ONNX model")
    graph = model.graph
    names = [value.name for values in (graph.input, graph.output, graph.initializer, graph.node) for value in values]
    for name in (*names, *(tensor for node in graph.node for tensor in (*node.input, *node.output))):
        if isinstance(name, bytes):  # what protobuf returns for text that is not UTF-8
            raise ModelError(f"{path} is not an ONNX model, or it is damaged: the name {name!r} is not text")
    return model


def _free_axes(model: onnx.ModelProto) -> None:
    """Leave the length of axes open that some exporters write as -1 or 0; ONNX Runtime would take it literally."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type"):
            for dim in value.type.tensor_type.shape.dim:
                if dim.HasField("dim_value") and dim.dim_value <= 0:
                    dim.Clear()


def _name_opsets_once(model: onnx.ModelProto) -> None:
    """Drop what some exporters write twice; a conversion to a newer opset would change one of the two."""
    versions: dict[str, int] = {}
    for one in model.opset_import:
        domain = "" if one.domain == "ai.onnx" else one.domain
        versions[domain] = max(one.version, versions.get(domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())


def _sort(graph: GraphProto) -> None:
    """Put nodes after those whose outputs they read: ONNX asks for it, and some tools that ONNX Runtime accepts do not."""
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    needs = {at: {makers[name] for name in reads(node) if name in makers} for at, node in enumerate(graph.node)}
    if all(before < at for at, earlier in needs.items() for before in earlier):
        return
    try:
        order = [*TopologicalSorter(needs).static_order()]
    except CycleError:  # the check of the structure says so
        return
    nodes = [NodeProto.FromString(graph.node[at].SerializeToString()) for at in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _check_versions(path: Path, model: onnx.ModelProto) -> None:
    """Raise `ModelError` naming the base, if its IR version or an opset is newer than ONNX Runtime supports."""
    smallest = onnx.ModelProto.FromString(SMALLEST)
    smallest.ir_version = model.ir_version
    for one in model.opset_import:
        if one.domain in ("", "ai.onnx"):
            smallest.opset_import[0].version = one.version
        else:
            smallest.opset_import.append(one)
    try:
        open_session(smallest.SerializeToString(), ("CPUExecutionProvider",))
    except ModelError as error:
        here = f"ONNX Runtime {VERSION} supports up to"
        if found := re.search(r"domain (\S+) is till opset (\d+)", str(error)):
            domain, most = found.groups()
            how = f"opset_version={most} (torch.onnx.export)"
            if domain != "ai.onnx":
                how = f"target_opset={{{domain!r}: {most}}} (skl2onnx: to_onnx)"
            version = max(o.version for o in model.opset_import if (o.domain or "ai.onnx") == domain)
            raise ModelError(
                f"{path.name} has opset {version} of {domain}; {here} {most}: export it again with {how}, or install a newer "
                f"ONNX Runtime"
            ) from None
        if found := re.search(r"max supported IR version: (\d+)", str(error)):
            raise ModelError(
                f"{path.name} has IR version {model.ir_version}; {here} {found[1]}: write model = onnx.load({path.name!r}); "
                f"model.ir_version = {found[1]}; onnx.save(model, {path.name!r}), or install a newer ONNX Runtime"
            ) from None


def _check_extensions(path: Path, model: onnx.ModelProto) -> None:
    """Raise `ModelError` naming the operators of onnxruntime-extensions, if there are any and it is not installed."""
    if found := {node.op_type for graph in (model.graph, *model.functions) for node in operators_of(graph.node)}:
        try:
            extensions()
        except ModelError as error:
            raise ModelError(f"{path.name} has the operators {', '.join(sorted(found))}: {error}") from None


def _size(path: Path, tensor: TensorProto) -> int:
    """Return the bytes of a tensor by its type and shape; Python's integers do not overflow."""
    if min(tensor.dims, default=0) < 0 or tensor.data_type not in helper.get_all_tensor_dtypes():
        raise ModelError(
            f"{path.name}: {tensor.name!r} has type {tensor.data_type} and shape {list(tensor.dims)}; it is damaged"
        )
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _structure(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without the bytes of large weights: a check of them would take seconds at every start."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if len(tensor.raw_data) >= _LARGE and len(tensor.raw_data) == _size(path, tensor):
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    return made


def _check_structure(path: Path, model: onnx.ModelProto) -> None:
    structure = onnx.ModelProto()
    structure.CopyFrom(model)
    for tensor, _ in list(external_tensors(structure)):
        # Checked above; the checker would look for it in the working directory.
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.dims[:] = [0]
    try:
        onnx.checker.check_model(structure)
    except (
        onnx.checker.ValidationError,
        ValueError,
    ) as error:  # a message that quotes bytes that are not UTF-8 is a ValueError
        raise ModelError(f"{path.name} is not a valid ONNX model: {' '.join(str(error).split())}") from None


def _shapes(path: Path, model: onnx.ModelProto, measured: Iterable[ValueInfoProto]) -> dict[str, ValueInfoProto]:
    model.graph.value_info.extend(measured)
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"{path.name} is not consistent: {error}") from None
    return {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
