"""Ids: ids as an operator writes them, with their columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from riverdelta.core.errors import InvalidInput, near
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_QUOTED = re.compile(r'"(.*)"', re.DOTALL)


def parse_ids(given: Sequence[str], schema: Schema) -> dict[str, int] | None:
    """Return ids from texts `column=value`, None if there are none; raises `InvalidInput` naming the text that is not valid.

    An integer is the id itself, unless the column has only strings; any other value is a string, and so is an integer in double
    quotes. An id of an unsigned column may be written as clients send it, or as the int64 that has its bits.

    >>> schema = Schema.of({"user_id": "int64", "country": "int64"})
    >>> parse_ids(["user_id=42", "country=de"], schema) == {"user_id": 42, "country": id64("de")}
    True
    >>> parse_ids(['user_id="42"'], schema) == {"user_id": id64("42")}
    True
    >>> schema.texts = {"country"}
    >>> parse_ids(["country=49"], schema) == {"country": id64("49")}
    True
    >>> schema.unsigned = {"user_id"}
    >>> parse_ids(["user_id=18446744073709551615"], schema)
    {'user_id': -1}
    """
    ids = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in ids:
            raise InvalidInput(f"id is {text!r}; expected column=value, each column once")
        if name not in schema or schema[name].kind != "id":
            known = [column.name for column in schema.values() if column.kind == "id"]
            raise InvalidInput(f"{name!r} is not an id column: {near(name, known)}")
        quoted = _QUOTED.fullmatch(value)
        number = _INTEGER.fullmatch(value) and name not in schema.texts
        ids[name] = int(value) if number else id64(quoted[1] if quoted else value)
        if not -(2**63) <= ids[name] < (2**64 if name in schema.unsigned else 2**63):
            raise InvalidInput(f"{name} is {value}; expected a 64-bit integer")
        ids[name] = (ids[name] + 2**63) % 2**64 - 2**63
    return ids or None
