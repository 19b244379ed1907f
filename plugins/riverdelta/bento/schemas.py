"""Schemas: what a request may hold and what an answer holds, by the models that validate and describe them.

An unknown key is refused everywhere. The columns of a scorer are known only when it is served: `ScoreRequest` and
`ScoreResponse` leave them open, the data plane checks them and `openapi` describes them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, SkipValidation, WithJsonSchema, create_model

from riverdelta.learning.commands import MOST_RELEASE, Command
from riverdelta.sidecar.diff import TOP
from riverdelta.storage.journal.base import Outcome as FeedbackOutcome

#: How long the answer to a command waits for the learner, by default and at most, in seconds.
WAIT_SECONDS, MOST_SECONDS = 2.0, 30.0
#: The most changes that one answer shows.
MOST_CHANGES = 1000
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class Schema(BaseModel):
    """A JSON object with exactly these keys, whose values are taken as they are: "1" is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Count = Annotated[int, Field(ge=0)]
Values = Annotated[SkipValidation[Any], WithJsonSchema({"type": "array"})]
RowId = Annotated[str, Field(description="A row of a scored request: its impressions, a dot, and the index of the row.")]


class ScoreRequest(Schema):
    """The body of POST /score: a block of rows, by column."""

    columns: dict[str, SkipValidation[Any]]
    propensity: Values | None = None


class ScoreResponse(Schema):
    """The scores of a block, and the id that feedback names its rows by."""

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
    """The body of POST /feedback: items, or an object that holds them."""


class FeedbackResponse(Schema):
    """The outcome of each item, in order, and the position of the journal that holds the accepted ones."""

    outcomes: list[FeedbackOutcome]
    position: Count


class Failure(Schema):
    """What is wrong: the class of the error, and a message that says what to do."""

    type: str
    message: str


class ErrorResponse(Schema):
    """The answer to a request that failed."""

    error: Failure


class ProtocolErrorResponse(Schema):
    """The answer to a request of the Open Inference Protocol that failed."""

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
    """The answer of a server that runs."""

    live: Literal[True]


class Ready(Schema):
    """The answer of a server that takes requests."""

    ready: Literal[True]


class ModelReady(Schema):
    """The answer of a model that takes requests."""

    name: str
    ready: Literal[True]


class TensorParameters(Schema):
    """The parameters of a tensor: how many bytes behind the JSON are its data."""

    binary_data_size: Count | None = None


class OutputParameters(Schema):
    """The parameters of a requested output: whether its data are bytes behind the JSON."""

    binary_data: bool | None = None


class InferParameters(Schema):
    """The parameters of an inference: whether all outputs are bytes behind the JSON."""

    binary_data_output: bool | None = None


class Tensor(Schema):
    """A tensor: its data, or the number of bytes behind the JSON that are its data."""

    name: str
    datatype: str
    shape: list[Count]
    data: Values | None = None
    parameters: TensorParameters = TensorParameters()


class RequestedOutput(Schema):
    """An output that is asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferRequest(Schema):
    """The body of an inference: the columns of a block, or the ids and labels of feedback, as tensors."""

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
    top: Annotated[int, Field(ge=1, le=MOST_CHANGES), BeforeValidator(_digits)] = Field(TOP, description="How many changes.")
    id: list[str] = Field([], description="Show the coefficients of this id alone: column=value, for each column of a cross.")


class ExportQuery(Schema):
    """The query of GET /admin/export."""

    release: Number | None = Field(None, description="The release; the newest that is intact by default.")


class ReleaseRow(Schema):
    """A release: what it learned from, how it was judged, and whether it serves."""

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
    """How many coefficients of a table changed."""

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
    """What changed between two releases."""

    a: Count
    b: Count
    examples: int
    tables: list[Turnover]
    changes: list[Change]


class CommandResponse(Schema):
    """Where a command lies in the journal, what came of it, and how learning stands now."""

    sequence: Count
    obeyed: bool
    refused: None
    waits: str | None
    target: int | None = Field(description="The release that was made, promoted or rolled back to.")
    position: int | None
    release: int | None
    swap: int | None
    champion: int | None
    frozen: bool | None


def body_of(command: type[Command]) -> type[Command]:
    """Return the body of POST /admin/NAME: a command's options, and how long to wait for what came of it."""
    said = "Seconds to wait for the learner; the service's own timeout may end that sooner, and the command stands."
    wait = Field(WAIT_SECONDS, ge=0, le=MOST_SECONDS, description=said)
    return create_model(f"{command.__name__}Request", __base__=command, __doc__=command.__doc__, wait=(float, wait))
