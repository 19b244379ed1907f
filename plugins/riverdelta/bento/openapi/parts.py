"""Parts: what every operation's description is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

SAID = {
    400: "What was sent can never succeed as it stands; the message names what is wrong with it.",
    401: "A token that this service knows is missing.",
    403: "The token does not allow this.",
    404: "There is no model, version or release of this name.",
    409: "The command cannot be carried out as things stand, and nothing has changed; the message says what can be done.",
    413: "More rows or bytes than are taken at once.",
    415: "The body is not said to be JSON.",
    429: "Too soon after the requests before; Retry-After says when to come again, in seconds.",
    500: "A fault of the service, such as a row whose score is NaN; the message names it.",
    501: "Well formed, and not done: a model beyond the limit of one ONNX file.",
    503: "Not now: the service is starting or stopping, its journal cannot be written, or it waits for rows; see Retry-After.",
}
STRING: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}


def operation(
    summary: str, error: Json, takes: Json | None, gives: Json, also: Iterable[int] = (), parameters: Iterable[Json] = ()
) -> Json:
    """Return one operation: a body makes 400 possible, and a token may be missing everywhere; `also` are further statuses."""
    statuses = sorted({401, 403, 429, 503, *also, *((400,) if takes is not None else ())})
    refused = {str(status): {"description": SAID[status], **content(error)} for status in statuses}
    refused["401"]["headers"] = {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}
    for status in ("429", "503"):
        refused[status]["headers"] = {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}
    made: Json = {"summary": summary, "responses": {"200": {"description": "Done.", **content(gives)}, **refused}}
    if takes is not None:
        made["requestBody"] = {"required": True, **content(takes)}
    if parameters := list(parameters):
        made["parameters"] = parameters
    return made


def content(schema: Json) -> Json:
    """Return what holds JSON of a schema."""
    return {"content": {"application/json": {"schema": schema}}}


def record(properties: Json) -> Json:
    """Return the schema of an object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def query(name: str, schema: Json, said: str, required: bool = False) -> Json:
    """Return a parameter of the query."""
    return {"name": name, "in": "query", "required": required, "description": said, "schema": schema}


def array(of: Json) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": of}
