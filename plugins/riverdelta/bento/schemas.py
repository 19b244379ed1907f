"""Schemas: the models that validate and document the bodies and queries of riverdelta's own routes.

Unknown keys are refused. `ScoreRequest` and `ScoreResponse` do not know a scorer's columns: the data plane validates them, and
`openapi` documents them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

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

from riverdelta.bento.inference import Count, Values
from riverdelta.core.feedback import EARLIEST, MOST_WEIGHT
from riverdelta.core.keys import MOST_ROWS
from riverdelta.core.strict import Strict
from riverdelta.learning.command import Command
from riverdelta.learning.commands import TOP, Number
from riverdelta.sidecar.diff import Diff
from riverdelta.sidecar.operator import Answer, ReleaseRow
from riverdelta.storage.journal.base import Outcome as FeedbackOutcome
from riverdelta.storage.journal.names import MOST_NAME_BYTES

#: The default and the maximum time that a command's response waits for the learner, in seconds.
WAIT_SECONDS, MOST_SECONDS = 2.0, 30.0
#: The maximum number of changes in one response.
MOST_CHANGES = 1000
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)

# The data plane checks the ranges, over every transport alike.
Weight = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0, "maximum": MOST_WEIGHT})]
Time = Annotated[
    float, WithJsonSchema({"type": "number", "minimum": int(EARLIEST), "description": "Unix seconds, at most an hour ahead."})
]
Propensity = Annotated[float, WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})]
Position = Annotated[float, WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MOST_ROWS - 1})]
RowId = Annotated[str, Field(description="A row of a scored request: its impressions, a dot, and the index of the row.")]
_NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MOST_NAME_BYTES}
NAMES: dict[str, Any] = {"anyOf": [_NAME, {"type": "integer"}]}
#: The ids that a client gives to a request and to its rows; the data plane checks them.
RequestName = Annotated[
    SkipValidation[Any],
    WithJsonSchema(_NAME),
    Field(description="The client's own id of the request.", examples=["order-1723"]),
]
RowName = Annotated[
    SkipValidation[Any], WithJsonSchema(NAMES), Field(description="The client's own id of the row.", examples=["sku-9"])
]
RowNames = Annotated[
    SkipValidation[Any],
    WithJsonSchema({"type": "array", "items": NAMES, "uniqueItems": True}),
    Field(description="The client's own ids of the rows, one a row.", examples=[["sku-9", "sku-4"]]),
]


class ScoreRequest(Strict):
    """The body of POST /score: a block of rows, by column."""

    columns: dict[str, SkipValidation[Any]] = Field(examples=[{"user_id": [1, 2]}])
    propensity: Values | None = None
    request_id: RequestName | None = None
    row_ids: RowNames | None = None


class ScoreResponse(Strict):
    """The scores of a block, the id by which feedback refers to its rows, and the state that scored it.

    Of several classes, `scores` has a probability for each of `classes`, and `labels` the most probable one of each row.
    A scorer with intervals answers their ends, `lower` and `upper`.
    """

    scores: Values
    impressions: str
    state: str
    labels: Values | None = None
    classes: list[str] | None = None
    lower: Values | None = None
    upper: Values | None = None


class Item(Strict):
    """An item of feedback: the label of a row, or `shown` for a row that was shown and has no label yet.

    The row is named by `id`, or by the client's own `request_id`, with `row_id` or `index` if the request had several rows.
    A label may have a `weight` (default 1) and the `time` of its event. A row of a list may have the `propensity` with which it
    was examined, or its `position`, 0 for the first.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "not": {"properties": {name: {"type": "null"} for name in ("label", "shown")}},
            "oneOf": [{"required": ["id"]}, {"required": ["request_id"]}],
        }
    )

    id: RowId | None = None
    label: float | bool | str | None = None
    shown: Annotated[bool, WithJsonSchema({"const": True})] | None = None
    request_id: RequestName | None = None
    row_id: RowName | None = None
    index: Count | None = None
    weight: Weight | None = None
    time: Time | None = Field(None, examples=[1796078721])
    propensity: Propensity | None = None
    position: Position | None = None

    @model_validator(mode="after")
    def _names_a_row(self) -> Self:
        if (self.id is None) == (self.request_id is None):
            raise ValueError("an id, or a request_id")
        if (self.row_id is not None and self.index is not None) or (self.id and (self.row_id, self.index) != (None, None)):
            raise ValueError("one of row_id and index, beside a request_id")
        return self

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.shown is False or (self.label is None and self.shown is None):
            raise ValueError('a label, or "shown": true')
        return self


_ITEMS: list[Any] = [
    [{"id": "<id>.<index>", "label": 1}],
    [{"request_id": "order-1723", "row_id": "sku-9", "label": 1}],
]


class Items(Strict):
    """Items of feedback under the key `items`; `complete` says that no more comes for the lists of these items."""

    items: list[Item] = Field(min_length=1, fail_fast=True, examples=_ITEMS)
    complete: bool | None = None


class FeedbackRequest(RootModel[Items | Annotated[list[Item], Field(min_length=1)]]):
    """The body of POST /feedback: items, or an object with items."""


class FeedbackResponse(Strict):
    """The outcome of each item, in order, and the position of the journal that holds the accepted ones."""

    outcomes: list[FeedbackOutcome]
    position: Count


class Failure(Strict):
    """The class of an error, and a message that says what is wrong and what to do."""

    type: str
    message: str


class ErrorResponse(Strict):
    """The response to a request that failed."""

    error: Failure


def _digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


Release = Annotated[Number, BeforeValidator(_digits)]


class Nothing(Strict):
    """The query of a route that has no parameters."""


class DiffQuery(Strict):
    """The query of GET /admin/diff."""

    a: Release = Field(description="Release A.")
    b: Release = Field(description="Release B.")
    top: Annotated[int, Field(ge=1, le=MOST_CHANGES), BeforeValidator(_digits)] = Field(TOP, description="Number of changes.")
    id: list[str] = Field([], description="Show only the coefficients of this id: column=value, once per column of a cross.")


class ExportQuery(Strict):
    """The query of GET /admin/export."""

    release: Release | None = Field(None, description="The release; by default the one that serves, or else the champion.")


class ReleasesResponse(Strict):
    """All releases, oldest first."""

    releases: list[ReleaseRow]


class DiffResponse(RootModel[Diff]):
    """The differences between two releases."""


class CommandResponse(RootModel[Answer]):
    """The response to a command."""


def body_of(command: type[Command]) -> type[Command]:
    """Return the model of the body of POST /admin/NAME: a command's options, and the time to wait for its outcome."""
    said = "Seconds to wait for the learner. The service's timeout may end the wait earlier; the command remains in force."
    wait = Field(WAIT_SECONDS, ge=0, le=MOST_SECONDS, description=said)
    return create_model(f"{command.__name__}Request", __base__=command, __doc__=command.__doc__, wait=(float, wait))
