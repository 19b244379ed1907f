"""Lists: the feedback of requests whose rows are one example, until their windows end or they are complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, nest, part, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats, Ints
from riverdelta.core.feedback import MOST_WEIGHT, Feedback
from riverdelta.core.keys import indices, keys, requests
from riverdelta.learning.joiner.examination import Examination

Items = npt.NDArray[Any]
#: An item of feedback: its row, when the window of its list ends, and what it says; `label` NaN: only shown.
ITEM = np.dtype(
    [("incarnation", "i8"), ("key", "i8"), ("due", "f8"), ("received", "f8"), ("event", "f8"), ("source", "i8")]
    + [("label", "f4"), ("weight", "f4"), ("propensity", "f4"), ("place", "i4")]
)
#: Items of a part: a tick reads only the parts in which a window has ended.
_PART_ITEMS = 65_536
_COUNTS = ("lists", "empty", "late", "clipped")


class Lists:
    """Items of feedback in their order, each with the time at which its list's window ends; 60 bytes an item.

    A list is closed at the first tick at or after the earliest end of its items' windows. It then has each of its rows once, in
    the order of their indices, with the newest label, and the newest propensity and position that came with any item. Lists
    that close together are in the order of their first items.

    >>> lists = Lists()
    >>> ones = np.ones(2, np.int64)
    >>> shown = Feedback(ones, 7 * ones, np.int32([0, 3]), np.float32([np.nan, 1]), np.zeros(2), ones > 1, ones)
    >>> lists.join(shown, 0.0, 60.0, lambda closed, late: None)
    >>> lists.due(59.0, 10).size, lists.due(60.0, 10)["label"].tolist()
    (0, [nan, 1.0])
    """

    def __init__(self, positions: int = 0) -> None:
        self.examination = Examination(positions) if positions else None
        self._parts: list[Items] = []
        #: Lists that were learned, that had no label above 0, late labels, and weights that were clipped.
        self.lists = self.empty = self.late = self.clipped = 0

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def bytes(self) -> int:
        """The size of the items in bytes."""
        return len(self) * ITEM.itemsize

    def add(self, items: Items) -> None:
        """Append items."""
        if len(items):
            if self._parts and len(self._parts[-1]) + len(items) <= _PART_ITEMS:
                items = np.concatenate([self._parts.pop(), items])
            self._parts.append(items)

    def due(self, tick: float, most: int) -> Items:
        """Return the items of the first lists whose window has ended, in order: complete lists, about `most` items."""
        ripe = [part[part["due"] <= tick] for part in self._parts]
        found = self.of(np.concatenate([np.empty(0, ITEM), *ripe]))
        if len(found) <= most:
            return found
        number, _ = _numbered(found)
        return found[number <= number[np.argsort(number, kind="stable")[most]]]

    def of(self, named: Items) -> Items:
        """Return all items of the lists of some items, in order."""
        chosen = [part[_same(part, named)] for part in self._parts] if len(named) else []
        return np.concatenate([np.empty(0, ITEM), *chosen])

    def remove(self, closed: Items) -> None:
        """Remove the lists of some items."""
        if len(closed):
            self._parts = [left for part in self._parts if len(left := part[~_same(part, closed)])]

    def join(
        self,
        feedback: Feedback,
        tick: float,
        window: float,
        make: Callable[[Items, Items], Examples | None],
    ) -> Examples | None:
        """Add feedback, whose `window` in seconds begins at the newest `tick` at the earliest, as in the journal.

        Returns what `make` returns for the items of the lists that are complete, and for those of late labels.
        """
        f, items = feedback, np.empty(len(feedback), ITEM)
        items["incarnation"], items["key"], items["due"] = (
            f.incarnation,
            keys(f.request, f.index),
            np.maximum(f.time, tick) + window,
        )
        items["received"], items["event"], items["source"], items["label"] = f.time, f.events, f.source, f.label
        items["weight"], items["propensity"], items["place"] = f.weights, f.propensities, f.places
        new, complete = items[~f.late], items[f.completes]
        closed = np.concatenate([self.of(complete), new[_same(new, complete)]])
        examples = make(closed, items[f.late])
        self.add(new)
        self.remove(complete)
        return examples

    def rows(self, closed: Items, late: Items) -> tuple[Items, Ints]:
        """Return the rows of closed lists, then of late labels, and the number int64[N] of each row's list, from 0."""
        (rows, number), (again, further) = _rows(closed), _rows(late)
        return np.concatenate([rows, again]), np.concatenate([number, further + (number[-1] + 1 if len(number) else 0)])

    def learned(
        self, rows: Items, number: Ints, columns: Mapping[str, npt.NDArray[Any]], late: Items
    ) -> tuple[npt.NDArray[np.bool_], Feedback, Floats, Ints, Floats | None]:
        """Return which rows are learned bool[N], those of lists with a label above 0; their feedback, weights, lists and
        propensities.

        A row's propensity is that of its feedback, else of its score, else of its position, if those are learned, else 1; it is
        at least 1 / `MOST_WEIGHT`. Its weight is weight / propensity, at most `MOST_WEIGHT`. The propensities are None if all
        are 1.
        """
        some = np.isin(number, number[rows["label"] > 0])
        self.late += int((late["label"] > 0).sum())
        self.empty += len(np.unique(number[~some]))
        rows = rows[some]
        label, key = np.nan_to_num(rows["label"], nan=0.0), rows["key"]
        _, group = np.unique(number[some], return_inverse=True)
        group = group.reshape(-1) + self.lists
        propensity, weight = rows["propensity"].astype(np.float64), rows["weight"].astype(np.float64)
        if len(rows):
            self.lists = int(group[-1]) + 1
            propensity = np.where(np.isnan(propensity), columns["propensity"][some], propensity)
            if self.examination is not None:
                known = self.examination.update(rows["place"], rows["weight"] * label, columns["corrected"][some], group)
                propensity = np.where(np.isnan(propensity), known, propensity)
        propensity = np.where(np.isnan(propensity), 1.0, propensity)
        self.clipped += int(((weight > MOST_WEIGHT * propensity) & (label > 0)).sum())
        propensity = np.maximum(propensity, 1.0 / MOST_WEIGHT)
        weight = np.minimum(weight / propensity, MOST_WEIGHT)
        labels = Feedback(
            incarnation=rows["incarnation"].copy(),
            request=requests(key),
            index=indices(key),
            label=label,
            time=rows["received"].copy(),
            late=np.zeros(len(key), np.bool_),
            source=rows["source"].copy(),
            weight=rows["weight"].copy(),
            event=rows["event"].copy(),
        )
        examined = None if (propensity == 1.0).all() else propensity.astype(np.float32)
        return some, labels, weight.astype(np.float32), group.astype(np.int64), examined

    def within(self, spans: Mapping[int, tuple[int, int]]) -> bool:
        """Return whether a row belongs to a worker's requests from one to another, both included."""
        for items in self._parts:
            incarnation, request = items["incarnation"], requests(items["key"])
            for number, (first, last) in spans.items():
                if ((incarnation == number) & (first <= request) & (request <= last)).any():
                    return True
        return False

    def forget(self, has: Callable[[Ints, Ints], npt.NDArray[np.bool_]]) -> int:
        """Remove the rows of which `has` returns True, given workers and keys int64[N]; return how many items."""
        before = len(self)
        kept = (part[~has(part["incarnation"].copy(), part["key"].copy())] for part in self._parts)
        self._parts = [part for part in kept if len(part)]
        return before - len(self)

    def report(self) -> dict[str, Any]:
        """Return the counts of lists and labels, and the probabilities of positions."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "items": len(self),
            "examination": None if self.examination is None else self.examination.report(),
        }

    def state(self) -> dict[str, Array]:
        """Return the state to save."""
        items = np.concatenate([np.empty(0, ITEM), *self._parts])
        counts = np.array([getattr(self, name) for name in _COUNTS], np.int64)
        positions = {} if self.examination is None else self.examination.state()
        return {
            "counts": counts,
            **nest({"items": {name: items[name].copy() for name in ITEM.names or ()}, "positions": positions}),
        }

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, {} by earlier versions."""
        self._parts, counts, saved = [], np.zeros(len(_COUNTS), np.int64), part(arrays, "items")
        if arrays:
            counts = take(arrays, "counts", counts)
            columns = {n: take(saved, n, np.empty(0, ITEM[n]), any_rows=True) for n in ITEM.names or ()}
            if len({len(column) for column in columns.values()}) > 1:
                raise Corrupt(
                    f"the saved lists have {', '.join(f'{len(c)} of {n!r}' for n, c in columns.items())}; expected equal"
                )
            items = np.empty(len(columns["key"]), ITEM)
            for name, column in columns.items():
                items[name] = column
            for start in range(0, len(items), _PART_ITEMS):
                self._parts.append(items[start : start + _PART_ITEMS])
        for name, count in zip(_COUNTS, counts.tolist(), strict=True):
            setattr(self, name, count)
        if self.examination is not None:
            self.examination.load(part(arrays, "positions"))


