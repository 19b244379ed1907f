"""Signature: the inputs and the output of a base model, or the reason why it cannot be corrected."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, ValueInfoProto, external_data_helper, helper, shape_inference

from riverdelta.core.digests import Identity, file_digest, identify
from riverdelta.core.errors import ModelError, Unsupported, near
from riverdelta.core.features import DTYPES, Column, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.graph.meaning import IDENTITY, Evidence
from riverdelta.graph.probe import values_of
from riverdelta.graph.runtime import SMALLEST, VERSION, open_session

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_HOW = "re-export it with a dynamic first axis (torch.onnx.export: dynamic_shapes={...: {0: 'batch'}})"


@dataclass(frozen=True)
class Signature:
    """A base model's structure, without its external weights, and what follows from it.

    `inputs` are the columns that it takes; `output` is corrected, and is a raw output of `loss` or, where `predicts`, a
    prediction; `shapes` has the inferred type of every tensor; `read_as` identifies the model file and its external data as
    they were read.
    """

    path: Path
    model: onnx.ModelProto
    inputs: Schema
    output: str
    predicts: bool
    loss: Loss
    shapes: dict[str, ValueInfoProto]
    read_as: tuple[Identity, ...]

    @classmethod
    def read(
        cls,
        path: str | Path,
        logit: str | None = None,
        probability: str | None = None,
        loss: Loss = LOG_LOSS,
        link: str | None = None,
    ) -> Signature:
        """Read a base model; raises `ModelError` or `Unsupported` with the reason and how to fix it.

        `logit` names an output that is raw, `probability` one that is a prediction. With neither, the only float output is
        taken, if the graph proves what it is or a few probed rows show it. `link` settles what cannot be proved: `identity` if
        the output is raw, the name of the raw output (`logit`) if it is a prediction.
        """
        path = Path(path)
        word = _word(path, logit, probability, link, loss)
        model, shapes = read_model(path)
        read_as, inputs = identify(*files_of(path, model)), inputs_of(path, model)
        if not inputs:
            raise ModelError(f"{path.name} has no inputs; a scorer takes at least one")
        output = output_of(path, model, shapes, logit or probability, loss)
        predicts = evidence_of(path, model, output, loss, inputs).predicts(word, link is not None)
        return cls(path, model, inputs, output, predicts, loss, shapes, read_as)

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of the model file and its external data, in hexadecimal; raises `ModelError` if they have changed."""
        digest = file_digest(*files_of(self.path, self.model))
        self.check_unchanged()
        return digest

    def check_unchanged(self) -> None:
        """Raise `ModelError` if the model file or its external data have changed since they were read."""
        if identify(*files_of(self.path, self.model)) != self.read_as:
            raise ModelError(f"{self.path} has changed since it was read; restart with the file that you want to serve")

    @property
    def batch(self) -> str:
        """The name of the batch axis."""
        first = next(i for i in self.model.graph.input if i.name in self.inputs)
        return first.type.tensor_type.shape.dim[0].dim_param or "batch"


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of a model's default operator set, or 0 if it has none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def read_model(path: Path) -> tuple[onnx.ModelProto, dict[str, ValueInfoProto]]:
    """Return a model file's structure, its external data left on disk, and the type of every tensor; raises `ModelError`."""
    model = _load(path)
    _free_axes(model)
    _check_versions(path, model)
    _check_external(path, model)
    _check_structure(path, model)
    return model, _shapes(path, model)


def external_tensors(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, external_data_helper.ExternalDataInfo]]:
    """Yield every tensor whose bytes are outside the model file, with their location."""
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            yield tensor, external_data_helper.ExternalDataInfo(tensor)


def column_of(value: ValueInfoProto) -> Column | None:
    """Return a tensor's type as a column with a dynamic first axis, or None if it is not such a column."""
    tensor = value.type.tensor_type
    dims = list(tensor.shape.dim)
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape") or not dims or dims[0].HasField("dim_value"):
        return None
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        return None
    return Column(value.name, dtype, tuple(d.dim_value if d.HasField("dim_value") else None for d in dims[1:]))


def is_batch(model: onnx.ModelProto, value: ValueInfoProto) -> bool:
    """Whether the first axis can be the batch axis: no input has an axis of that name elsewhere, such as a sequence."""
    dims = [i.type.tensor_type.shape.dim for i in model.graph.input]
    first, others = {axes[0].dim_param for axes in dims if axes}, {axis.dim_param for axes in dims for axis in axes[1:]}
    axes = value.type.tensor_type.shape.dim
    # Where every first axis is also another one, as in float[n, n], none can be told from the batch axis.
    return not axes or axes[0].dim_param not in others - {""} or not first - others


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


def _check_external(path: Path, model: onnx.ModelProto) -> None:
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


def _size(path: Path, tensor: TensorProto) -> int:
    """Return the bytes of a tensor by its type and shape; Python's integers do not overflow."""
    if min(tensor.dims, default=0) < 0 or tensor.data_type not in helper.get_all_tensor_dtypes():
        raise ModelError(
            f"{path.name}: {tensor.name!r} has type {tensor.data_type} and shape {list(tensor.dims)}; it is damaged"
        )
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


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


def _shapes(path: Path, model: onnx.ModelProto) -> dict[str, ValueInfoProto]:
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"{path.name} is not consistent: {error}") from None
    return {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}


