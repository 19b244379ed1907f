"""Inspection: every tensor of a model, with how it can be used and what to write, or why it cannot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.losses import LOG_LOSS, Loss, registered
from riverdelta.graph.axes import column_of, is_batch, type_of
from riverdelta.graph.features import read
from riverdelta.graph.heads import Outputs
from riverdelta.graph.link import PREDICTION, RAW, Link
from riverdelta.graph.meaning import Evidence
from riverdelta.graph.probe import MOST_BYTES, Probe
from riverdelta.graph.reading import files_of, read_model
from riverdelta.graph.runtime import open_session
from riverdelta.graph.shares import evidence_of
from riverdelta.graph.signature import Signature, input_of, inputs_of
from riverdelta.graph.taps import settled, tappable

_COLUMNS = {"id": "id column", "scalar": "number column", "vector": "vector column", "tensor": "base only"}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a graph: its name, its type with the batch axis as N, the operator that makes it, and its use.

    `place` is `input`, `output` or `inner`; `write` is what to write in `@online` to use it, and `why` says what the graph
    proves or why it cannot be used.
    """

    name: str
    type: str
    producer: str
    place: str
    use: str
    write: str | None = None
    why: str | None = None


def list_tensors(path: str | Path) -> list[Tensor]:
    """Return every tensor of a model in graph order: inputs first, then each node's outputs; raises `ModelError`.

    An output has its use in the first task that corrects it.
    """
    path = Path(path)
    model, shapes = read_model(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    final = {value.name for value in model.graph.output}
    made = [_input(path, model, value) for value in model.graph.input if value.name not in stored]
    inputs = Schema() if any(tensor.use == "-" for tensor in made) else inputs_of(path, model)
    outputs, probe = [Outputs(path, model, shapes, loss) for loss in registered()], Probe(path, model, inputs, shapes)
    if inputs:
        shapes = settled(path, model, shapes, [name for node in model.graph.node for name in node.output])
    for node in model.graph.node:
        for name in filter(None, node.output):
            value, place = shapes.get(name), "output" if name in final else "inner"
            tap, word = tappable(model, value), "_".join(re.findall(r"[^\W_]+", name)).lower() or "tap"
            use, line = ("tap", f"taps={{'{word}': {name!r}}}") if tap else ("-", None)
            why = None if tap else _untappable(model, value)
            if place == "output":
                use, line, why = next(
                    filter(None, (_use(one, name, probe) for one in outputs)), (use, line, _refusal(outputs[0], name))
                )
            made.append(Tensor(name, _type(model, value), node.op_type, place, use, line, why))
    return made


def declarations(path: str | Path) -> dict[str, str | ConfigurationError]:
    """Return, for each task, the code of a service that serves a model as it is and learns, or why there is none."""
    made = dict[str, str | ConfigurationError]()
    for loss in registered():
        try:
            made[loss.task] = declaration(path, loss)
        except ConfigurationError as error:
            made[loss.task] = error
    return made


def declaration(path: str | Path, loss: Loss = LOG_LOSS) -> str:
    """Return the code of a service that serves a model as it is and learns; raises `ModelError` if it cannot say how.

    It learns by the first id among the inputs, or without one by all of them that corrections can read. A model of up to
    256 MiB is opened, so that one which this machine cannot run is refused.

    The code runs as it is in a file beside which `path` leads to the model.
    """
    signature = Signature.read(path, loss=loss)
    if sum(file.stat().st_size for file in files_of(signature.path, signature.model)) <= MOST_BYTES:
        open_session(signature.path)
    features = {name: read(column).column for name, column in signature.inputs.items()}
    ids = [name for name, column in features.items() if column.kind == "id" and signature.inputs[name].numpy.kind in "iu"]
    learned = ids[:1] or [name for name, column in features.items() if column.kind != "tensor"]
    window = "  # at the start: export RIVERDELTA_WINDOW_SECONDS=3600" if loss.lists else ""
    task = [] if loss is LOG_LOSS else [f"task={_quoted(loss.task)},{window}"]
    lines = [f"base={_quoted(str(path))},", *task, f"output={_quoted(signature.output)},"]
    if not (signature.proved or (link := Link(loss)).always_raw):
        lines.append(f"link={_quoted(link.name(PREDICTION if signature.predicts else RAW))},")
    for name, column in signature.inputs.items():
        if len(column.shape) == 1 and (width := column.shape[0]) and width > 1:
            why = f"name its {width} columns as the base was fitted, to send and correct each"
            lines.append(f'# names={{{_quoted(name)}: ["age", ...]}},  # {why}')
    names = ["Calibration", *(["Linear"] if learned else [])]
    linear = f", Linear({', '.join(map(_quoted, learned))})" if learned else ""
    lines.append(f"corrections=[Calibration(){linear}],")
    body = "\n".join(f"    {line}" for line in lines)
    imports = f"import bentoml\nfrom riverdelta import {', '.join(names)}, online"
    return f"{imports}\n\n\n@bentoml.service\n@online(\n{body}\n)\nclass Scorer: ..."


def _quoted(text: str) -> str:
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'


def _input(path: Path, model: ModelProto, value: ValueInfoProto) -> Tensor:
    kind = _type(model, value)
    try:
        column = input_of(path, model, value)
    except ConfigurationError as error:
        return Tensor(value.name, kind, "input", "input", "-", None, str(error).removeprefix(f"{path.name}: "))
    feature, line = read(column), None
    why = "corrections cannot read it" if feature.column.kind == "tensor" else None
    if len(column.shape) == 1 and (width := column.shape[0]) and width > 1:
        line = f"names={{{value.name!r}: {[f'{value.name}_{at}' for at in range(1, width + 1)]}}}"
        why = f"{why + '; ' if why else ''}with names, each part is a column"
    return Tensor(value.name, kind, "input", "input", _COLUMNS[feature.column.kind], line, why)


def _use(outputs: Outputs, name: str, probe: Probe) -> tuple[str, str, str] | None:
    """Return how a task uses an output, the line to write, and why; None if it does not, or asks although another would not."""
    try:
        named, head = outputs.find(name)
        evidence = evidence_of(named, head, outputs.resolved(head), probe)
        found = _meaning(evidence)
    except ConfigurationError:
        return None
    first = outputs.loss is registered()[0]
    if evidence.found is None and (evidence.task or not first):
        return None
    return found if first else (found[0], f'task="{outputs.loss.task}", {found[1]}', found[2])


def _refusal(outputs: Outputs, name: str) -> str:
    """Return why a task does not use an output."""
    try:
        outputs.find(name)
    except ConfigurationError as error:
        return (
            str(error).removeprefix(f"{outputs.path.name}: ") if name in outputs.candidates() else "not floats, so not a score"
        )
    return "not a score"


def _meaning(evidence: Evidence) -> tuple[str, str, str]:
    """Return an output's use, the line to write, and why."""
    link, found = evidence.link, evidence.found
    lines = {word: link.line(evidence.output, word) for word in (RAW, PREDICTION)}
    if found is None:
        why = f"{evidence.seen}, {f'as in the task {evidence.task}, ' if evidence.task else ''}so say which it is"
        return f"{link.raw} or {link.prediction}", " or ".join(lines.values()), why
    return link.word(found), lines[found], f"{'' if found == RAW else 'proved: '}it {evidence.seen}"


def _untappable(model: ModelProto, value: ValueInfoProto | None) -> str:
    if value is None or not value.type.tensor_type.elem_type:
        return "of unknown type"
    if not is_batch(model, value):
        return f"its first axis is {value.type.tensor_type.shape.dim[0].dim_param}, not the batch axis"
    if (column := column_of(model, value)) is None:
        return "no batch axis"
    return f"{1 + len(column.shape)} axes" if column.dtype != "string" else "a tap cannot be a string"


def _type(model: ModelProto, value: ValueInfoProto | None) -> str:
    if value is None or (column := column_of(model, value)) is None:
        return type_of(value)
    axes = [str(d.dim_value or d.dim_param or "?") for d in value.type.tensor_type.shape.dim[1:]]
    return f"{column.dtype}[{', '.join(['N', *axes])}]"
