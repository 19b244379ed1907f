"""The models of the Open Inference Protocol v2, for its REST and gRPC transports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from itertools import repeat
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.bento.access import FEEDBACK, SCORE
from riverdelta.bento.guard import visit
from riverdelta.bento.runtime import Runtime
from riverdelta.core.errors import InvalidInput, NotFound, near, short, too_many_rows
from riverdelta.core.nodes import GROUP
from riverdelta.core.strict import unknown
from riverdelta.graph.taps import BOUNDS
from riverdelta.serving.oip.messages import STAGES
from riverdelta.serving.oip.tensors import MOST_AXES, Tensor, column, datatype_of, objects, values
from riverdelta.storage.journal.names import RowName, named

Metadata = dict[str, Any]
#: The name, datatype and shape of an input.
Shaped = tuple[str, str, Sequence[int]]
_FEEDBACK = "-feedback"
_EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics"]


class Oip:
    """Two models: the scorer, and `<scorer>-feedback`, whose inference records feedback; an axis of any length is -1."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        name, schema = runtime.definition.name, runtime.definition.request_schema
        inputs = [
            _tensor(c.name, datatype_of(c.dtype), *(-1 if n is None else n for n in c.shape))
            for c in schema.values()
            if c.name not in schema.optional
        ]
        self._loss = loss = runtime.definition.loss
        row = [loss.outputs] if loss.outputs > 1 else []
        self._base = f"base_{loss.raw}"
        self._naming = [tensor for tensor in (_tensor("request_id", "BYTES", rows=1), _ROW_IDS) if tensor["name"] not in schema]
        scored = [_tensor("score", "FP32", *row), _tensor(self._base, "FP32", *row), _IMPRESSIONS, _STATE]
        taken = [_tensor("id", "BYTES"), _tensor("label", "BYTES" if loss.classes else "FP32"), *_TAKEN]
        taken += _OF_LISTS if loss.lists else []
        if loss.classes:
            scored.insert(1, _tensor("label", "BYTES"))
        if runtime.definition.interval is not None:
            scored += [_tensor(name, "FP32") for name in BOUNDS]
        self._models = {m["name"]: m for m in (_model(name, inputs, scored), _model(name + _FEEDBACK, taken, _TOOK))}
        self._times = [_tensor(name, datatype_of(schema[name].dtype)) for name in sorted(schema.optional)]
        #: The tensors that a request may have instead of an input: the named parts of one.
        parts = [part for listed in schema.names.values() for part in listed.values()]
        self._parts = [_tensor(part.name, datatype_of(part.dtype)) for part in parts]

    def server(self) -> dict[str, Any]:
        """Return the server's metadata."""
        return {"name": "riverdelta", "version": version("riverdelta"), "extensions": _EXTENSIONS}

    def endpoint(self, name: str) -> str:
        """Return the metric label of an inference of the model `name`: `score` or `feedback`."""
        return "feedback" if name == self.runtime.definition.name + _FEEDBACK else "score"

    def permit(self, name: str, number: str = "") -> Metadata:
        """Set the metric label of the request, and return the model's metadata.

        Raises `Forbidden` if the caller may not run the model `name`, and `NotFound` as `model`.
        """
        visit().endpoint = self.endpoint(name)
        roles = FEEDBACK if visit().endpoint == "feedback" else SCORE
        visit().caller.need(roles, f"an inference of the model {short(name)}")
        return self.model(name, number)

    def model(self, name: str, number: str = "") -> Metadata:
        """Return a model's metadata; raises `NotFound` naming the models that exist."""
        if number not in ("", "1"):
            raise NotFound(f"model {short(name)} has no version {short(number)}; the only version is 1")
        if name not in self._models:
            raise NotFound(f"there is no model {short(name)}: {near(name, self._models)}")
        return self._models[name]

    def index(self, only_ready: bool = False) -> list[Metadata]:
        """Return the models in the format of Triton's repository index; with `only_ready`, those that take requests."""
        ready = self.runtime.ready
        state = {"state": "READY" if ready else "UNAVAILABLE", "reason": "" if ready else "the scorer is starting or stopping"}
        return [{"name": name, "version": "1", **state} for name in self._models if ready or not only_ready]

    def config(self, name: str, number: str = "") -> Metadata:
        """Return a model's configuration in Triton's format; raises `NotFound` as `model`.

        `max_batch_size` is 0: the axis of rows is the first of `dims`, and requests are not batched.
        """
        found = self.model(name, number)
        inputs, outputs = ([_configured(tensor) for tensor in found[kind]] for kind in ("inputs", "outputs"))
        made = {"name": name, "platform": found["platform"], "max_batch_size": 0, "input": inputs, "output": outputs}
        return made | {"backend": "onnxruntime"}

    def statistics(self, name: str = "", number: str = "") -> Metadata:
        """Return the statistics of a model of this worker, or of all, in Triton's format; raises `NotFound` as `model`.

        A batch is not measured by its size, and the time of failures is not measured.
        """
        names = [self.model(name, number)["name"]] if name else list(self._models)
        return {"model_stats": [self._measured(one) for one in names]}

    def _measured(self, name: str) -> Metadata:
        figures = self.runtime.plane.metrics.figures(self.endpoint(name))
        spent = {stage: figures.spent.get(stage, (0, 0.0)) for stage in STAGES}
        return {
            "name": name,
            "version": "1",
            "last_inference": round(1e3 * figures.last),
            "inference_count": figures.rows,
            "execution_count": spent["compute_infer"][0],
            "inference_stats": {stage: {"count": n, "ns": round(1e9 * seconds)} for stage, (n, seconds) in spent.items()},
            "batch_stats": [],
        }

    def _optional(self, name: str) -> list[Metadata]:
        """Return the inputs of a model that are not among its metadata, because clients may omit them.

        A column of the scorer that has such a name is that column.
        """
        return _NAMING if self.endpoint(name) == "feedback" else [*self._naming, *self._times]

    def expect(self, metadata: Metadata, inputs: Sequence[Shaped]) -> None:
        """Check the names, datatypes and shapes of a model's inputs before their data are read.

        Raises `InvalidInput` for a name that is unknown or given twice, and `TooLarge` for more rows than a request may have.
        """
        parts = self._parts if self.endpoint(metadata["name"]) == "score" else []
        taken = [*metadata["inputs"], *self._optional(metadata["name"]), *parts]
        known = {tensor["name"]: tensor for tensor in taken}
        rows, seen = self.runtime.sizes.rows, set[str]()
        for given, datatype, shape in inputs:
            if given == GROUP and self._loss.lists and given not in known:
                raise InvalidInput(
                    f"input {given!r} is for runs of the merged model; a request is one list: send one request for each list"
                )
            if given not in known:
                raise unknown(given, known, "the request (inputs)")
            if given in seen:
                raise InvalidInput(f"input {given!r} is given twice")
            seen.add(given)
            hashed = datatype == "BYTES" != known[given]["datatype"]
            row = [1] if hashed else known[given]["shape"][1:]
            if len(shape) > MOST_AXES:
                raise InvalidInput(f"input {given!r} has {len(shape)} axes; expected at most {MOST_AXES}")
            if list(shape[:1]) > [rows] or (-1 not in row and math.prod(shape) > rows * math.prod(row)):
                raise too_many_rows(f"input {given!r} has shape {list(shape)}", rows)

    async def infer(
        self, transport: str, metadata: Metadata, inputs: Sequence[Tensor], wanted: Sequence[str], size: int
    ) -> list[Tensor]:
        """Score, or record feedback, with a body of `size` bytes; return the `wanted` outputs, or all if none is named.

        `metadata` are those of a model that the caller may run, as `permit` returns them.
        """
        name, given = metadata["name"], {tensor.name: tensor for tensor in inputs}
        known = [o["name"] for o in metadata["outputs"]]
        for output in wanted:
            if output not in known:
                raise InvalidInput(f"model {name!r} has no output {short(output)}: {near(output, known)}")
            if wanted.count(output) > 1:
                raise InvalidInput(f"output {output!r} is requested twice")
        act = self._feedback if self.endpoint(name) == "feedback" else self._score
        made = await act(transport, given, size)
        return [tensor for tensor in made if not wanted or tensor.name in wanted]

    async def _score(self, transport: str, given: dict[str, Tensor], size: int) -> list[Tensor]:
        columns = await self.runtime.read(size, _values, given)
        optional = {tensor["name"] for tensor in self._naming}
        request_id, row_ids = (
            columns.pop(name).reshape(-1) if name in optional & {*columns} else None for name in ("request_id", "row_ids")
        )
        if request_id is not None and request_id.shape != (1,):
            raise InvalidInput(f"input 'request_id' has shape {list(request_id.shape)}; expected BYTES[1]")
        visit().rows(columns)
        names = [None if values is None else values.tolist() for values in (request_id, row_ids)]
        answer = await self.runtime.score(columns, None, transport, size, names[0] and names[0][0], names[1])
        scored = perf_counter()
        made = [
            Tensor("score", "FP32", answer.scores),
            Tensor(self._base, "FP32", answer.base),
            Tensor("impressions", "BYTES", _bytes([answer.impressions])),
            Tensor("state", "BYTES", _bytes([str(answer.state)])),
        ]
        if answer.labels is not None:
            made.insert(1, Tensor("label", "BYTES", _bytes(["" if one is None else str(one) for one in answer.labels])))
        made += [Tensor(name, "FP32", ends) for name, ends in answer.bounds.items()]
        self.runtime.plane.metrics.encoded(transport, perf_counter() - scored)
        return made

    async def _feedback(self, transport: str, given: dict[str, Tensor], size: int) -> list[Tensor]:
        row = "request_id" if "request_id" in given and "id" not in given else "id"
        expected = _EXPECTED.format(row, _CLASSES if self._loss.classes else _NUMBERS)
        for name in (row, "label"):
            if name not in given:
                raise InvalidInput(f"input {name!r} is missing; {expected}")
            texts = given[name].datatype == "BYTES"
            if texts != (name == row) and not (texts and self._loss.classes):
                raise InvalidInput(f"input {name!r} is {given[name].datatype}; {expected}")
        for name in given.keys() & _MORE.keys():
            if given[name].datatype == "BYTES":
                raise InvalidInput(f"input {name!r} is BYTES; {expected}")
        if "time" in given and (kind := given["time"].datatype) in _COARSE:
            raise InvalidInput(f"input 'time' is {kind}, which cannot hold Unix seconds exactly; send it as FP64")
        columns = await self.runtime.read(size, _columns, given)
        complete = columns.get("complete", np.zeros(1, np.bool_))
        if complete.dtype.kind != "b" or complete.shape != (1,):
            raise InvalidInput(f"input 'complete' is {given['complete'].datatype}{list(complete.shape)}; expected BOOL[1]")
        ids, labels = _rows(columns), columns["label"]
        if labels.dtype.kind in "iu" and (inexact := labels[labels.astype(np.float32) != labels]).size:
            raise InvalidInput(f"input 'label' has {inexact[0]}, which FP32 cannot hold exactly; send another label")
        if not len(ids):
            raise InvalidInput(f"{row} and label have no values; {expected}, with M of at least 1")
        visit().rows(ids)
        more: dict[str, Any] = {argument: columns[name] for name, argument in _MORE.items() if name in columns}
        if complete[0]:
            more["complete"] = True
        answer = await self.runtime.feedback(ids, labels, visit().caller.source, size, **more)
        if (refusal := answer.refusal()) is not None:
            raise refusal
        outcomes = _bytes([str(outcome) for outcome in answer.outcomes])
        return [Tensor("outcome", "BYTES", outcomes), Tensor("position", "INT64", np.array([answer.position]))]