def inputs_of(path: Path, model: onnx.ModelProto) -> Schema:
    """Return the inputs as columns, without those that are stored; raises as `input_of` does."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return Schema({value.name: input_of(path, model, value) for value in model.graph.input if value.name not in stored})


def evidence_of(path: Path, model: onnx.ModelProto, output: str, loss: Loss, inputs: Schema | None) -> Evidence:
    """Return what is known about an output; without `inputs` the model is not probed."""
    size = sum(file.stat().st_size for file in files_of(path, model))
    return Evidence(path, model, output, loss, lambda: values_of(path, model, inputs or Schema(), output, size))


def input_of(path: Path, model: onnx.ModelProto, value: ValueInfoProto) -> Column:
    """Return an input as a column; raises `ModelError` or `Unsupported` with the reason if its type or shape does not fit."""
    dims = value.type.tensor_type.shape.dim
    if not dims or dims[0].HasField("dim_value"):
        got = [d.dim_value or d.dim_param or "?" for d in dims]
        raise ModelError(f"{path.name}: input {value.name!r} has shape {got}, without a dynamic batch axis; {_HOW}")
    if not is_batch(model, value):
        raise ModelError(
            f"{path.name}: input {value.name!r} is {type_of(value)}, and {dims[0].dim_param!r} is not the batch axis: other "
            f"inputs have it elsewhere; give it the batch axis first, or a constant in the model"
        )
    column = column_of(value)
    if column is None or column.dtype not in DTYPES:
        kind = _kind(value.type.tensor_type.elem_type)
        raise Unsupported(f"{path.name}: input {value.name!r} has type {kind}; expected numbers (ids as int64)")
    return column


def output_of(path: Path, model: onnx.ModelProto, shapes: dict[str, ValueInfoProto], name: str | None, loss: Loss) -> str:
    """Return the name of the output to correct; raises `ModelError` or `Unsupported` if its type or shape does not fit."""
    outputs = {o.name: o for o in model.graph.output}
    floats = [n for n, o in outputs.items() if o.type.tensor_type.elem_type in _FLOATS]
    if name is None:
        if len(floats) != 1:
            listed = ", ".join(f"{n}: {type_of(o)}" for n, o in outputs.items())
            raise ModelError(f"{path.name} has {len(floats)} float outputs ({listed}); name one with logit= or probability=")
        name = floats[0]
    if name not in outputs:
        raise ModelError(f"{path.name} has no output {name!r}: {near(name, outputs)}")
    if name not in floats:
        kinds = f"a {loss.raw} or a prediction of it"
        raise ModelError(f"{path.name}: output {name!r} is {type_of(outputs[name])}; {kinds} is float32")
    dims = shapes[name].type.tensor_type.shape.dim
    if not shapes[name].type.tensor_type.HasField("shape"):
        raise ModelError(f"{path.name}: output {name!r} has no shape; {_HOW}")
    allowed = [[loss.outputs], []] if loss.outputs == 1 else [[loss.outputs]]
    if dims and [d.dim_value for d in dims[1:]] not in allowed:
        wanted = " or ".join(f"[{', '.join(['N', *map(str, one)])}]" for one in reversed(allowed))
        raise Unsupported(f"{path.name}: output {name!r} is {type_of(shapes[name])}; {loss} takes {wanted}")
    if not dims or dims[0].HasField("dim_value") or not is_batch(model, shapes[name]):
        raise ModelError(f"{path.name}: output {name!r} is {type_of(shapes[name])}, without a dynamic batch axis; {_HOW}")
    return name


def _word(path: Path, logit: str | None, probability: str | None, link: str | None, loss: Loss) -> str | None:
    """Return what the user says that the output is: `raw`, `prediction` or None."""
    if logit and probability:
        raise ModelError(f"{path.name}: logit={logit!r} and probability={probability!r}; name one output")
    links = {IDENTITY: "raw", loss.raw: "prediction"}
    if link is not None and link not in links:
        raise ModelError(
            f"{path.name}: link is {link!r}; write link={IDENTITY!r} if the output is a {loss.raw}, link={loss.raw!r} if it is "
            f"a prediction of it"
        )
    named = "raw" if logit else "prediction" if probability else None
    if link is not None and named not in (None, links[link]):
        given = f"logit={logit!r}" if logit else f"probability={probability!r}"
        right = next(one for one, word in links.items() if word == named)
        raise ModelError(f"{path.name}: {given} and link={link!r} contradict each other; write {given}, link={right!r}")
    return named if link is None else links[link]


def type_of(value: ValueInfoProto | None) -> str:
    """Return a tensor's type as text, such as `float[N, 8]`."""
    if value is None or not value.type.tensor_type.elem_type:
        return "of unknown type"
    tensor = value.type.tensor_type
    dims = ", ".join(str(d.dim_value or d.dim_param or "?") for d in tensor.shape.dim)
    return f"{_kind(tensor.elem_type).lower()}[{dims}]"


def _kind(number: int) -> str:
    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else f"UNKNOWN {number}"


def files_of(path: Path, model: onnx.ModelProto) -> list[Path]:
    """Return the files of a model: its own, then those of its external data."""
    return [path, *(path.parent / location for location in sorted({info.location for _, info in external_tensors(model)}))]
