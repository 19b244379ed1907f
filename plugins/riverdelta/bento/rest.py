"""REST: the routes /score, /feedback, /status and /openapi.json."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.guard import visit
from riverdelta.bento.http import json, json_object, mounted, read_json, refuse_unknown
from riverdelta.bento.openapi import document
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.schemas import Labelled, ScoreRequest
from riverdelta.core.errors import InvalidInput

_BODY, _ITEM = tuple(ScoreRequest.model_fields), tuple(Labelled.model_fields)
_NAN, _NUMBERS = float("nan"), {int, float, bool}


def routes(runtime: Runtime) -> list[Route]:
    """Return the routes of a scorer."""

    async def score(request: Request) -> Response:
        plane = runtime.plane
        body = json_object(await read_json(request, plane.settings.max_bytes), _BODY)
        if "columns" not in body:
            raise InvalidInput('the body has no "columns"; expected {"columns": {"user_id": [1, 2], ...}}')
        visit().rows(body["columns"])
        answer = await runtime.score(body["columns"], body.get("propensity"), "rest")
        scored = perf_counter()
        response = json({"scores": answer.scores, "impressions": answer.impressions, "state": str(answer.state)})
        plane.metrics.encoded("rest", perf_counter() - scored)
        return response

    async def feedback(request: Request) -> Response:
        plane = runtime.plane
        ids, labels = _items(await read_json(request, plane.settings.max_bytes), plane.definition.loss.expected)
        visit().rows(ids)
        answer = await plane.feedback(ids, labels, visit().caller.source)
        return json({"outcomes": answer.outcomes, "position": answer.position})

    async def status(request: Request) -> Response:
        return json(runtime.plane.status())

    async def openapi(request: Request) -> Response:
        return json(document(runtime.definition, runtime.plane.settings))

    return mounted({"score": score, "feedback": feedback, "status": status, "openapi": openapi})


def _items(parsed: Any, expected: str) -> tuple[list[str], Any]:
    """Return the ids and labels of feedback; a faster equivalent of `FeedbackRequest`, with which a test compares it."""
    items = parsed if isinstance(parsed, list) else json_object(parsed, ("items",)).get("items")
    if not isinstance(items, list) or not items:
        raise InvalidInput('the body has no items; expected {"items": [{"id": "<id>.<index>", "label": 1}, ...]}')
    labels = _labels(items) if len(items) > 1 else None
    if labels is None:
        labels = [_item(i, item, expected) for i, item in enumerate(items)]
    return [item["id"] for item in items], np.array(labels, np.float64)


def _labels(items: list[Any]) -> list[Any] | None:
    """Return the labels if each item has only an id, and a label or shown; None otherwise."""
    try:
        kinds = {type(item["id"]) for item in items}
        labels = [item["label"] if "label" in item else _NAN if item["shown"] is True else None for item in items]
    except (TypeError, KeyError):
        return None
    return labels if kinds == {str} and {*map(len, items)} == {2} and {*map(type, labels)} <= _NUMBERS else None


def _item(i: int, item: Any, expected: str) -> float:
    """Return the label of an item, NaN if it was only shown."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        raise InvalidInput(f'item {i} is {item!r}; expected {{"id": "<id>.<index>", "label": {expected}}} or "shown": true')
    if len(item) != 1 + ("label" in item) + ("shown" in item):
        refuse_unknown(item, _ITEM, f"item {i}")
    label, shown = item.get("label"), item.get("shown")
    if shown is not None and shown is not True:
        raise InvalidInput(f'item {i} has shown {shown!r}; expected "shown": true, or a label without "shown"')
    if label is None and shown:
        return _NAN
    if not isinstance(label, int | float):
        raise InvalidInput(f'item {i} has label {label!r}; expected {expected}, or "shown": true instead')
    return label
