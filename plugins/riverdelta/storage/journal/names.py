"""Names: the ids that a client gives to a request and its rows, and what the index keeps with them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import pack, take, unpack
from riverdelta.core.errors import InvalidInput, kind, short
from riverdelta.core.features import Floats, Ints
from riverdelta.core.hashing import digest, id64
from riverdelta.core.values import is_list
from riverdelta.storage.journal.base import Outcome
from riverdelta.storage.journal.ids import Row
from riverdelta.storage.log.base import Index
from riverdelta.storage.registry.state import State

#: The maximum length of a request id or a row id, in bytes of UTF-8.
MOST_NAME_BYTES = 128
_DIGEST_BYTES = 16
_EXPECTED = f"expected 1 to {MOST_NAME_BYTES} bytes of UTF-8 without control characters"


@dataclass(frozen=True, slots=True)
class RowName:
    """A row by its client's ids: the request, and its row id or index; neither is needed for a request of one row."""

    request_id: str
    row_id: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        given = {"request_id": self.request_id, "row_id": self.row_id, "index": self.index}
        return ", ".join(f"{name} {short(value)}" for name, value in given.items() if value is not None)


def check_name(value: Any, what: str) -> str:
    """Return an id that a client gives to a request or a row; raises `InvalidInput`, calling it `what`.

    It is taken as it is, without normalization: two spellings of the same text are two ids.

    >>> check_name("order-1723", "request_id")
    'order-1723'
    >>> check_name("", "request_id")
    Traceback (most recent call last):
    riverdelta.core.errors.InvalidInput: request_id is ''; expected 1 to 128 bytes of UTF-8 without control characters
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is {kind(value)}; {_EXPECTED}")
    # The length in characters first: a longer one is not encoded.
    good = 0 < len(value) <= MOST_NAME_BYTES and not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)
    if not good or len(value.encode()) > MOST_NAME_BYTES:
        raise InvalidInput(f"{what} is {short(value)}; {_EXPECTED}")
    return value


def check_row_id(value: Any, what: str) -> str:
    """Return a row's id as text: an integer is its decimal digits; raises `InvalidInput`, calling it `what`.

    >>> check_row_id(7, "row_id") == check_row_id("7", "row_id")
    True
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return str(value) if whole and abs(int(value)) < 1 << 64 else check_name(value, what)


def named(id: str | None, request_id: Any, row_id: Any, index: Any, what: str) -> str | RowName:
    """Return what feedback names a row by: the `id` of its impression, or the client's ids; raises as `check_name`."""
    if request_id is None:
        return id or ""
    row = None if row_id is None else check_row_id(row_id, f"{what}.row_id")
    if index is not None and (type(index) is not int or index < 0):
        raise InvalidInput(f"{what}.index is {short(index)}; expected an integer of at least 0")
    return RowName(check_name(request_id, f"{what}.request_id"), row, index)


def check_row_ids(values: Any, rows: int) -> tuple[str, ...]:
    """Return the ids of a request's rows; raises `InvalidInput` naming one that is invalid or given twice."""
    if not is_list(values):
        raise InvalidInput(f"row_ids is {kind(values)}; expected a list of {rows} strings or integers, one a row")
    if len(values) != rows:
        raise InvalidInput(f"row_ids has {len(values)} values; expected {rows}, one a row")
    checked = tuple(check_row_id(value, f"row_ids[{row}]") for row, value in enumerate(values))
    places: dict[str, int] = {}
    for row, name in enumerate(checked):
        if (first := places.setdefault(name, row)) != row:
            raise InvalidInput(f"row_ids has {short(name)} twice, at {first} and {row}; give each row of a request its own id")
    return checked