def _rows(items: Items) -> tuple[Items, Ints]:
    """Return the rows of the lists of items, each as one item, and the number int64[N] of each row's list, from 0."""
    number, _ = _numbered(items)
    order = np.lexsort((items["key"], number))
    items, number = items[order], number[order]
    starts = np.flatnonzero((np.diff(number, prepend=-1) != 0) | (np.diff(items["key"], prepend=-1) != 0))
    label = _newest(~np.isnan(items["label"]), starts)
    rows = items[np.where(label < 0, starts, label)]
    for name, given in (("propensity", ~np.isnan(items["propensity"])), ("place", items["place"] >= 0)):
        at = _newest(given, starts)
        rows[name] = np.where(at < 0, rows[name], items[name][at])
    return rows, number[starts]


def _numbered(items: Items) -> tuple[Ints, Ints]:
    """Return the number int64[N] of each item's list, in the order of first items, and the place of each list's first item."""
    lists = np.stack([items["incarnation"], requests(items["key"])], axis=1)
    _, first, of = np.unique(lists, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return np.argsort(order)[of.reshape(-1)], first[order]


def _same(items: Items, named: Items) -> npt.NDArray[np.bool_]:
    """Return bool[N]: which items belong to a list of the `named`."""
    same = np.zeros(len(items), np.bool_)
    for number in np.unique(named["incarnation"]).tolist():
        mine = items["incarnation"] == number
        same[mine] = np.isin(requests(items["key"][mine]), requests(named["key"][named["incarnation"] == number]))
    return same


def _newest(given: npt.NDArray[np.bool_], starts: npt.NDArray[np.intp]) -> Ints:
    """Return the place of the last item that is `given` of each run of items that begins at `starts`, -1 without any."""
    if not len(starts):
        return np.empty(0, np.int64)
    return np.maximum.reduceat(np.where(given, np.arange(len(given)), -1), starts)
