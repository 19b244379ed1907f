"""REST: the routes /score, /feedback, /status and /openapi.json."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.guard import visit
from riverdelta.bento.http import json, mounted, read_body
from riverdelta.bento.openapi import document
from riverdelta.bento.parsing import parse_json
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.schemas import Items, ScoreRequest
from riverdelta.bento.sizes import Sizes
from riverdelta.core.strict import validated
from riverdelta.storage.journal.names import RowName, named

_NAN, _NUMBERS = float("nan"), {int, float, bool}
_LABELS = _NUMBERS | {str}
#: The optional numbers of an item: the argument of `feedback.checked` for each, and what stands for none.
_MORE = {
    "weight": ("weights", 1.0),
    "time": ("times", _NAN),
    "propensity": ("propensities", _NAN),
    "position": ("positions", _NAN),
}


def routes(runtime: Runtime) -> list[Route]:
    """Return the routes of a scorer."""

    async def score(request: Request) -> Response:
        plane = runtime.plane
        body = await read_body(request, runtime)
        asked = await runtime.read(len(body), _asked, body, runtime.sizes)
        visit().rows(asked.columns)
        answer = await runtime.score(asked.columns, asked.propensity, "rest", len(body), asked.request_id, asked.row_ids)
        scored = perf_counter()
        made = {"scores": answer.scores, "impressions": answer.impressions, "state": str(answer.state)}
        if answer.labels is not None:
            made |= {"labels": answer.labels, "classes": answer.loss.classes}
        made |= answer.bounds
        response = json(made)
        plane.metrics.encoded("rest", perf_counter() - scored)
        return response

    async def feedback(request: Request) -> Response:
        body = await read_body(request, runtime)
        ids, labels, more = await runtime.read(len(body), _items, body, runtime.sizes)
        visit().rows(ids)
        answer = await runtime.feedback(ids, labels, visit().caller.source, len(body), **more)
        refusal = answer.refusal()
        status = 200 if refusal is None else refusal.http_status
        return json({"outcomes": answer.outcomes, "position": answer.position}, status)

    async def status(request: Request) -> Response:
        return json(runtime.plane.status())

    described: dict[str, Any] = {}

    async def openapi(request: Request) -> Response:
        if not described:
            described.update(await asyncio.to_thread(document, runtime.definition, runtime.plane.settings))
        return json(described)

    return mounted({"score": score, "feedback": feedback, "status": status, "openapi": openapi})


def _asked(body: bytes, sizes: Sizes) -> ScoreRequest:
    sizes.check(body)
    return validated(ScoreRequest, parse_json(body, "the body"), "the body")


def _items(body: bytes, sizes: Sizes) -> tuple[list[str | RowName], Any, dict[str, Any]]:
    """Return the rows and labels of feedback, NaN for a row that was only shown, and what else any item has."""
    sizes.check(body)
    parsed = parse_json(body, "the body")
    items = parsed.get("items") if isinstance(parsed, dict) and len(parsed) == 1 else parsed
    if isinstance(items, list) and (plain := _plain(items)) is not None:
        return plain
    valid = validated(Items, parsed if isinstance(parsed, dict) else {"items": parsed}, "the body")
    rows = [named(item.id, item.request_id, item.row_id, item.index, f"items[{at}]") for at, item in enumerate(valid.items)]
    items = [item.model_dump(exclude_none=True) for item in valid.items]
    more = _more(items) | ({"complete": True} if valid.complete else {})
    return rows, _labels([item.get("label", _NAN) for item in items]), more


def _labels(given: list[Any]) -> Any:
    """Return labels as numbers, or as they are if any is the name of a class, or true or false."""
    return given if {str, bool} & set(map(type, given)) else np.array(given, np.float64)


def _more(items: list[dict[str, Any]]) -> dict[str, Any]:
    keys = [key for key in _MORE if any(key in item for item in items)]
    return {_MORE[key][0]: np.array([item.get(key, _MORE[key][1]) for item in items], np.float64) for key in keys}


def _plain(items: list[Any]) -> tuple[list[str | RowName], Any, dict[str, Any]] | None:
    """Return what `_items` does if each item has an id, a label or shown, and no null, else None.

    It is faster than `Items`, and a test compares the two.
    """
    try:
        rows = [item["id"] for item in items]
        labels = [item["label"] if "label" in item else _NAN if item["shown"] is True else None for item in items]
    except (TypeError, KeyError):
        return None
    if {*map(type, rows)} != {str} or not {*map(type, labels)} <= _LABELS:
        return None
    if {*map(len, items)} == {2}:
        return rows, _labels(labels), {}
    more = [item[key] for item in items for key in item.keys() & _MORE]
    if not {*map(type, more)} <= {int, float} or sum(map(len, items)) != 2 * len(items) + len(more):
        return None
    return rows, _labels(labels), _more(items)
