"""OpenAPI 3.1: what the service takes and answers, written from the scorer's own columns.

Source: OpenAPI Specification 3.1.0; its schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from riverdelta.bento.access import Access
from riverdelta.bento.openapi.admin import admin_paths
from riverdelta.bento.openapi.parts import COUNT, SAID, STRING, Json, array, content, operation, record
from riverdelta.core.features import Column
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.oip.tensors import datatype_of
from riverdelta.storage.journal.base import Outcome

_ID: Json = {"type": "string", "description": "A row of a scored request: its impressions, a dot, and the row's index."}
_FREE: Json = {"type": "object"}


def document(definition: Definition, settings: Settings) -> Json:
    """Return the document of all routes of a scorer.

    Each row of a request is one of N <= `max_rows`; a column is described by its dtype and shape, and all have the length N.
    """
    # By default a row without a score is null in an answer like any other.
    fails = () if settings.not_finite == "null" else (500,)
    ours, protocol = record({"error": record({"type": STRING, "message": STRING})}), record({"error": STRING})
    model = _path("name", [definition.name, f"{definition.name}-feedback"])
    number = _path("number", ["1"])
    paths: Json = {
        "/score": {
            "post": operation("Score a block of rows.", ours, _score(definition, settings), _scored(settings), (413, *fails))
        },
        "/feedback": {"post": operation("Take labels of scored rows.", ours, _feedback(definition, settings), _FED, (413,))},
        "/status": {"get": operation("What the service says of itself.", ours, None, _FREE)},
        "/openapi.json": {"get": operation("This document.", ours, None, _FREE)},
        **admin_paths(ours),
        "/v2": {"get": operation("The server's metadata.", protocol, None, record(_SERVER))},
        "/v2/health/live": {"get": _probe("Whether the server runs.", protocol, "live")},
        "/v2/health/ready": {"get": _probe("Whether the server takes requests.", protocol, "ready")},
    }
    for stem, named in (("/v2/models/{name}", [model]), ("/v2/models/{name}/versions/{number}", [model, number])):
        about = operation("A model's metadata.", protocol, None, _MODEL, (404,), named)
        ready = operation("Whether a model is ready.", protocol, None, record({"name": STRING, "ready": _TRUE}), (404,), named)
        infer = operation(
            "Score, or take feedback.", protocol, _infer(definition), _INFERRED, (404, 413, *fails), [*named, _HEADER]
        )
        for way in (infer["requestBody"], infer["responses"]["200"]):
            # The tensors' bytes may follow the JSON, which the header counts.
            way["content"]["application/octet-stream"] = {}
        paths |= {stem: {"get": about}, f"{stem}/ready": {"get": ready}, f"{stem}/infer": {"post": infer}}
    made: Json = {
        "openapi": "3.1.0",
        "info": {"title": definition.name, "version": version("riverdelta")},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
    return made | {"security": [{"token": []}]} if Access.of(settings).on else made


def column_schema(column: Column) -> Json:
    """Return the JSON schema of one row of a column.

    >>> column_schema(Column.parse("user_id", "int64"))["type"]
    ['integer', 'string']
    >>> column_schema(Column.parse("item_vec", "float32[2]"))["minItems"]
    2
    """
    dtype = np.dtype(column.dtype)
    if column.kind == "id":
        made: Json = {"type": ["integer", "string"], **_range(np.dtype(np.int64)), "description": "A string is hashed."}
    elif dtype.kind in "iu":
        made = {"type": "integer", **_range(dtype)}
    elif dtype.kind == "b":
        made = {"type": "boolean"}
    else:
        made = {"type": "number"}
    for length in reversed(column.shape):
        exactly = {} if length is None else {"minItems": length, "maxItems": length}
        made = {"type": "array", "items": made, **exactly}
    return made


def _score(definition: Definition, settings: Settings) -> Json:
    def rows(of: Json) -> Json:
        return {"type": "array", "items": of, "minItems": 1, "maxItems": settings.max_rows}

    columns = {name: rows(column_schema(column)) for name, column in definition.request_schema.items()}
    propensity = rows({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    return {
        "type": "object",
        "properties": {"columns": record(columns), "propensity": {"anyOf": [propensity, {"type": "null"}]}},
        "required": ["columns"],
        "additionalProperties": False,
        "examples": [{"columns": {name: [_value(c)] for name, c in definition.request_schema.items()}}],
    }


def _scored(settings: Settings) -> Json:
    kind = ["number", "null"] if settings.not_finite == "null" else "number"
    return record({"scores": array({"type": kind, "minimum": 0, "maximum": 1}), "impressions": STRING, "state": STRING})


def _infer(definition: Definition) -> Json:
    def tensor(name: str, column: Column) -> Json:
        row = np.array([_value(column)])
        return {"name": name, "datatype": datatype_of(column.dtype), "shape": list(row.shape), "data": row.ravel().tolist()}

    return _INFER | {"examples": [{"inputs": [tensor(name, c) for name, c in definition.request_schema.items()]}]}


def _value(column: Column) -> Any:
    """One row of a column, of zeros; an axis of any length has one place."""
    return np.zeros([1 if n is None else n for n in column.shape], column.dtype).tolist()


def _feedback(definition: Definition, settings: Settings) -> Json:
    labels = definition.loss.labels
    label: Json = {"type": "number"} if labels is None else {"enum": [int(one) if one.is_integer() else one for one in labels]}
    labelled = {"type": "object", "properties": {"id": _ID, "label": label}, "required": ["id", "label"]}
    shown = {
        "type": "object",
        "properties": {"id": _ID, "shown": {"const": True}, "label": {"type": "null"}},
        "required": ["id", "shown"],
    }
    items = {"type": "array", "items": {"anyOf": [labelled, shown]}, "minItems": 1, "maxItems": settings.max_rows}
    return {"anyOf": [record({"items": items}), items]}


def _probe(summary: str, error: Json, name: str) -> Json:
    answers = {"200": {"description": "Yes.", **content(record({name: _TRUE}))}}
    answers["503"] = {"description": SAID[503], **content(error)}
    return {"summary": summary, "responses": answers, "security": []}


def _path(name: str, values: list[str]) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": values}}


def _range(dtype: np.dtype[Any]) -> Json:
    limits = np.iinfo(dtype)
    return {"minimum": int(limits.min), "maximum": int(limits.max)}


_TRUE: Json = {"const": True}
_FED = record({"outcomes": array({"enum": [str(outcome) for outcome in Outcome]}), "position": COUNT})
_SERVER: Json = {"name": STRING, "version": STRING, "extensions": array(STRING)}
_TENSORS = array(record({"name": STRING, "datatype": STRING, "shape": array({"type": "integer", "minimum": -1})}))
_MODEL = record({"name": STRING, "inputs": _TENSORS, "outputs": _TENSORS, "versions": array(STRING), "platform": STRING})
_TENSOR: Json = {
    "type": "object",
    "properties": {"name": STRING, "datatype": STRING, "shape": array(COUNT), "data": array({}), "parameters": _FREE},
    "required": ["name", "datatype", "shape"],
}
_INFER: Json = {
    "type": "object",
    "properties": {
        "id": STRING,
        "parameters": _FREE,
        "inputs": array(_TENSOR),
        "outputs": array({"type": "object", "properties": {"name": STRING, "parameters": _FREE}, "required": ["name"]}),
    },
    "required": ["inputs"],
}
_INFERRED: Json = {
    "type": "object",
    "properties": {"model_name": STRING, "model_version": STRING, "id": STRING, "outputs": array(_TENSOR)},
    "required": ["model_name", "model_version", "outputs"],
}
_HEADER: Json = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "The length of the JSON, where tensors' bytes follow it.",
    "schema": {"type": "integer", "minimum": 0},
}
