"""The OpenAPI 3.1.0 document of a scorer's routes, whose schemas are JSON Schema 2020-12."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from riverdelta.bento.access import Access
from riverdelta.bento.endpoints import TABLE, Endpoint
from riverdelta.bento.inference import IndexRequest, InferRequest, ProtocolErrorResponse
from riverdelta.bento.schemas import NAMES, ErrorResponse
from riverdelta.core.features import Column
from riverdelta.core.losses import Loss
from riverdelta.core.settings import Settings
from riverdelta.core.values import MOST_TEXT_LENGTH
from riverdelta.graph.link import Link
from riverdelta.graph.taps import BOUNDS
from riverdelta.learning.definition import Definition
from riverdelta.serving.oip.tensors import datatype_of

Json = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_SAID = {
    200: "Success.",
    202: "Written to the journal and not yet applied; `waits` says why.",
    400: "The request is invalid; the message names the error.",
    401: "The request has no valid token.",
    403: "The token does not allow this.",
    404: "The model, version or release does not exist.",
    409: "The command cannot be applied in the current state, or the request_id was given to other rows; nothing has changed.",
    413: "The request has more rows or bytes than are accepted at once.",
    415: "The content type is not JSON, or the content encoding is not one of those in Accept-Encoding.",
    422: "Every item of the feedback is refused permanently, and nothing is stored; sending it again changes nothing.",
    429: "The rate limit is exceeded; retry after the seconds in Retry-After.",
    500: "Server error, such as a row whose score is NaN; the message names it.",
    501: "The model exceeds the limit of one ONNX file.",
    503: "The service is starting or stopping, its journal cannot be written, or it waits for rows or room; see Retry-After.",
}
_LATER: Json = {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}
_HEADERS: dict[int, Json] = {401: {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}, 429: _LATER, 503: _LATER}
_LENGTH: Json = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "The bytes of JSON, if tensor data follow it.",
    "schema": {"type": "integer", "minimum": 0},
}


def document(definition: Definition, settings: Settings) -> Json:
    """Return the document of a scorer; the schema of a column limits its length to `max_rows`."""
    rows = [row for row in TABLE if row.summary]
    models = {ErrorResponse, ProtocolErrorResponse, *(model for row in rows for model in (row.takes, row.gives) if model)}
    _, shared = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    schemas = shared["$defs"]
    _fill(schemas, definition, settings)
    parts = {"name": [definition.name, f"{definition.name}-feedback"], "number": ["1"]}
    paths: Json = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, parts, settings)
    made: Json = {
        "openapi": "3.1.0",
        "info": {"title": definition.name, "version": version("riverdelta")},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
    return made | {"security": [{"token": []}]} if Access.of(settings).on else made


def _operation(row: Endpoint, parts: dict[str, list[str]], settings: Settings) -> Json:
    error = _reference(ErrorResponse if row.transport == "rest" else ProtocolErrorResponse)
    gives = _reference(row.gives) if row.gives else {"type": "object"}
    binary = ["application/octet-stream"] if row.takes is InferRequest else []
    # By default a row without a score is null, not an error.
    fails = (500,) if settings.not_finite != "null" and "score" in row.labels else ()
    statuses = {200, 400, 503, *row.statuses, *fails, *((401, 403, 429) if row.roles else ())}
    responses = {}
    for status in sorted(statuses):
        done = status < 300 or (status == 422 and row.transport == "rest")  # each item has its outcome
        answer = _content(gives, row.content, *binary) if done else _content(error, "application/json")
        responses[str(status)] = {"description": _SAID[status], "content": answer}
        if status in _HEADERS:
            responses[str(status)]["headers"] = _HEADERS[status]
    made: Json = {"summary": row.summary, "responses": responses}
    if row.takes:
        body = _content(_reference(row.takes), "application/json", *binary)
        made["requestBody"] = {"required": row.takes is not IndexRequest, "content": body}
    if row.roles is None:
        made["security"] = []
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"enum": values}}
        for name, values in parts.items()
        if f"{{{name}}}" in row.path
    ]
    if row.query:
        asked = row.query.model_json_schema()
        for name, schema in asked["properties"].items():
            required = name in asked.get("required", ())
            parameters.append({"name": name, "in": "query", "required": required, "schema": schema})
    if parameters := [*parameters, *([_LENGTH] if binary else [])]:
        made["parameters"] = parameters
    return made


def _reference(model: type[BaseModel]) -> Json:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _content(schema: Json, kind: str, *binary: str) -> Json:
    """Return the content types of a body; only JSON has a schema."""
    return {kind: {"schema": schema} if kind == "application/json" else {}, **{other: {} for other in binary}}


def _fill(schemas: Json, definition: Definition, settings: Settings) -> None:
    """Add this scorer's columns, labels and limits to the schemas."""

    def rows(of: Json, least: int = 1) -> Json:
        return {"type": "array", "items": of, "minItems": least, "maxItems": settings.max_rows}

    taken, loss = definition.request_schema, definition.loss
    parts = {name: part for listed in taken.names.values() for name, part in listed.items()}
    ways = {name: [rows(row) for row in row_schemas(column)] for name, column in {**taken, **parts}.items()}
    columns = {name: {"anyOf": found} if len(found) > 1 else found[0] for name, found in ways.items()}
    either = [_one_of(name, listed) for name, listed in taken.names.items()]
    required = [name for name in taken if name not in taken.names and name not in taken.optional]
    score = schemas["ScoreRequest"]
    score["properties"] = {
        "columns": {"type": "object", "properties": columns, "required": required, "additionalProperties": False}
        | ({"allOf": either} if either else {}),
        "propensity": {"anyOf": [rows({"type": "number", "exclusiveMinimum": 0, "maximum": 1}), {"type": "null"}]},
        "request_id": score["properties"]["request_id"],
        "row_ids": {"anyOf": [rows(NAMES) | {"uniqueItems": True}, {"type": "null"}]},
    }
    example: Json = {"columns": {name: [_zero(column)] for name, column in taken.items()}}
    score["examples"] = [example, example | {"request_id": "order-1723", "row_ids": ["sku-9"]}]
    schemas["InferRequest"]["examples"] = [{"inputs": [_tensor(name, column) for name, column in taken.items()]}]
    schemas["Item"]["properties"]["label"] = {"anyOf": [loss.label_schema, {"type": "null"}]}
    schemas["Items"]["properties"]["items"]["maxItems"] = settings.max_rows
    schemas["FeedbackRequest"]["anyOf"][1]["maxItems"] = settings.max_rows
    scored, nullable = schemas["ScoreResponse"]["properties"], settings.not_finite == "null"
    scored["scores"] = rows(_score(loss, nullable))
    for name in BOUNDS:
        if definition.interval is None:
            del scored[name]
        else:
            scored[name] = rows({"type": ["number", "null"]})
    if loss.classes is None:
        del scored["labels"], scored["classes"]
    else:
        named: Json = {"enum": [*loss.classes, *([None] if nullable else [])]}
        scored |= {"labels": rows(named), "classes": {"const": [*loss.classes]}}