def content_digest(columns: Mapping[str, npt.NDArray[Any]], *more: npt.NDArray[Any] | None) -> bytes:
    """Return the digest that two requests have in common if they have the same rows: columns as checked, and `more`."""
    parts: list[bytes] = []
    for name, array in (*sorted(columns.items()), *((f"#{at}", array) for at, array in enumerate(more) if array is not None)):
        # Strings of an array of objects are counted, so that no two lists of them are written alike.
        texts = [str(value).encode() for value in array.ravel().tolist()] if array.dtype.kind in "OU" else None
        body = array.tobytes() if texts is None else b"".join(b"%d:%b" % (len(text), text) for text in texts)
        kind_of = "text" if texts is not None else array.dtype.str
        parts += (f"{len(name)}:{name} {kind_of} {array.shape} {len(body)}:".encode(), body)
    return digest(*parts, size=_DIGEST_BYTES)


@dataclass(frozen=True)
class Answered:
    """What a named request was answered, the digest of its contents, and the hashes of its row ids int64[N], if any."""

    digest: bytes
    state: State
    scores: Floats
    base: Floats
    row_ids: Ints | None
    bounds: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def encode(self) -> bytes:
        """Return it as bytes."""
        arrays = {
            "digest": np.frombuffer(self.digest, np.uint8),
            "state": np.array([self.state.release, self.state.swap, self.state.position]),
            "scores": self.scores,
            "base": self.base,
            **{f"bound_{name}": ends for name, ends in self.bounds.items()},
        }
        return b"".join(pack(arrays if self.row_ids is None else arrays | {"row_ids": self.row_ids}))

    @classmethod
    def decode(cls, data: bytes, source: str) -> Answered:
        """Return what `encode` wrote; raises `Corrupt` naming `source` if the bytes are damaged."""
        arrays = unpack(data, source)
        state = State(*take(arrays, "state", np.zeros(3, np.int64)).tolist())
        row_ids = take(arrays, "row_ids", np.zeros(0, np.int64), any_rows=True) if "row_ids" in arrays else None
        bounds = {name.removeprefix("bound_"): take(arrays, name) for name in arrays if name.startswith("bound_")}
        return cls(take(arrays, "digest").tobytes(), state, take(arrays, "scores"), take(arrays, "base"), row_ids, bounds)


def hashed(row_ids: Sequence[str]) -> Ints:
    """Return the hashes of row ids."""
    return np.array([id64(name) for name in row_ids], np.int64)


class Resolver:
    """Finds rows by their clients' ids in a log's index, for one call: every request is looked up once."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._found: dict[str, tuple[tuple[int, int], int, Mapping[int, int]] | Outcome] = {}

    def find(self, name: RowName) -> Row | Outcome:
        """Return a row, or why there is none: `bad_id` or `expired` of the request, `out_of_range` for an unknown row of it.

        Raises `InvalidInput` if the request has several rows, and the name does not say which.
        """
        if name.request_id not in self._found:
            self._found[name.request_id] = self._look_up(name.request_id)
        found = self._found[name.request_id]
        if isinstance(found, Outcome):
            return found
        request, rows, places = found
        if name.row_id is not None:
            place = places.get(id64(name.row_id))
            return Outcome.OUT_OF_RANGE if place is None else (*request, place)
        if name.index is None and rows > 1:
            ways = "row_id, as it was given in row_ids" if places else "index, from 0"
            raise InvalidInput(f"the request {short(name.request_id)} has {rows} rows; say which one is meant: add its {ways}")
        return (*request, name.index or 0) if (name.index or 0) < rows else Outcome.OUT_OF_RANGE

    def _look_up(self, name: str) -> tuple[tuple[int, int], int, Mapping[int, int]] | Outcome:
        if (named := self._index.named(name)) is None:
            return Outcome.EXPIRED if self._index.outlived(name) else Outcome.BAD_ID
        known = Answered.decode(named.content, f"what {self._index.where} has of the request {short(name)}")
        hashes = [] if known.row_ids is None else known.row_ids.tolist()
        return named.request, len(known), {row_id: place for place, row_id in enumerate(hashes)}
