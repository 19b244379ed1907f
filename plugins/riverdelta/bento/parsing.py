"""Parsing: reads JSON, and says what is wrong with a body that is not."""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from json import loads
from typing import Any

import orjson

from riverdelta.core.errors import InvalidInput

#: What other libraries write for numbers that JSON does not have, and a number that is too large to be finite.
_NOT_FINITE, _NUMBER = re.compile(r"[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE), re.compile(r"-?[0-9.eE+-]+")
#: The place in a larger body is given by its character alone: to find the name takes about 20 ns a byte.
_NAMED_BYTES = 1 << 16
#: Colons are counted in bodies up to this size: parsing takes half as long again.
_COUNTED_BYTES = 1 << 20


def parse_json(data: bytes, what: str) -> Any:
    """Return the value of the JSON `data`; errors call it `what`.

    Raises `InvalidInput` if it is not valid JSON, naming a number that is not finite, or if at most 1 MiB have a key twice.

    >>> parse_json(b'{"columns": {"x": [0.5, NaN]}}', "the body")
    Traceback (most recent call last):
    riverdelta.core.errors.InvalidInput: the body: columns.x[1] is NaN (character 24); JSON has finite numbers only
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{what}{_wrong(data, error)}") from None
    if len(data) <= _COUNTED_BYTES and _more_colons(data, value):
        loads(data, object_pairs_hook=lambda pairs: _once(pairs, what), parse_int=str, parse_float=str)
    return value


def _more_colons(data: bytes, value: Any) -> bool:
    """Whether data have other colons than their value, as a key that was given twice leaves them, or one that is escaped."""
    try:
        return data.count(b":") != orjson.dumps(value).count(b":") or b"\\u003" in data
    except orjson.JSONEncodeError:  # it writes 254 levels, and reads more
        raise RecursionError from None


def _once(pairs: list[tuple[str, Any]], what: str) -> None:
    if twice := [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]:
        raise InvalidInput(f"{what} has {reprlib.repr(twice[0])} twice; give it once")


def _wrong(data: bytes, error: orjson.JSONDecodeError) -> str:
    if not data:
        return " is empty; expected JSON"
    try:
        text = data.decode()
    except UnicodeDecodeError as at:
        said = f"byte {at.start} is not UTF-8; send UTF-8, and declare a compression in Content-Encoding"
        return f" ({len(data)} bytes) is not JSON: {said}"
    # An error about a number's sign or size is reported after its sign.
    pattern = _NUMBER if "infinity" in error.msg else _NOT_FINITE
    found = next(filter(None, (pattern.match(text, at) for at in (max(error.pos - 1, 0), error.pos))), None)
    if found is None:
        return f" ({len(data)} bytes) is not JSON: {error}"
    value, place = reprlib.repr(found[0]).strip("'"), _place(text) if len(data) <= _NAMED_BYTES else ""
    where = f": {place} is {value} (character {found.start()})" if place else f" has {value} at character {found.start()}"
    return f"{where}; JSON has finite numbers only"


def _place(text: str) -> str:
    """Return the first number in a text that is not finite, as `columns.x[1]`; nothing if the text has other faults too."""
    try:
        return (_path(loads(text)) or "").removeprefix(".")
    except (ValueError, RecursionError):
        return ""


def _path(value: Any) -> str | None:
    """Return the path to the first number in a value that is not finite; None if all are.

    >>> _path({"columns": {"x": [0.5, float("nan")]}})
    '.columns.x[1]'
    """
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    parts: Any = ((f"[{i}]", v) for i, v in enumerate(value)) if isinstance(value, list) else ()
    if isinstance(value, dict):
        parts = ((f".{key}", v) for key, v in value.items())
    for name, part in parts:
        if (rest := _path(part)) is not None:
            return f"{name}{rest}"
    return None