def _one_of(name: str, parts: Collection[str]) -> Json:
    """Return the schema of columns that have an input, or all of its parts, and not both."""
    named: Json = {"required": [*parts], "not": {"required": [name]}}
    return {"oneOf": [{"required": [name], "not": {"anyOf": [{"required": [part]} for part in parts]}}, named]}


def _score(loss: Loss, nullable: bool) -> Json:
    """Return the schema of a score: a probability if the raw output is a logit, K numbers if there are K outputs."""
    number: Json = {"type": ["number", "null"] if nullable else "number"}
    if Link(loss).predictions == (0.0, 1.0):
        number |= {"minimum": 0, "maximum": 1}
    return _array(number, loss.outputs) if loss.outputs > 1 else number


def row_schemas(column: Column) -> list[Json]:
    """Return the JSON schemas of a row of a column; a request has one of them for all its rows.

    >>> [row["type"] for row in row_schemas(Column.parse("user_id", "int64"))]
    [['integer', 'string'], 'array']
    >>> [row["minItems"] for row in row_schemas(Column.parse("item_vec", "float32[2]"))]
    [2]
    """
    dtype = column.numpy
    if column.dtype == "int64" and column.shape in ((), (1,)) and not column.number:
        made: Json = {"type": ["integer", "string"], **_range(np.dtype(np.int64)), "description": "A string is hashed."}
    elif dtype.kind in "iu":
        made = {"type": "integer", **_range(dtype)}
    elif dtype.kind == "b":
        made = {"type": "boolean"}
    elif dtype.kind == "O":
        made = {"type": "string", "maxLength": MOST_TEXT_LENGTH}
    else:
        made = {"type": "number"}
    if column.shape in ((), (1,)):
        return [made, _array(made, 1)]
    for length in reversed(column.shape):
        made = _array(made, length)
    return [made]


def _array(items: Json, length: int | None) -> Json:
    return {"type": "array", "items": items, **({} if length is None else {"minItems": length, "maxItems": length})}


def _range(dtype: np.dtype[Any]) -> Json:
    limits = np.iinfo(dtype)
    return {"minimum": int(limits.min), "maximum": int(limits.max)}


def _zero(column: Column) -> Any:
    """Return one row of a column, of zeros; an axis of any length has length 1."""
    return column.zeros(1)[0] if not column.shape and column.dtype == "string" else column.zeros(1)[0].tolist()


def _tensor(name: str, column: Column) -> Json:
    row = np.array([_zero(column)])
    return {"name": name, "datatype": datatype_of(column.dtype), "shape": list(row.shape), "data": row.ravel().tolist()}
