"""Joiner: puts impressions and feedback together into examples, in the order of the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.errors import ConfigurationError
from riverdelta.events import Feedback, Impressions, Record, Tick
from riverdelta.features import Floats, Ints

LABELS = ("explicit", "silence")
#: A row's key within its incarnation is request · 2²⁰ + index.
_INDEX_BITS = 20


@dataclass(frozen=True)
class Examples:
    """M joined rows in the order in which their labels came.

    `base`, `corrected`, `served` float32[M] are the logits as logged at serving, `received` float64[M] says when the label
    was received and `scored` when the row was scored (Unix seconds).
    """

    columns: Mapping[str, npt.NDArray[Any]]
    base: Floats
    corrected: Floats
    served: Floats
    label: Floats
    weight: Floats
    received: npt.NDArray[np.float64]
    scored: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class _Block:
    """A block of impressions, its rows in ascending order of key; `open` marks those that have no label yet."""

    sequence: int
    key: Ints
    impressions: Impressions
    open: npt.NDArray[np.bool_]


class Joiner:
    """Keeps impressions, at most the newest `max_rows`, and completes them with feedback; a block goes when all is labelled.

    `labels="explicit"`: a label completes its row. `labels="silence"`: besides, a row reported as shown, without a label when
    a tick passes its `window_seconds`, is completed as a negative, in the order in which rows were shown. With `relabels`, a
    label that replaces another makes a second example, and blocks are kept for it as long as there is room.

    What comes out depends on the records and their order alone. A label whose impression has left is counted in `unmatched`.
    """

    def __init__(
        self, labels: str = "explicit", window_seconds: float | None = None, relabels: bool = False, max_rows: int = 200_000
    ) -> None:
        if labels not in LABELS:
            raise ConfigurationError(f"labels is {labels!r}; expected one of {', '.join(LABELS)}")
        if (labels == "silence") != (window_seconds is not None):
            raise ConfigurationError(
                f"labels={labels!r} with window_seconds={window_seconds}; silence needs a window, explicit labels have none"
            )
        self.labels, self.window, self.max_rows = labels, window_seconds, max_rows
        self.relabels = relabels
        self.rows = self.unmatched = 0
        self._blocks: dict[int, list[_Block]] = {}
        self._shown: dict[tuple[int, int], float] = {}

    @property
    def backlog(self) -> int:
        """Rows without a label yet."""
        return sum(int(b.open.sum()) for blocks in self._blocks.values() for b in blocks)

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
        """Return everything that the next record depends on, as arrays."""
        arrays: dict[str, npt.NDArray[Any]] = {"counts": np.array([self.unmatched], np.int64)}
        for block in self._ordered():
            body = block.impressions
            prefix = f"{block.sequence}/"
            arrays[f"{prefix}open"] = block.open
            arrays[f"{prefix}incarnation"] = np.array([body.incarnation], np.int64)
            arrays |= {
                f"{prefix}{f.name}": getattr(body, f.name) for f in fields(body) if f.name not in ("incarnation", "columns")
            }
            arrays |= {f"{prefix}columns/{name}": column for name, column in body.columns.items()}
        if self._shown:
            arrays["shown/key"] = np.array(list(self._shown), np.int64)
            arrays["shown/time"] = np.array(list(self._shown.values()), np.float64)
        return arrays

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        self.rows, self._blocks, self._shown = 0, {}, {}
        self.unmatched = int(arrays["counts"][0])
        parts: dict[int, dict[str, npt.NDArray[Any]]] = {}
        for name, array in arrays.items():
            owner, _, rest = name.partition("/")
            if owner.isdigit():
                parts.setdefault(int(owner), {})[rest] = array
        for sequence, values in sorted(parts.items()):
            columns = {n.removeprefix("columns/"): a for n, a in values.items() if n.startswith("columns/")}
            rows = {n: a for n, a in values.items() if "/" not in n and n not in ("incarnation", "open")}
            impressions = Impressions(int(values["incarnation"][0]), columns=columns, **rows)
            self._keep(sequence, impressions, values["open"].copy())
        if "shown/key" in arrays:
            keys = map(tuple, arrays["shown/key"].tolist())
            self._shown = dict(zip(keys, arrays["shown/time"].tolist(), strict=True))

    def _keep(self, sequence: int, impressions: Impressions, waiting: npt.NDArray[np.bool_] | None = None) -> None:
        waiting = np.ones(len(impressions), np.bool_) if waiting is None else waiting
        block = _Block(sequence, _key(impressions.request, impressions.index), impressions, waiting)
        self._blocks.setdefault(impressions.incarnation, []).append(block)
        self.rows += len(impressions)
        while self.rows > self.max_rows:
            self._drop(min((blocks[0] for blocks in self._blocks.values()), key=lambda b: b.sequence))

    def _drop(self, block: _Block) -> None:
        incarnation = block.impressions.incarnation
        self._blocks[incarnation] = [b for b in self._blocks[incarnation] if b is not block]
        self.rows -= len(block.impressions)
        if not self._blocks[incarnation]:
            del self._blocks[incarnation]

    def _ordered(self) -> list[_Block]:
        return sorted((b for blocks in self._blocks.values() for b in blocks), key=lambda b: b.sequence)

    def _join(self, feedback: Feedback) -> Examples | None:
        labelled = ~np.isnan(feedback.label)
        if self.window is not None:
            self._note_shown(feedback, labelled)
        key = _key(feedback.request, feedback.index)[labelled]
        time = feedback.time[labelled]
        return self._complete(feedback.incarnation[labelled], key, feedback.label[labelled], time)

    def _note_shown(self, feedback: Feedback, labelled: npt.NDArray[np.bool_]) -> None:
        keys = zip(feedback.incarnation.tolist(), _key(feedback.request, feedback.index).tolist(), strict=True)
        for key, has_label, time in zip(keys, labelled.tolist(), feedback.time.tolist(), strict=True):
            if has_label:
                self._shown.pop(key, None)
            else:
                self._shown[key] = time

    def _mature(self, now: float) -> Examples | None:
        assert self.window is not None
        due: list[tuple[int, int]] = []
        for key, shown in self._shown.items():
            if now < shown + self.window:
                # Rows are kept in the order of being shown, by clocks of several workers: a little disorder is waited out.
                if now < shown + self.window - _DISORDER_SECONDS:
                    break
                continue
            due.append(key)
        for key in due:
            del self._shown[key]
        if not due:
            return None
        keys = np.array(due, np.int64)
        return self._complete(keys[:, 0], keys[:, 1], np.zeros(len(due), np.float32), np.full(len(due), now))

    def _complete(self, incarnation: Ints, key: Ints, label: Floats, received: npt.NDArray[np.float64]) -> Examples | None:
        """Gather the rows of the keys from their blocks, in the keys' order."""
        groups: list[tuple[npt.NDArray[np.intp], Impressions, npt.NDArray[np.intp]]] = []
        for number in np.unique(incarnation).tolist():
            blocks = self._blocks.get(number, [])
            firsts = np.array([b.key[0] for b in blocks], np.int64)
            mine = np.flatnonzero(incarnation == number)
            at = np.searchsorted(firsts, key[mine], side="right") - 1
            for index in np.unique(at[at >= 0]).tolist():
                block, wanted = blocks[index], mine[at == index]
                row = np.minimum(np.searchsorted(block.key, key[wanted]), len(block.key) - 1)
                found = block.key[row] == key[wanted]
                groups.append((wanted[found], block.impressions, row[found]))
                block.open[row[found]] = False
                if not self.relabels and not block.open.any():
                    self._drop(block)
        places = np.concatenate([g[0] for g in groups]) if groups else np.empty(0, np.intp)
        self.unmatched += len(key) - len(places)
        if not len(places):
            return None
        order = np.argsort(places, kind="stable")

        def gather(read: Any) -> npt.NDArray[Any]:
            return np.concatenate([read(body)[rows] for _, body, rows in groups])[order]

        kept = places[order]
        return Examples(
            columns={name: gather(lambda b, n=name: b.columns[n]) for name in groups[0][1].columns},
            base=gather(lambda b: b.base),
            corrected=gather(lambda b: b.corrected),
            served=gather(lambda b: b.served),
            label=label[kept],
            weight=np.ones(len(kept), np.float32),
            received=received[kept],
            scored=gather(lambda b: b.time),
        )


#: How far the clocks of one machine's workers may disagree without changing the order in which rows mature.
_DISORDER_SECONDS = 1.0


def _key(request: Ints, index: npt.NDArray[np.integer]) -> Ints:
    return (request << _INDEX_BITS) | index
