"""Sizes: how many values a body may have, counted before it is parsed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import TooLarge
from riverdelta.core.features import Schema
from riverdelta.core.request import Request
from riverdelta.core.sequences import OPEN_ROW

#: Values and lists beyond those of the rows: names, shapes, parameters.
#: The most values of an item of feedback.
_ITEM = 7
_ENVELOPE = 1_024
#: The bytes that are counted at once.
_PIECE = 1 << 18
_COMMA, _LIST, _OBJECT, _QUOTE = b',[{"'


@dataclass(frozen=True)
class Sizes:
    """The maximum numbers of values, and of lists and objects, in a request of `rows` rows.

    A parser makes an object of every value, in one call that stops all other requests of the worker. The numbers of commas and
    of opening brackets outside of strings, which take milliseconds to count, bound what it will make.

    >>> sizes = Sizes.of(Schema.of({"user": "int64", "vector": "float32[2]"}), 16_384)
    >>> sizes.check(b'{"columns": {"user": [1], "vector": [[1, 2]]}}')
    >>> sizes.check(b"[" + b"[]," * 100_000 + b"[]]")
    Traceback (most recent call last):
    riverdelta.core.errors.TooLarge: the body has 100002 lists and objects; at most 33792 are accepted for 16384 rows
    (RIVERDELTA_MAX_ROWS): send it in parts
    """

    rows: int
    values: int
    lists: int

    @classmethod
    def of(cls, schema: Schema, rows: int) -> Sizes:
        """Return the sizes of a request of `rows` rows of the schema's columns, or as many items of feedback."""
        named = schema.names.values() if isinstance(schema, Request) else ()
        columns = [*schema.values(), *(part for parts in named for part in parts.values())]
        shapes = [[OPEN_ROW if n is None else n for n in column.shape] for column in columns]
        values = sum(math.prod(shape) for shape in shapes)
        # A value of a column [N] may be in a list of its own.
        lists = sum(math.prod(shape[:axis]) for shape in shapes for axis in range(len(shape) or 1))
        # Beside its columns a row may have a propensity and an id; an item of feedback is an object.
        return cls(rows, rows * max(values + 2, _ITEM) + _ENVELOPE, rows * max(lists, 1) + _ENVELOPE)

    def check(self, body: bytes) -> None:
        """Raise `TooLarge` if the JSON `body` has more values, lists or objects than a request may have."""
        if len(body) <= min(self.lists, self.values):
            return
        pieces = (np.frombuffer(body, np.uint8)[at : at + _PIECE] for at in range(0, len(body), _PIECE))
        if self._excess(*_counts(pieces)) and (excess := self._excess(*_counts(_outside_strings(body)))):
            raise TooLarge(f"the body has {excess} for {self.rows} rows (RIVERDELTA_MAX_ROWS): send it in parts")

    def _excess(self, commas: int, lists: int) -> str | None:
        if lists > self.lists:
            return f"{lists} lists and objects; at most {self.lists} are accepted"
        return f"{commas + 1} values; at most {self.values} are accepted" if commas >= self.values else None


def _counts(pieces: Iterator[npt.NDArray[np.uint8]]) -> tuple[int, int]:
    """Return the numbers of commas, and of brackets that open a list or an object."""
    commas = lists = 0
    for piece in pieces:
        commas += int(np.count_nonzero(piece == _COMMA))
        lists += int(np.count_nonzero((piece == _LIST) | (piece == _OBJECT)))
    return commas, lists


def _outside_strings(body: bytes) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the bytes of JSON that are not inside strings."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    everything, inside = np.frombuffer(body, np.uint8), 0
    for at in range(0, len(body), _PIECE):
        piece = everything[at : at + _PIECE]
        # An odd number of quotes comes before a byte inside a string; the sum may wrap at 256, which is even.
        quotes = np.cumsum(piece == _QUOTE, dtype=np.uint8) + np.uint8(inside)
        yield piece[quotes & 1 == 0]
        inside = int(quotes[-1]) & 1
