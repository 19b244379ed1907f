"""Joiner: puts impressions and feedback together into examples, in the order of the journal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.errors import ConfigurationError, Corrupt
from riverdelta.events import Feedback, Impressions, Record, Tick
from riverdelta.features import Floats, Ints
from riverdelta.joiner.examples import Examples
from riverdelta.joiner.shelf import Rows, Shelf
from riverdelta.joiner.weights import Weights

LABELS = ("explicit", "silence")
#: A row's key within its incarnation is request · 2²⁰ + index.
_INDEX_BITS = 20
_COLUMN = "column/"
_COUNTS = ("unmatched", "unmatured", "kept_negatives", "dropped_negatives", "_showings")
_LOGITS = ("base", "corrected", "served")
#: What an example takes from its impression, besides the columns.
_READ = (*_LOGITS, "time", "position")
#: What several rows of one worker's shelf are: which of the keys asked for, the shelf, and where they lie in it.
_Group = tuple[Rows, Shelf, Rows]


class Joiner:
    """Keeps impressions, at most the newest `max_rows`, and completes them with feedback.

    `labels="explicit"`: a label completes its row, which then leaves. `labels="silence"`: besides, a row reported as shown
    that has no label at the first tick `window_seconds` past its showing is completed as a negative, in the order in which
    rows were shown; it stays for a positive that comes late. With `relabels`, a label that replaces another makes one more
    example, and all rows stay. Of the negatives, explicit or made of silence, the share `keep_negatives` becomes examples.
    `Weights` says how late positives and sampled negatives are learned so that scores stay calibrated. The window need not
    wait for most positives: they are learned when they come, so a long window shows of the newest rows the positives alone.

    What comes out depends on the records and their order alone, and a joiner that goes on from `state` does the same to the
    last bit. A label whose row has left is counted in `unmatched`, a showing whose row leaves too early in `unmatured`.
    `optional` columns are those that not every worker's impressions need to have.
    """

    def __init__(
        self,
        labels: str = "explicit",
        window_seconds: float | None = None,
        relabels: bool = False,
        max_rows: int = 200_000,
        late: str = "weighted",
        keep_negatives: float = 1.0,
        optional: Collection[str] = (),
    ) -> None:
        if labels not in LABELS:
            raise ConfigurationError(f"labels is {labels!r}; expected one of {', '.join(LABELS)}")
        if (labels == "silence") != (window_seconds is not None):
            raise ConfigurationError(
                f"labels={labels!r} with window_seconds={window_seconds}; silence needs a window, explicit labels have none"
            )
        self.labels, self.window, self.max_rows, self._optional = labels, window_seconds, max_rows, optional
        self.relabels, self.weights = relabels, Weights(late, keep_negatives)
        #: Rows that may still become examples; those of them without a label; labels that came too late for their row.
        self.rows = self.backlog = self.unmatched = 0
        #: Shown rows that left, for want of room, before silence could make them negatives.
        self.unmatured = 0
        #: Negatives that became examples, and those that sampling left out.
        self.kept_negatives = self.dropped_negatives = 0
        self._tick = 0.0
        self._showings = 0
        self._shelves: dict[int, Shelf] = {}

    @property
    def tick(self) -> float:
        """The newest tick in Unix seconds, by which windows end; 0 before the first."""
        return self._tick

    def push(self, sequence: int, record: Record) -> Examples | None:
        """Take the next record; return the examples that it completes, or None."""
        if isinstance(record, Impressions):
            self._keep(sequence, record)
        elif isinstance(record, Feedback):
            return self._join(record)
        elif isinstance(record, Tick) and self.window is not None:
            return self._mature(record.time)
        return None

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything that the next record depends on, as arrays: what waits, worker by worker."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "counts": np.array([getattr(self, name) for name in _COUNTS], np.int64),
            "tick": np.array([self._tick], np.float64),
        }
        # A worker's shelf keeps its room for its next rows; one that is empty now may be a dead worker's.
        self._shelves = {incarnation: shelf for incarnation, shelf in self._shelves.items() if shelf.rows}
        for incarnation, shelf in self._shelves.items():
            rows = shelf.all()
            arrays |= {f"{incarnation}/{name}": shelf[name][rows] for name in shelf.names}
        return arrays

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        for name, count in zip(_COUNTS, arrays["counts"].tolist(), strict=True):
            setattr(self, name, count)
        self._tick = float(arrays["tick"][0])
        parts: dict[int, dict[str, npt.NDArray[Any]]] = {}
        for name, array in arrays.items():
            owner, slash, rest = name.partition("/")
            if slash:
                parts.setdefault(int(owner), {})[rest] = array
        self._shelves = {incarnation: Shelf() for incarnation in parts}
        for incarnation, columns in parts.items():
            self._shelves[incarnation].add(columns)
        self.rows = sum(shelf.rows for shelf in self._shelves.values())
        self.backlog = sum(int(columns["waiting"].sum()) for columns in parts.values())

    def _keep(self, sequence: int, impressions: Impressions) -> None:
        count = len(impressions)
        rows: dict[str, npt.NDArray[Any]] = {
            "key": _key(impressions.request, impressions.index),
            "sequence": np.full(count, sequence, np.int64),
            "time": impressions.time,
            "position": impressions.position,
            "waiting": np.ones(count, np.bool_),
            **{name: getattr(impressions, name) for name in _LOGITS},
            **{_COLUMN + name: column for name, column in impressions.columns.items()},
        }
        if self.window is not None:
            rows |= {"shown": np.full(count, np.nan), "showing": np.zeros(count, np.int64)}
        self._shelves.setdefault(impressions.incarnation, Shelf()).add(rows)
        self.rows += count
        self.backlog += count
        while self.rows > self.max_rows:
            full = [shelf for shelf in self._shelves.values() if shelf.rows]
            oldest = min(full, key=lambda shelf: int(shelf["sequence"][shelf.first]))
            leaving = oldest.oldest()
            if self.window is not None:
                self.unmatured += int(np.count_nonzero(~np.isnan(oldest["shown"][leaving])))
            self._remove(oldest, leaving)

    def _join(self, feedback: Feedback) -> Examples | None:
        key = _key(feedback.request, feedback.index)
        labelled = ~np.isnan(feedback.label)
        if not labelled.all():
            self._show(feedback, key, ~labelled)
        if not labelled.any():
            return None
        columns = feedback.incarnation, key, feedback.label, feedback.time, feedback.source, feedback.late
        return self._complete(*(columns if labelled.all() else (column[labelled] for column in columns)))

    def _show(self, feedback: Feedback, key: Ints, shown: npt.NDArray[np.bool_]) -> None:
        if self.window is None:
            return
        count = int(shown.sum())
        self.unmatured += count
        for mine, shelf, at in self._found(feedback.incarnation[shown], key[shown]):
            self.unmatured -= len(mine)
            fresh = shelf["waiting"][at]
            # A showing counts from the newest tick on at the earliest, here as in the journal: both agree on what is late.
            shelf["shown"][at[fresh]] = np.maximum(feedback.time[shown][mine[fresh]], self._tick)
            shelf["showing"][at[fresh]] = self._showings + mine[fresh]
        self._showings += count

    def _mature(self, now: float) -> Examples | None:
        self._tick = max(self._tick, now)
        due: list[tuple[int, Rows]] = []
        for incarnation, shelf in self._shelves.items():
            ripe = np.flatnonzero(shelf["shown"] + self.window <= self._tick) if shelf.rows else np.empty(0, np.intp)
            if len(ripe):
                due.append((incarnation, ripe))
        if not due:
            return None
        number = np.concatenate([np.full(len(at), incarnation, np.int64) for incarnation, at in due])
        key = np.concatenate([self._shelves[incarnation]["key"][at] for incarnation, at in due])
        order = np.argsort(np.concatenate([self._shelves[incarnation]["showing"][at] for incarnation, at in due]))
        zeros = np.zeros(len(key), np.float32)
        return self._complete(number[order], key[order], zeros, np.full(len(key), self._tick), np.zeros_like(key), None)

    def _complete(
        self,
        incarnation: Ints,
        key: Ints,
        label: Floats,
        received: npt.NDArray[np.float64],
        source: Ints,
        late: npt.NDArray[np.bool_] | None,
    ) -> Examples | None:
        """Make examples of the rows of the keys, in the keys' order; `late` is None for negatives made of silence."""
        groups = list(self._found(incarnation, key))
        self.unmatched += len(key) - _rows(groups)
        undone = late & (label > 0) if late is not None and late.any() else None
        chosen = groups
        if self.weights.keep < 1.0:
            keeps = self.weights.keeps(incarnation, key)
            undone = None if undone is None else undone & keeps
            chosen = list(_only(keeps | (label > 0), groups))
            self.dropped_negatives += _rows(groups) - _rows(chosen)
        examples = None
        if chosen:
            columns, taken = _gather(chosen, self._optional)
            kept = label[taken]
            weight, importance, taken_back = self.weights.of(
                kept, columns["corrected"], None if undone is None else undone[taken]
            )
            self.kept_negatives += len(kept) - int(np.count_nonzero(kept))
            examples = Examples(
                columns={n.removeprefix(_COLUMN): column for n, column in columns.items() if n.startswith(_COLUMN)},
                base=columns["base"],
                corrected=columns["corrected"],
                served=columns["served"],
                label=kept,
                weight=weight,
                received=received[taken],
                scored=columns["time"],
                importance=importance,
                taken_back=taken_back,
                position=columns["position"],
                source=source[taken],
            )
        for _, shelf, at in groups:
            # A row may have had two labels in one record.
            once = at if (np.diff(at) > 0).all() else np.unique(at)
            self._no_longer_waiting(shelf, once)
            if not self.relabels and late is not None:
                self._remove(shelf, once)
        return examples

    def _no_longer_waiting(self, shelf: Shelf, at: Rows) -> None:
        self.backlog -= int(np.count_nonzero(shelf["waiting"][at]))
        shelf["waiting"][at] = False
        if self.window is not None:
            shelf["shown"][at] = np.nan

    def _remove(self, shelf: Shelf, at: Rows) -> None:
        self._no_longer_waiting(shelf, at)
        self.rows -= len(at)
        shelf.remove(at)

    def _found(self, incarnation: Ints, key: Ints) -> Iterator[_Group]:
        """Yield, for each worker, which of the keys are its own and still here, its shelf, and where they lie in it."""
        # Nearly always one worker: asked first, it spares a sort.
        alone = len(incarnation) > 0 and bool((incarnation == incarnation[0]).all())
        numbers = incarnation[:1].tolist() if alone else np.unique(incarnation).tolist()
        for number in numbers:
            if (shelf := self._shelves.get(number)) is not None:
                mine = np.arange(len(key)) if alone else np.flatnonzero(incarnation == number)
                at, found = shelf.find(key[mine])
                if found.any():
                    yield mine[found], shelf, at[found]


