"""Strict: models that take values as they are, and what is wrong with a value, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from riverdelta.core.errors import InvalidInput, kind, near, short

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A JSON object with exactly these keys, whose values are taken as they are: "1" is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_unknown_keys(cls, given: Any) -> Any:
        # Pydantic makes an error for every unknown key, and one is shown.
        fields = cls.__pydantic_fields__
        if isinstance(given, dict) and len(given) > len(fields) + 1:
            return {name: given[name] for name in (*fields, *islice(given, len(fields) + 1)) if name in given}
        return given


def validated(model: type[Model], given: Any, what: str, keys: str = "an object with") -> Model:
    """Return `given` as a model; raises `InvalidInput` that names the first invalid value of `what`, or an unknown key of it.

    `keys` precedes the names of those that are expected.

    >>> class Point(Strict):
    ...     x: float
    >>> validated(Point, {"x": 1.5}, "the body")
    Point(x=1.5)
    >>> validated(Point, {"x": "1"}, "the body")
    Traceback (most recent call last):
    riverdelta.core.errors.InvalidInput: the body: x is '1'; expected a number
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # The key that is missing may be there by a wrong name.
        errors = error.errors(include_url=False)
        raise _invalid(model, min(errors, key=lambda e: e["type"] != "extra_forbidden"), what, keys) from None


def in_words(schema: Mapping[str, Any], keys: str = "an object with") -> str:
    """Return, in words, which values a JSON schema allows.

    >>> in_words({"type": "boolean"}), in_words({"anyOf": [{"type": "array"}, {"type": "null"}]}), in_words({"const": True})
    ('true or false', 'a list', 'true')
    """
    schema = schema.get("anyOf", [schema])[0]
    if "const" in schema:
        return orjson.dumps(schema["const"]).decode()
    if "enum" in schema:
        return f"{', '.join(schema['enum'][:-1])} or {schema['enum'][-1]}"
    if schema.get("properties"):
        return f"{keys} {', '.join(schema['properties'])}"
    limits = " and ".join(
        f"{words} {schema[key]:{'d' if isinstance(schema[key], int) else 'g'}}"
        for key, words in _LIMITS.items()
        if key in schema
    )
    return f"{_KINDS.get(schema.get('format', schema.get('type')), 'another value')} {limits}".rstrip()


_KINDS = {
    "integer": "an integer", "number": "a number", "string": "text", "path": "a path", "password": "text",
    "boolean": "true or false", "array": "a list", "object": "an object", "null": "null",
}  # fmt: skip
_LIMITS = {
    "exclusiveMinimum": "above", "minimum": "of at least", "exclusiveMaximum": "below", "maximum": "at most",
    "multipleOf": "a multiple of", "minItems": "of at least",
}  # fmt: skip


def schema_at(model: type[BaseModel], location: Iterable[int | str]) -> tuple[str, Mapping[str, Any]]:
    """Return a place in a model, such as `inputs[0].name`, and its JSON schema.

    Pydantic's location ends with the name of a type where several are allowed; the place does not.
    """
    path, at = "", _schema(model)
    definitions = at.get("$defs", {})
    for part in location:
        if isinstance(part, int):
            inner, name = at.get("items"), f"[{part}]"
        else:
            inner, name = at.get("properties", {}).get(part, at.get("additionalProperties")), f".{part}"
        if not isinstance(inner, Mapping):
            break
        at = inner.get("anyOf", [inner])[0]
        at, path = definitions[at["$ref"].rpartition("/")[2]] if "$ref" in at else at, path + name
    return path.lstrip("."), at


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _invalid(model: type[BaseModel], error: ErrorDetails, what: str, keys: str) -> InvalidInput:
    location, given = error["loc"], error["input"]
    path, within = schema_at(model, location[:-1])
    place = f"{what} ({path})" if path else what
    if error["type"] == "extra_forbidden":
        return InvalidInput(f"{unknown(str(location[-1]), within['properties'], place)}{_example(within)}")
    if error["type"] == "missing":
        return InvalidInput(f"{place} has no {location[-1]!r}; expected {in_words(within, keys)}{_example(within)}")
    path, here = schema_at(model, location)
    expected = str(error["ctx"]["error"]) if error["type"] == "value_error" else in_words(here)
    if not path:
        return InvalidInput(f"{what} is {kind(given)}; expected {expected}{_example(here)}")
    example = _example(within, location[-1]) or _example(here)
    return InvalidInput(f"{what}: {path} is {short(given)}; expected {expected}{example}")


def _example(schema: Mapping[str, Any], last: int | str | None = None) -> str:
    """Return an object with the required fields, and with `last`, for the end of a message; nothing without examples."""
    fields, required = schema.get("properties", {}), schema.get("required", ())
    shown = {name: f["examples"][0] for name, f in fields.items() if "examples" in f and (name in required or name == last)}
    return f", as in {orjson.dumps(shown).decode()}" if shown else ""


def unknown(key: str, allowed: Collection[str], what: str) -> InvalidInput:
    """Return the error of a key of `what` that is not allowed: it names the nearest one that is, and all of them.

    >>> str(unknown("wieght", ("label", "weight"), "item 0"))
    "item 0 has 'wieght': did you mean weight? Allowed: label, weight"
    """
    close = near(key, allowed)
    hint = f": {close} A" if "?" in close else "; a"
    return InvalidInput(f"{what} has {short(key)}{hint}llowed: {', '.join(allowed) or 'nothing'}")