def _model(name: str, inputs: list[Metadata], outputs: list[Metadata]) -> Metadata:
    return {"name": name, "inputs": inputs, "outputs": outputs, "versions": ["1"], "platform": "onnxruntime_onnx"}


def _tensor(name: str, datatype: str, *row: int, rows: int = -1) -> Metadata:
    """Return the metadata of an input or output: `rows` rows of the shape `row`; -1 is any number."""
    return {"name": name, "datatype": datatype, "shape": [rows, *row]}


def _configured(tensor: Metadata) -> Metadata:
    """Return a tensor's metadata in the format of a configuration."""
    kind = "STRING" if tensor["datatype"] == "BYTES" else tensor["datatype"]
    return {"name": tensor["name"], "data_type": f"TYPE_{kind}", "dims": tensor["shape"]}


def _values(given: dict[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: values(tensor) for name, tensor in given.items()}


def _columns(given: dict[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: column(tensor) for name, tensor in given.items()}


_IMPRESSIONS, _STATE = _tensor("impressions", "BYTES", rows=1), _tensor("state", "BYTES", rows=1)
_TAKEN = [_tensor("weight", "FP32"), _tensor("time", "FP64")]
#: What feedback for rows of lists may have besides.
_OF_LISTS = [_tensor("propensity", "FP32"), _tensor("position", "INT64"), _tensor("complete", "BOOL", rows=1)]
#: The optional tensors with a number for each row, and the argument of `feedback.checked` for each.
_MORE = {"weight": "weights", "time": "times", "propensity": "propensities", "position": "positions"}
_ROW_IDS = _tensor("row_ids", "BYTES")
_NAMING = [_tensor("request_id", "BYTES"), _tensor("row_id", "BYTES"), _tensor("index", "INT64")]
_EXPECTED = "expected {} BYTES[M] and label {}, and optionally weight FP32[M] or FP64[M] and time FP64[M]"
#: What a label can be.
_NUMBERS = "FP32[M], or a label of another numeric datatype"
_CLASSES = "BYTES[M], the names of classes, or their numbers in a numeric datatype"
#: The datatypes whose steps are longer than a second at Unix seconds.
_COARSE = frozenset({"FP16", "BF16", "FP32"})
_TOOK = [_tensor("outcome", "BYTES"), _tensor("position", "INT64", rows=1)]


def _rows(columns: dict[str, npt.NDArray[Any]]) -> list[str | RowName]:
    """Return what the tensors of feedback name each row by."""
    names = [tensor["name"] for tensor in _NAMING if tensor["name"] in columns]
    if "id" in columns and names:
        raise InvalidInput(f"the request has id and {names[0]}; name the rows by id, or by request_id with row_id or index")
    if len(names) > 2:
        raise InvalidInput("the request has row_id and index; give one of them")
    shapes = {name: list(columns[name].shape) for name in ("id", *names, "label") if name in columns}
    if any(len(shape) != 1 for shape in shapes.values()) or len({*map(tuple, shapes.values())}) > 1:
        raise InvalidInput(f"{' and '.join(shapes)} have shapes {' and '.join(map(str, shapes.values()))}; expected [M] each")
    if "id" in columns:
        return columns["id"].tolist()
    given = (columns[tensor["name"]].tolist() if tensor["name"] in columns else repeat(None) for tensor in _NAMING)
    rows = enumerate(zip(*given, strict=False))
    return [named(None, request_id, row_id, index, f"item {at}") for at, (request_id, row_id, index) in rows]


def _bytes(values: list[str]) -> npt.NDArray[Any]:
    return objects([v.encode() for v in values])
