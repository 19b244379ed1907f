"""Signature: the inputs and the output of a base model, or the reason why it cannot be corrected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from riverdelta.core.digests import Identity, file_digest, identify
from riverdelta.core.errors import ModelError, Unsupported, near
from riverdelta.core.features import DTYPES, Column, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.graph.meaning import IDENTITY, Evidence
from riverdelta.graph.measured import OTHER_AXIS
from riverdelta.graph.probe import values_of
from riverdelta.graph.reading import files_of, read_model

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
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims[1:])
    return Column(value.name, "string" if dtype == "object" else dtype, shape, axes=tuple(d.dim_param for d in dims[1:]))


def is_batch(model: onnx.ModelProto, value: ValueInfoProto) -> bool:
    """Whether the first axis can be the batch axis: no input has an axis of that name elsewhere, such as a sequence."""
    dims = [i.type.tensor_type.shape.dim for i in model.graph.input]
    first, others = {axes[0].dim_param for axes in dims if axes}, {axis.dim_param for axes in dims for axis in axes[1:]}
    axes = value.type.tensor_type.shape.dim
    # Where every first axis is also another one, as in float[n, n], none can be told from the batch axis.
    if axes and axes[0].dim_param == OTHER_AXIS:
        return False
    return not axes or axes[0].dim_param not in others - {""} or not first - others


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
        raise Unsupported(f"{path.name}: input {value.name!r} has type {kind}; expected numbers or strings")
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
