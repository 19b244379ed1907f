"""Schemas: the models that validate and document request and response bodies.

Unknown keys are refused. `ScoreRequest` and `ScoreResponse` do not know a scorer's columns: the data plane validates them, and
`openapi` documents them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, SkipValidation, WithJsonSchema, create_model

from riverdelta.learning.commands import MOST_RELEASE, Command
from riverdelta.sidecar.diff import TOP
from riverdelta.storage.journal.base import Outcome as FeedbackOutcome

#: The default and the maximum time that a command's response waits for the learner, in seconds.
WAIT_SECONDS, MOST_SECONDS = 2.0, 30.0
#: The maximum number of changes in one response.
MOST_CHANGES = 1000
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class Schema(BaseModel):
    """The base class: unknown keys are refused, and values are not converted ("1" is not a number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Count = Annotated[int, Field(ge=0)]
Values = Annotated[SkipValidation[Any], WithJsonSchema({"type": "array"})]
RowId = Annotated[str, Field(description="A row of a scored request: its impressions, a dot, and the index of the row.")]


class ScoreRequest(Schema):
    """The body of POST /score: a block of rows, by column."""

    columns: dict[str, SkipValidation[Any]]
    propensity: Values | None = None


class ScoreResponse(Schema):
    """The scores of a block, the id by which feedback refers to its rows, and the state that scored it."""

    scores: Values
    impressions: str
    state: str


class Labelled(Schema):
    """An item of feedback: the label of a row."""

    id: RowId
    label: float | bool
    shown: Literal[True] | None = None


class Shown(Schema):
    """An item of feedback: a row that was shown and has no label yet."""

    id: RowId
    shown: Literal[True]
    label: None = None


Item = Labelled | Shown


class Items(Schema):
    """Items of feedback under the key `items`."""

    items: list[Item] = Field(min_length=1)


class FeedbackRequest(RootModel[Items | Annotated[list[Item], Field(min_length=1)]]):
    """The body of POST /feedback: items, or an object with items."""


class FeedbackResponse(Schema):
    """The outcome of each item, in order, and the position of the journal that holds the accepted ones."""

    outcomes: list[FeedbackOutcome]
    position: Count


class Failure(Schema):
    """The class of an error, and a message that says what is wrong and what to do."""

    type: str
    message: str


class ErrorResponse(Schema):
    """The response to a request that failed."""

    error: Failure


class ProtocolErrorResponse(Schema):
    """The response of the Open Inference Protocol to a request that failed."""

    error: str


class ServerMetadata(Schema):
    """The metadata of a server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Schema):
    """The name, type and shape of an input or output; -1 is an axis of any length."""

    name: str
    datatype: str
    shape: list[Annotated[int, Field(ge=-1)]]


class ModelMetadata(Schema):
    """The metadata of a model."""

    name: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    versions: list[str]
    platform: str


class Live(Schema):
    """The response of a running server."""

    live: Literal[True]


class Ready(Schema):
    """The response of a server that accepts requests."""

    ready: Literal[True]


class ModelReady(Schema):
    """The response of a model that accepts requests."""

    name: str
    ready: Literal[True]


class TensorParameters(Schema):
    """The parameters of a tensor: the number of bytes of its data after the JSON."""

    binary_data_size: Count | None = None


class OutputParameters(Schema):
    """The parameters of a requested output: whether its data are bytes after the JSON."""

    binary_data: bool | None = None


class InferParameters(Schema):
    """The parameters of an inference: whether the data of all outputs are bytes after the JSON."""

    binary_data_output: bool | None = None


class Tensor(Schema):
    """A tensor, with its data or the number of bytes after the JSON."""

    name: str
    datatype: str
    shape: list[Count]
    data: Values | None = None
    parameters: TensorParameters = TensorParameters()


class RequestedOutput(Schema):
    """A requested output."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferRequest(Schema):
    """The body of an inference: a block's columns, or the ids and labels of feedback, as tensors."""

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: list[Tensor]
    outputs: list[RequestedOutput] = Field(default_factory=list)


class InferResponse(Schema):
    """The outputs of an inference."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


def _digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


Number = Annotated[int, Field(ge=0, le=MOST_RELEASE), BeforeValidator(_digits)]


class DiffQuery(Schema):
    """The query of GET /admin/diff."""

    a: Number = Field(description="Release A.")
    b: Number = Field(description="Release B.")
    top: Annotated[int, Field(ge=1, le=MOST_CHANGES), BeforeValidator(_digits)] = Field(TOP, description="Number of changes.")
    id: list[str] = Field([], description="Show only the coefficients of this id: column=value, once per column of a cross.")


class ExportQuery(Schema):
    """The query of GET /admin/export."""

    release: Number | None = Field(None, description="The release; by default the newest intact one.")


class ReleaseRow(Schema):
    """A release: its examples, its measures and verdict, and whether it serves."""

    release: Count
    time: float
    examples: Count
    log_loss_base: float | None
    log_loss_served: float | None
    gain_on_champion: float | None
    verdict: str | None
    bytes: Count
    champion: bool
    serving: bool


class ReleasesResponse(Schema):
    """All releases, oldest first."""

    releases: list[ReleaseRow]


class Turnover(Schema):
    """The number of coefficients of a table, and of those that changed."""

    correction: str
    table: str
    changed: Count
    coefficients: Count


class Change(Schema):
    """A coefficient that changed."""

    correction: str
    table: str
    feature: str
    slot: int | None
    id: str | None
    before: float | None
    after: float | None
    logits: float | None


class DiffResponse(Schema):
    """The changes between two releases."""

    a: Count
    b: Count
    examples: int
    tables: list[Turnover]
    changes: list[Change]


class CommandResponse(Schema):
    """A command's position in the journal, its outcome, and the current state of learning."""

    sequence: Count
    obeyed: bool
    refused: None
    waits: str | None
    target: int | None = Field(description="The release that the command made, promoted or rolled back to.")
    position: int | None
    release: int | None
    swap: int | None
    champion: int | None
    frozen: bool | None


def body_of(command: type[Command]) -> type[Command]:
    """Return the model of the body of POST /admin/NAME: a command's options, and the time to wait for its outcome."""
    said = "Seconds to wait for the learner. The service's timeout may end the wait earlier; the command remains in force."
    wait = Field(WAIT_SECONDS, ge=0, le=MOST_SECONDS, description=said)
    return create_model(f"{command.__name__}Request", __base__=command, __doc__=command.__doc__, wait=(float, wait))
