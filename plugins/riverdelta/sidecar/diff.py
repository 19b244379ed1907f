"""Diff: which coefficients changed between two releases, the largest first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput, near
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.corrections.coefficients import At, Coefficients, Ids
from riverdelta.corrections.stack import Stack
from riverdelta.learning.definition import Definition
from riverdelta.sidecar.contest import stack_of
from riverdelta.storage.registry import ReleaseStore

#: How many changes are shown where nobody says how many.
TOP = 20
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_QUOTED = re.compile(r'"(.*)"', re.DOTALL)


@dataclass(frozen=True)
class Change:
    """One coefficient in two releases; `logits` is its change times the usual size of its feature, None where that is unknown.

    `slot` is its row in a table that ids share by hashing, `id` whose it is, where that was asked for.
    """

    correction: str
    table: str
    feature: str
    slot: int | None
    id: str | None
    before: float
    after: float
    logits: float | None

    @property
    def weight(self) -> float:
        """By how much it counts among others."""
        return abs(self.after - self.before if self.logits is None else self.logits)


@dataclass(frozen=True)
class Turnover:
    """How many of a table's coefficients changed."""

    correction: str
    table: str
    changed: int
    coefficients: int


@dataclass(frozen=True)
class Diff:
    """What changed from release `a` to release `b`: by table, and the coefficients that moved most, or those of an id."""

    a: int
    b: int
    examples: int
    tables: Sequence[Turnover]
    changes: Sequence[Change]


def diff(definition: Definition, store: ReleaseStore, a: int, b: int, top: int = TOP, ids: Ids | None = None) -> Diff:
    """Compare two releases, by number; with `ids`, one by its column's name, show what belongs to them, changed or not.

    The usual size of a feature is the root of its mean square where it is not 0, as `b` has seen it, or else `a`; that of an
    id is 1. The `top` largest changes are shown. Raises `NotFound` or `Corrupt` where a release or its state is not there or
    not whole, and `InvalidInput` where no correction is keyed by `ids`.
    """
    releases = [store.get(number) for number in (a, b)]
    old, new = (stack_of(release, store, definition.new_stack) for release in releases)
    _known(ids or {}, new, definition.schema)
    tables: list[Turnover] = []
    changes: list[Change] = []
    for name, was, now in zip(new.names, old.corrections, new.corrections, strict=True):
        former = was.coefficients()
        for key, after in now.coefficients().items():
            before, after = _aligned(former[key], after)
            moved = after.values != before.values
            tables.append(Turnover(name, key, int(moved.sum()), moved.size))
            places = _largest(before, after, moved, top) if ids is None else _of(after.find(ids), after)
            changes += _changes(name, key, before, after, places)
    if ids is not None and not changes:
        raise InvalidInput(f"no table is keyed by {' and '.join(ids)} alone; a cross takes an id of each of its columns")
    changes.sort(key=lambda change: change.weight, reverse=True)
    return Diff(a, b, releases[1].examples - releases[0].examples, tables, changes[:top])


def parse_ids(given: Sequence[str], schema: Schema) -> dict[str, int] | None:
    """Return ids written as `column=value`, None where there are none; raises `InvalidInput` naming what is no id.

    A whole number is itself; anything else is text, and so is a number in double quotes.

    >>> schema = Schema.of({"user_id": "int64", "country": "int64"})
    >>> parse_ids(["user_id=42", "country=de"], schema) == {"user_id": 42, "country": id64("de")}
    True
    >>> parse_ids(['user_id="42"'], schema) == {"user_id": id64("42")}
    True
    """
    ids = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in ids:
            raise InvalidInput(f"id is {text!r}; expected column=value, and each column once")
        if name not in schema or schema[name].kind != "id":
            known = [column.name for column in schema.values() if column.kind == "id"]
            raise InvalidInput(f"{name!r} is no column of ids: {near(name, known)}")
        quoted = _QUOTED.fullmatch(value)
        ids[name] = int(value) if _INTEGER.fullmatch(value) else id64(quoted[1] if quoted else value)
        if not -(2**63) <= ids[name] < 2**63:
            raise InvalidInput(f"{name} is {value}; an id is within 64 bits")
    return ids or None


def _known(ids: Ids, stack: Stack, schema: Schema) -> None:
    for name in ids:
        if name not in stack.reads:
            read = [column for column in stack.reads if schema[column].kind == "id"]
            raise InvalidInput(f"no correction reads {name!r}: {near(name, read)}")


def _aligned(before: Coefficients, after: Coefficients) -> tuple[Coefficients, Coefficients]:
    """The same features in both: one that a release did not have yet is 0 there."""
    if before.features == after.features:
        return before, after
    features = tuple(dict.fromkeys([*after.features, *before.features]))
    return _over(before, features), _over(after, features)


def _over(of: Coefficients, features: tuple[str, ...]) -> Coefficients:
    values, sizes = np.zeros((1, len(features))), np.full(len(features), np.nan)
    have = [features.index(feature) for feature in of.features]
    values[0, have], sizes[have] = of.values[0], of.sizes
    return Coefficients(features, values, sizes, of.slots, of.find)


def _sizes(before: Coefficients, after: Coefficients) -> npt.NDArray[np.float64]:
    return np.where(np.isnan(after.sizes), before.sizes, after.sizes)


def _largest(
    before: Coefficients, after: Coefficients, moved: npt.NDArray[np.bool_], top: int
) -> Iterator[tuple[int, int, str | None]]:
    rows, columns = np.nonzero(moved)
    step = np.abs(after.values[rows, columns].astype(np.float64) - before.values[rows, columns])
    step *= np.nan_to_num(_sizes(before, after), nan=1.0)[columns]
    if len(step) > top:
        first = np.argpartition(step, len(step) - top)[len(step) - top :]
        rows, columns = rows[first], columns[first]
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        yield row, column, None


def _of(found: Sequence[At], after: Coefficients) -> Iterator[tuple[int, int, str | None]]:
    for at in found:
        for column in range(len(after.features)) if at.feature is None else (after.features.index(at.feature),):
            yield at.row, column, at.id


def _changes(
    name: str, key: str, before: Coefficients, after: Coefficients, places: Iterator[tuple[int, int, str | None]]
) -> Iterator[Change]:
    sizes = _sizes(before, after)
    for row, column, whose in places:
        was, now, size = float(before.values[row, column]), float(after.values[row, column]), float(sizes[column])
        logits = None if np.isnan(size) else (now - was) * size
        slot = row if after.slots else None
        yield Change(name, key, after.features[column], slot, whose, was, now, logits)
