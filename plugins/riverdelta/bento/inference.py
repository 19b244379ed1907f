"""Inference: the models that validate and document the bodies of the Open Inference Protocol."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    SkipValidation,
    WithJsonSchema,
    create_model,
    model_validator,
)

from riverdelta.core.errors import short
from riverdelta.core.strict import Strict
from riverdelta.serving.oip.messages import FIELDS

#: The types of the protocol that its metadata have, in JSON.
_JSON = {"bool": bool, "int32": int, "int64": int, "uint64": int, "string": str, "DataType": str}

Count = Annotated[int, Field(ge=0)]
Values = Annotated[SkipValidation[Any], WithJsonSchema({"type": "array"})]


class ProtocolErrorResponse(Strict):
    """The response of the Open Inference Protocol to a request that failed."""

    error: str


@cache
def message(name: str) -> type[Strict]:
    """Return the model of a message of the Open Inference Protocol as JSON, in which every field is present."""
    fields = dict[str, Any]()
    for kind, field, *_ in map(str.split, FIELDS[name]):
        of: Any = _JSON.get(kind.rstrip("*")) or message(kind.rstrip("*"))
        fields[field] = (list[of] if kind.endswith("*") else of, ...)
    return create_model(name, __base__=Strict, **fields)


class ModelReady(Strict):
    """The response of a model that accepts requests."""

    name: str
    ready: bool


def _or_null(kind: Any, absent: Any) -> BeforeValidator:
    """Take null as `absent`."""
    return BeforeValidator(lambda value: absent if value is None else value, json_schema_input_type=kind | None)


class Parameters(Strict):
    """The parameters of an inference or of a tensor; one that is null is absent, whatever its name."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "null"}})

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class TensorParameters(Parameters):
    """The parameters of a tensor: the number of bytes of its data after the JSON."""

    binary_data_size: Count | None = None


class OutputParameters(Parameters):
    """The parameters of a requested output: whether its data are bytes after the JSON."""

    binary_data: bool | None = None


class Hints(Parameters):
    """The parameters of an inference over either transport; they are accepted and change nothing."""

    priority: Count | None = None
    timeout: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_no_sequence(cls, given: Any) -> Any:
        given_to = [name for name, value in given.items() if value is not None] if isinstance(given, dict) else []
        # `sequence_id` before what tritonclient sends with it.
        if sequences := sorted(
            (name for name in given_to if name.startswith("sequence_")), key=lambda name: name != "sequence_id"
        ):
            raise ValueError(f"no {short(sequences[0])}, because no request depends on an earlier one")
        return given


class HintedRequest(Strict):
    """The parameters of an inference over gRPC."""

    parameters: Hints


class InferParameters(Hints):
    """The parameters of an inference: hints, and whether the data of all outputs are bytes after the JSON."""

    binary_data_output: bool | None = None


class Tensor(Strict):
    """A tensor, with its data or the number of bytes after the JSON."""

    name: str
    datatype: str
    shape: list[Count] = Field(fail_fast=True)
    data: Values | None = None
    parameters: Annotated[TensorParameters, _or_null(TensorParameters, {})] = TensorParameters()


class RequestedOutput(Strict):
    """A requested output."""

    name: str
    parameters: Annotated[OutputParameters, _or_null(OutputParameters, {})] = OutputParameters()


class InferRequest(Strict):
    """The body of an inference: a block's columns, or the ids and labels of feedback, as tensors."""

    id: str | None = None
    parameters: Annotated[InferParameters, _or_null(InferParameters, {})] = InferParameters()
    inputs: list[Tensor] = Field(fail_fast=True)
    outputs: Annotated[list[RequestedOutput], _or_null(list[RequestedOutput], [])] = Field(default_factory=list, fail_fast=True)


class InferResponse(Strict):
    """The outputs of an inference."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class IndexRequest(Strict):
    """The body of POST /v2/repository/index, which may be empty: whether to list only models that are ready."""

    ready: bool | None = None


class IndexResponse(RootModel[list[message("ModelIndex")]]):  # type: ignore[misc]
    """The models of the service."""