def _key(request: Ints, index: npt.NDArray[np.integer]) -> Ints:
    return (request << _INDEX_BITS) | index


def _rows(groups: list[_Group]) -> int:
    return sum(len(mine) for mine, _, _ in groups)


def _only(wanted: npt.NDArray[np.bool_], groups: list[_Group]) -> Iterator[_Group]:
    for mine, shelf, at in groups:
        if (some := wanted[mine]).any():
            yield mine[some], shelf, at[some]


def _gather(groups: list[_Group], optional: Collection[str]) -> tuple[dict[str, npt.NDArray[Any]], Rows]:
    """Return the groups' columns and which of the keys their rows are, in the keys' order; `optional` ones if all have them."""
    names = [name for name in groups[0][1].names if name in _READ or name.startswith(_COLUMN)]
    if len(groups) == 1:
        mine, shelf, at = groups[0]
        return {name: shelf[name][at] for name in names}, mine
    for _, shelf, _ in groups:
        missing = {n for n in set(names).symmetric_difference(shelf.names) if n.startswith(_COLUMN)}
        names = [n for n in names if n not in missing]
        if missing := {n for n in missing if n.removeprefix(_COLUMN) not in optional}:
            raise Corrupt(f"impressions of two workers differ in the columns {', '.join(sorted(missing))}")
    places = np.concatenate([mine for mine, _, _ in groups])
    order = np.argsort(places, kind="stable")
    return {name: np.concatenate([shelf[name][at] for _, shelf, at in groups])[order] for name in names}, places[order]
