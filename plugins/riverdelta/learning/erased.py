"""Erased: the rows that `riverdelta forget` takes out of the journal, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Columns, Floats, Ints
from riverdelta.core.hashing import id64
from riverdelta.core.records import Impressions

Flags = npt.NDArray[np.bool_]
#: How a command names a request by its client's id.
REQUEST = "request_id"
#: The bits of a row's index in its key; see `joiner.waiting.keys`.
_INDEX_BITS = 20


@dataclass(frozen=True)
class Subject:
    """What is forgotten: the id `own` of the column `name`, or one request of an incarnation whose client's id has the hash
    `own`; as a record names it.

    >>> Subject.parse("user_id=-7"), Subject.parse("request_id=4.2.-9"), Subject.parse("user_id=#5f1c")
    (Subject(name='user_id', own=-7, request=None), Subject(name=None, own=-9, request=(4, 2)), None)
    >>> str(Subject.parse("request_id=4.2.-9"))
    'request_id=4.2.-9'
    """

    name: str | None
    own: int
    request: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Subject | None:
        """Return what the text of a record names, None if it is forgotten already and only its digest is left."""
        name, _, value = text.partition("=")
        if value.startswith("#"):
            return None
        if name == REQUEST and "." in value:
            incarnation, number, own = map(int, value.split("."))
            return cls(None, own, (incarnation, number))
        return cls(name, int(value))

    def __str__(self) -> str:
        return (
            f"{self.name}={self.own}" if self.request is None else f"{REQUEST}={self.request[0]}.{self.request[1]}.{self.own}"
        )

    def among(self, impressions: Impressions) -> Flags:
        """Return which rows of a record are forgotten, bool[N]."""
        if self.request is not None:
            incarnation, request = self.request
            return np.asarray((impressions.request == request) & (impressions.incarnation == incarnation))
        return self.of(impressions.columns, len(impressions))

    def of(self, columns: Columns, rows: int) -> Flags:
        """Return which of `rows` rows have the id, bool[N]; none for a request."""
        if self.name is None or (column := columns.get(self.name)) is None or column.ndim != 1:
            return np.zeros(rows, np.bool_)
        if column.dtype == object:
            column = np.array([id64(each) for each in column.tolist()], np.int64)
        return np.asarray(column == self.own)


@dataclass(frozen=True)
class Erased:
    """The rows of a subject that the journal had.

    By incarnation their keys int64[N], ascending; their id columns, int64[N] each; and the base's raw outputs float32[N, K].
    """

    subject: Subject
    keys: Mapping[int, Ints] = field(default_factory=dict)
    columns: Mapping[str, Ints] = field(default_factory=dict)
    base: Floats | None = None

    @classmethod
    def of(cls, subject: Subject, records: Iterable[Impressions]) -> Erased:
        """Return the rows of a subject in some records; of the columns those that all records with such rows have."""
        keys, parts, bases = dict[int, list[Ints]](), list[dict[str, Ints]](), list[Floats]()
        for record in records:
            if (mine := subject.among(record)).any():
                keys.setdefault(record.incarnation, []).append(record.request[mine] << _INDEX_BITS | record.index[mine])
                ids = {name: column for name, column in record.columns.items() if column.dtype == np.int64 and column.ndim == 1}
                parts.append({name: column[mine] for name, column in ids.items()})
                bases.append(record.base[mine])
        names = set(parts[0]).intersection(*parts) if parts else set()
        columns = {name: np.concatenate([each[name] for each in parts]) for name in sorted(names)}
        joined = {number: np.unique(np.concatenate(each)) for number, each in keys.items()}
        return cls(subject, joined, columns, np.concatenate(bases) if bases else None)

    def __len__(self) -> int:
        return sum(map(len, self.keys.values()))

    def has(self, incarnation: Ints, key: Ints) -> Flags:
        """Return which rows, given by incarnation and key int64[N], are among them, bool[N]."""
        found = np.zeros(len(key), np.bool_)
        for number, mine in self.keys.items():
            at = np.flatnonzero(incarnation == number)
            found[at] = np.isin(key[at], mine)
        return found

    def like(self, columns: Columns, base: Floats) -> Flags:
        """Return which of M rows have the id, or the ids and the base's output of one of them, bool[M]: they have no keys."""
        found = self.subject.of(columns, len(base))
        if self.base is not None and self.base.shape[1:] == base.shape[1:]:
            names = [name for name in self.columns if name in columns]
            mine, theirs = (
                np.concatenate([np.stack([of[name] for name in names], 1).view(np.int32), raw.view(np.int32)], 1)
                if names
                else raw.view(np.int32)
                for of, raw in ((self.columns, self.base), (columns, base))
            )
            known = {row.tobytes() for row in np.ascontiguousarray(mine)}
            found |= np.array([row.tobytes() in known for row in np.ascontiguousarray(theirs)], np.bool_)
        return found
