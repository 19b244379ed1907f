"""The Open Inference Protocol v2 over the dataplane; REST and gRPC only translate to and from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.bento.access import FEEDBACK, SCORE
from riverdelta.bento.guard import visit
from riverdelta.bento.runtime import Runtime
from riverdelta.core.errors import InvalidInput, NotFound, near
from riverdelta.core.features import Column
from riverdelta.serving.oip.tensors import Tensor, column, datatype_of

EXTENSIONS = ("binary_tensor_data",)
_FEEDBACK = "-feedback"


@dataclass(frozen=True)
class TensorMetadata:
    """Name, datatype and shape of one input or output; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


@dataclass(frozen=True)
class ModelMetadata:
    """What a model takes and gives."""

    name: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    versions: tuple[str, ...] = ("1",)
    platform: str = "onnxruntime_onnx"


class Oip:
    """Two models: the scorer, and `<scorer>-feedback`, whose inference is to take feedback."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        name, schema = runtime.definition.name, runtime.definition.request_schema
        inputs = [TensorMetadata(c.name, datatype_of(c.dtype), _shape(c)) for c in schema.values()]
        loss = runtime.definition.loss
        shape = [-1, loss.outputs] if loss.outputs > 1 else [-1]
        self._score_of, self._base_of = (
            TensorMetadata("score", "FP32", shape),
            TensorMetadata(f"base_{loss.raw}", "FP32", shape),
        )
        scorer = ModelMetadata(name, inputs, [self._score_of, self._base_of, _IMPRESSIONS, _STATE])
        taker = ModelMetadata(name + _FEEDBACK, [_ID, _LABEL], [_OUTCOME, _POSITION])
        self._models = {model.name: model for model in (scorer, taker)}

    def server(self) -> dict[str, Any]:
        """Return the server's metadata."""
        return {"name": "riverdelta", "version": version("riverdelta"), "extensions": list(EXTENSIONS)}

    def endpoint(self, name: str) -> str:
        """Return what an inference of the model `name` is: `score` or `feedback`."""
        return "feedback" if name == self.runtime.definition.name + _FEEDBACK else "score"

    def permit(self, name: str) -> None:
        """Raise `Forbidden` where the caller may not do what an inference of the model `name` is."""
        roles = FEEDBACK if self.endpoint(name) == "feedback" else SCORE
        visit().caller.need(roles, f"an inference of the model {name!r}")

    def model(self, name: str, number: str = "") -> ModelMetadata:
        """Return a model's metadata; raises `NotFound` listing the models."""
        if number not in ("", "1"):
            raise NotFound(f"model {name!r} has no version {number!r}; there is: 1")
        if name not in self._models:
            raise NotFound(f"there is no model {name!r}: {near(name, self._models)}")
        return self._models[name]

    async def infer(
        self, transport: str, name: str, number: str, inputs: Sequence[Tensor], wanted: Sequence[str]
    ) -> list[Tensor]:
        """Score, or take feedback; return the `wanted` outputs, all of them where none is named.

        The only way to either over the protocol: here, at the latest, the caller's role is asked for.
        """
        self.permit(name)
        metadata = self.model(name, number)
        given: dict[str, Tensor] = {}
        for tensor in inputs:
            if tensor.name in given:
                raise InvalidInput(f"input {tensor.name!r} is given twice")
            given[tensor.name] = tensor
        known = [o.name for o in metadata.outputs]
        for output in wanted:
            if output not in known:
                raise InvalidInput(f"model {name!r} has no output {output!r}: {near(output, known)}")
        act = self._feedback if self.endpoint(name) == "feedback" else self._score
        made = await act(transport, given)
        return [tensor for tensor in made if not wanted or tensor.name in wanted]

    async def _score(self, transport: str, given: dict[str, Tensor]) -> list[Tensor]:
        started = perf_counter()
        columns = {name: column(tensor) for name, tensor in given.items()}
        visit().rows(columns)
        answer = await self.runtime.score(columns, None, transport)
        scored = perf_counter()
        made = [
            Tensor(self._score_of.name, "FP32", answer.scores),
            Tensor(self._base_of.name, "FP32", answer.base),
            Tensor("impressions", "BYTES", _bytes([answer.impressions])),
            Tensor("state", "BYTES", _bytes([str(answer.state)])),
        ]
        ended = perf_counter()
        metrics = self.runtime.plane.metrics
        metrics.encoded(transport, ended - scored)
        metrics.answered(transport, "score", ended - started)
        return made

    async def _feedback(self, transport: str, given: dict[str, Tensor]) -> list[Tensor]:
        plane = self.runtime.plane
        for wanted in (_ID, _LABEL):
            if wanted.name not in given:
                raise InvalidInput(f"input {wanted.name!r} is missing; expected {wanted.datatype}[M]")
            if given[wanted.name].datatype != wanted.datatype:
                raise InvalidInput(f"input {wanted.name!r} is {given[wanted.name].datatype}; expected {wanted.datatype}[M]")
        for name in given.keys() - {"id", "label"}:
            raise InvalidInput(f"input {name!r} is not known; expected id BYTES[M] and label FP32[M]")
        ids = column(given["id"])
        labels = column(given["label"])
        if ids.ndim != 1 or labels.ndim != 1:
            raise InvalidInput(f"id and label have shapes {list(ids.shape)} and {list(labels.shape)}; expected [M] each")
        started = perf_counter()
        visit().rows(ids)
        answer = await plane.feedback(ids.tolist(), np.ascontiguousarray(labels, np.float32), visit().caller.source)
        plane.metrics.answered(transport, "feedback", perf_counter() - started)
        outcomes = _bytes([str(outcome) for outcome in answer.outcomes])
        return [Tensor("outcome", "BYTES", outcomes), Tensor("position", "INT64", np.array([answer.position]))]


_IMPRESSIONS = TensorMetadata("impressions", "BYTES", [1])
_STATE = TensorMetadata("state", "BYTES", [1])
_ID = TensorMetadata("id", "BYTES", [-1])
_LABEL = TensorMetadata("label", "FP32", [-1])
_OUTCOME = TensorMetadata("outcome", "BYTES", [-1])
_POSITION = TensorMetadata("position", "INT64", [1])


def _shape(c: Column) -> list[int]:
    return [-1, *(-1 if n is None else n for n in c.shape)]


def _bytes(values: list[str]) -> npt.NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = [v.encode() for v in values]
    return array
