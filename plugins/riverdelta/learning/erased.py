"""Erased: the rows that `riverdelta forget` takes out of the journal, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Columns, Floats, Ints
from riverdelta.core.keys import keys
from riverdelta.core.records import Impressions
from riverdelta.graph.features import RAW, Feature

Flags = npt.NDArray[np.bool_]
#: How a command names a request by its client's id.
REQUEST = "request_id"


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
    feature: Feature | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, features: Mapping[str, Feature] = {}) -> Subject | None:
        """Return what the text of a record names, None if it is forgotten already and only its digest is left.

        `features` say how an id is read of the column that was sent, where the journal has only that.
        """
        name, _, value = text.partition("=")
        if value.startswith("#"):
            return None
        if name == REQUEST and "." in value:
            incarnation, number, own = map(int, value.split("."))
            return cls(None, own, (incarnation, number))
        return cls(name, int(value), feature=features.get(name))

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
        column = None if self.name is None else columns.get(self.name)
        if self.feature is not None and (column is None or column.dtype != np.int64 or column.ndim != 1):
            source = self.feature.source.name
            if (column := columns.get(RAW + source, columns.get(source))) is not None:
                whole = self.feature.hashed or column.dtype.kind in "iub"
                column = self.feature.of(column) if whole else self.feature.alone(column)
        return np.zeros(rows, np.bool_) if column is None else np.asarray(column == self.own)


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
        by, parts, bases = dict[int, list[Ints]](), list[dict[str, Ints]](), list[Floats]()
        for record in records:
            if (mine := subject.among(record)).any():
                by.setdefault(record.incarnation, []).append(keys(record.request[mine], record.index[mine]))
                ids = {name: column for name, column in record.columns.items() if column.dtype == np.int64 and column.ndim == 1}
                parts.append({name: column[mine] for name, column in ids.items()})
                bases.append(record.base[mine])
        names = set(parts[0]).intersection(*parts) if parts else set()
        columns = {name: np.concatenate([each[name] for each in parts]) for name in sorted(names)}
        joined = {number: np.unique(np.concatenate(each)) for number, each in by.items()}
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
            known = set(_bits(names, self.columns, self.base))
            found |= np.array([bits in known for bits in _bits(names, columns, base)], np.bool_)
        return found


def _bits(names: Iterable[str], columns: Columns, base: Floats) -> list[bytes]:
    """Return the bits of each row's ids and of its base output."""
    ids = [np.ascontiguousarray(columns[name])[:, None].view(np.int32) for name in names]
    return [row.tobytes() for row in np.concatenate([*ids, base.view(np.int32)], axis=1)]
