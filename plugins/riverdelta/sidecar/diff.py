"""Diff: lists the coefficients that changed between two releases, the largest change first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput, near
from riverdelta.core.features import Ints
from riverdelta.corrections.coefficients import At, Coefficients, Ids
from riverdelta.learning.commands import TOP
from riverdelta.learning.definition import Definition
from riverdelta.sidecar.contest import stack_of
from riverdelta.storage.registry import ReleaseStore


@dataclass(frozen=True)
class Change:
    """One coefficient in two releases.

    `effect` on a raw output is its change times the typical size of its feature, None if that is unknown. `slot` is its row in
    a table that ids share by hashing; `id` is its id if the diff was restricted to ids.
    """

    correction: str
    table: str
    feature: str
    slot: int | None
    id: str | None
    before: float
    after: float
    effect: float | None

    @property
    def weight(self) -> float:
        """The size by which changes are sorted."""
        return abs(self.after - self.before if self.effect is None else self.effect)


#: The row and column of a coefficient, and its id if known.
Place = tuple[int, int, str | None]


@dataclass(frozen=True)
class Turnover:
    """The number of a table's coefficients that changed."""

    correction: str
    table: str
    changed: int
    coefficients: int


@dataclass(frozen=True)
class Diff:
    """The changes from release `a` to release `b`: counts by table, and the coefficients that changed most."""

    a: int
    b: int
    examples: int
    tables: Sequence[Turnover]
    changes: Sequence[Change]


def diff(
    definition: Definition,
    store: ReleaseStore,
    a: int,
    b: int,
    top: int = TOP,
    ids: Ids | None = None,
    texts: Mapping[int, str] = MappingProxyType({}),
) -> Diff:
    """Return the differences between two releases, given by number.

    Raises `NotFound` or `Corrupt` if a release or its state is missing or damaged, and `InvalidInput` if no table is keyed by
    `ids`.

    Parameters
    ----------
    top
        The number of changes to return, the largest first (default 20).
    ids
        Ids by column: return their coefficients, changed or not (default: those that changed, of all ids).
    texts
        The texts of string ids, by hash, to show in place of the hashes.

    Notes
    -----
    The typical size of a feature is its root mean square over the rows where it is not 0, in `b`, or in `a` if `b` has none;
    that of an id is 1.
    """
    releases = [store.get(number) for number in (a, b)]
    old, new = (stack_of(release, store, definition.new_stack) for release in releases)
    for name in ids or {}:
        if name not in new.reads:
            read = [column for column in new.reads if definition.schema[column].kind == "id"]
            raise InvalidInput(f"no correction reads {name!r}: {near(name, read)}")
    tables: list[Turnover] = []
    changes: list[Change] = []
    for name, was, now in zip(new.names, old.corrections, new.corrections, strict=True):
        former = was.coefficients()
        for key, after in now.coefficients().items():
            # A feature that a release lacks is 0 there.
            features = tuple(dict.fromkeys([*after.features, *former[key].features]))
            wanted = after.find(ids) if ids is not None else []
            slots = _slots(wanted, former[key], after)
            before, after = (_over(each, features, slots) for each in (former[key], after))
            moved = after.values != before.values
            tables.append(Turnover(name, key, int(moved.sum()), moved.size))
            sizes = np.where(np.isnan(after.sizes), before.sizes, after.sizes)
            places = _of(wanted, features, slots) if ids is not None else _largest(before, after, moved, sizes, top)
            for row, column, whose in places:
                found = before.values[row, column], after.values[row, column], sizes[column]
                old_value, new_value, size = map(float, found)
                effect = None if np.isnan(size) else (new_value - old_value) * size
                slot = None if not after.slots else row if slots is None else int(slots[row])
                for shown, own in (ids or {}).items() if whose else ():
                    whose = str(whose).replace(f"{shown}={own}", f"{shown}={texts.get(own, own)}")
                feature = named(features[column], definition.loss.classes)
                changes.append(Change(name, key, feature, slot, whose, old_value, new_value, effect))
    if ids is not None and not changes:
        raise InvalidInput(f"no table is keyed by {' and '.join(ids)} alone; for a cross give an id of each of its columns")
    changes.sort(key=lambda change: change.weight, reverse=True)
    return Diff(a, b, releases[1].examples - releases[0].examples, tables, changes[:top])


def named(feature: str, classes: Sequence[str] | None) -> str:
    """Return the name of a coefficient of an output, with the class of the output in place of its number.

    >>> named("hour -> 1", ("cat", "dog")), named("hour -> 1", None)
    ('hour -> dog', 'hour -> 1')
    """
    name, arrow, output = feature.rpartition(" -> ")
    known = classes is not None and arrow and output.isdigit() and int(output) < len(classes)
    return f"{name}{arrow}{classes[int(output)]}" if known and classes else feature


def _slots(wanted: Sequence[At], *found: Coefficients) -> Ints | None:
    """Return the slots that have a row in either release or are wanted, None if every slot has one."""
    known = [of.at for of in found if of.at is not None]
    return np.unique(np.concatenate([*known, [at.row for at in wanted]]).astype(np.int64)) if known else None


def _over(of: Coefficients, features: tuple[str, ...], slots: Ints | None) -> Coefficients:
    if slots is not None and of.at is not None:
        placed = np.zeros((len(slots), of.values.shape[1]), of.values.dtype)
        placed[np.searchsorted(slots, of.at)] = of.values
        of = replace(of, values=placed)
    if of.features == features:
        return of
    values, sizes = np.zeros((1, len(features))), np.full(len(features), np.nan)
    have = [features.index(feature) for feature in of.features]
    values[0, have], sizes[have] = of.values[0], of.sizes
    return Coefficients(features, values, sizes, of.slots, of.find)


def _largest(
    before: Coefficients, after: Coefficients, moved: npt.NDArray[np.bool_], sizes: npt.NDArray[np.float64], top: int
) -> list[Place]:
    rows, columns = np.nonzero(moved)
    step = np.abs(after.values[rows, columns].astype(np.float64) - before.values[rows, columns])
    first = np.argsort(-step * np.nan_to_num(sizes, nan=1.0)[columns], kind="stable")[:top]
    return [(row, column, None) for row, column in zip(rows[first].tolist(), columns[first].tolist(), strict=True)]


def _of(found: Sequence[At], features: Sequence[str], slots: Ints | None) -> list[Place]:
    wanted = [(at, features if at.feature is None else (at.feature,)) for at in found]
    rows = [at.row if slots is None else int(np.searchsorted(slots, at.row)) for at in found]
    return [(row, features.index(one), at.id) for row, (at, mine) in zip(rows, wanted, strict=True) for one in mine]
