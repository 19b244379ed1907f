"""Joiner: joins impressions and feedback into examples, in the order of the journal."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from riverdelta.core.arrays import Array, Arrays, nest, part, split, take
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.examples import Examples
from riverdelta.core.features import Ints
from riverdelta.core.feedback import at
from riverdelta.core.keys import indices, keys, requests
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.records import Feedback, Impressions, Record, Tick, only
from riverdelta.learning.erased import Erased
from riverdelta.learning.joiner.gathered import count, gather, made
from riverdelta.learning.joiner.lists import Items, Lists
from riverdelta.learning.joiner.showings import EMPTY, Showings
from riverdelta.learning.joiner.waiting import Waiting
from riverdelta.learning.joiner.weights import Weights

_log = logging.getLogger(__name__)
LABELS = ("explicit", "silence")
_COUNTS = ("unmatched", "kept_negatives", "dropped_negatives")
_COUNTS_OF_0_1 = 5
#: The most rows that a tick completes at once, as a share of the memory, and the fewest.
_SLICES, _LEAST_SLICE = 4, 1024


class Joiner:
    """Joins impressions with feedback, however late: rows that no longer fit in memory are read back from the journal.

    With `labels="silence"` a row reported as shown that has no label at the first tick `window_seconds` after its showing
    becomes a negative, in the order in which rows were shown; a later `configure` does not affect rows already shown. See
    `Weights` for how late positives and sampled negatives are learned so that scores stay calibrated.

    For a loss of lists, an example is all rows of a request that got feedback, shown or labelled. It is made at the first tick
    `window_seconds` after the list's first feedback, or by the record that says it is complete; until then a label replaces the
    row's earlier one, as the journal's rules allow. A label that comes later makes one more example of the list, with that
    label alone: the loss is a sum over labels, so that all examples of a list have the gradient of its labels together. A list
    without a label above 0 says nothing about its order, and makes no example. See `Lists` for the order of lists.

    Parameters
    ----------
    labels
        "explicit" (default): a label completes its row. "silence": rows without a label also become negatives when their window
        ends.
    window_seconds
        The attribution window in seconds, for "silence" and for lists only (default None). It need not cover most positives:
        late ones are learned when they come, while a long window leaves only positives among the newest rows.
    relabels
        Whether a label that replaces another makes another example (default False).
    max_bytes
        Memory for impressions, in bytes (default 256 MiB); see `Waiting`. In addition, showings take 24 bytes each, and the
        examples of a record as much as its rows. Raise it if late labels make the learner read the journal too often.
    late
        How positives after their row's negative are learned: "weighted" (default) or "plain", see `Weights`.
    keep_negatives
        Share of negatives, explicit or by silence, that become examples, above 0 to 1 (default 1). Lower it if learning cannot
        keep up.
    reads
        Columns that every worker's impressions must have, by default all; others may come and go between restarts.
    unread
        Columns that nothing learns from: they stay in the journal, and examples lack them.
    loss
        The loss of the task: it defines valid labels, and the label that silence stands for.

    The result depends only on the records and their order, also after `load`, to the last bit. `waiting.source` is the
    journal; without one, a label whose row has left memory is lost. `unmatched` counts the labels, and negatives by silence,
    whose row could not be found. If a row cannot be read now, `push` raises and changes nothing: the same record can be pushed
    again.
    """

    def __init__(
        self,
        labels: str = "explicit",
        window_seconds: float | None = None,
        relabels: bool = False,
        max_bytes: int = 256 << 20,
        late: str = "weighted",
        keep_negatives: float = 1.0,
        reads: Collection[str] | None = None,
        unread: Collection[str] = (),
        loss: Loss = LOG_LOSS,
    ) -> None:
        self.loss = loss
        #: The lists that wait, for a loss of lists.
        self.lists = Lists(loss.positions) if loss.lists else None
        self.configure(labels, window_seconds, relabels, late, keep_negatives)
        self._reads = reads
        self.unmatched = 0
        #: Negatives of two outcomes that became examples, and those that sampling left out.
        self.kept_negatives = self.dropped_negatives = 0
        self.waiting, self.showings = Waiting(max_bytes, unread, propensity=loss.lists), Showings()
        #: The newest tick in Unix seconds, at which windows end; 0 before the first.
        self.tick = 0.0
        #: Whether the last tick has more rows than fit in memory, so that it must be pushed again.
        self.unfinished = False
        self._upgraded = False

    def configure(self, labels: str, window_seconds: float | None, relabels: bool, late: str, keep_negatives: float) -> None:
        """Change the rules for later records; raises `ConfigurationError` if they do not fit together."""
        if labels not in LABELS:
            raise ConfigurationError(f"labels is {labels!r}; expected one of {', '.join(LABELS)}")
        if (labels == "silence") != (window_seconds is not None) and not self.loss.lists:
            raise ConfigurationError(
                f"labels={labels!r} with window_seconds={window_seconds}; silence needs a window, explicit labels have none"
            )
        if labels == "silence" and not self.loss.logit:
            raise ConfigurationError(
                f"labels is {labels!r}, and silence stands for no label of {self.loss}; set RIVERDELTA_LABELS=explicit"
            )
        if self.loss.lists and keep_negatives != 1.0:
            raise ConfigurationError(
                f"keep_negatives is {keep_negatives}, and rows of a list are learned together; set RIVERDELTA_KEEP_NEGATIVES=1"
            )
        weights = Weights(late, keep_negatives, self.loss)
        self.labels, self.window, self.relabels, self.weights = labels, window_seconds, relabels, weights

    @property
    def bytes(self) -> int:
        """Bytes of memory for what waits: impressions and feedback."""
        return self.waiting.bytes + self.fed_bytes

    @property
    def fed_bytes(self) -> int:
        """Bytes of memory for showings and for the feedback of lists until their windows end."""
        return self.showings.bytes + (0 if self.lists is None else self.lists.bytes)

    @property
    def ticks(self) -> bool:
        """Whether a window is open, or will be with the next feedback."""
        return self.window is not None or bool(self.showings) or bool(self.lists)

    def within(self, spans: Mapping[int, tuple[int, int]]) -> bool:
        """Return whether a row with an open window belongs to a worker's requests from one to another, both included."""
        return self.showings.within(spans) or (self.lists is not None and self.lists.within(spans))

    def upgraded(self) -> None:
        """Drop the rows that version 0.1 saved, except shown ones: all feedback that it accepted has come."""
        self._upgraded = True
        self.waiting.restrict(self.showings.has)

    def push(self, sequence: int, record: Record) -> Examples | None:
        """Apply the next record; return the examples that it completes, or None."""
        if isinstance(record, Impressions):
            self.waiting.add(sequence, record)
        elif isinstance(record, Feedback):
            return self._join(record)
        elif isinstance(record, Tick):
            return self._mature(record.time)
        return None

    def forget(self, erased: Erased) -> tuple[int, int]:
        """Drop erased rows from memory; return how many waited there, and how many showings were dropped."""
        fed = self.showings if self.lists is None else self.lists
        return self.waiting.forget(erased.keys), fed.forget(erased.has)

    def report(self) -> dict[str, Any]:
        """Return the rows and bytes that wait, and the rows that were lost or left out."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "waiting_rows": self.waiting.rows,
            "waiting_bytes": self.bytes,
            "showings_bytes": self.fed_bytes,
            "read_back_rows": self.waiting.read_back,
            **({} if self.lists is None else {"lists": self.lists.report()}),
        }

    def state(self) -> dict[str, Array]:
        """Return everything that the next record depends on, except the impressions, which are in the journal."""
        lists = {} if self.lists is None else {"lists": self.lists.state()}
        return {
            "counts": np.array([getattr(self, name) for name in _COUNTS], np.int64),
            "tick": np.array([self.tick], np.float64),
            "upgraded": np.array([self._upgraded]),
            **nest({"shown": self.showings.state(), "kept": self.waiting.state(), **lists}),
        }

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, or the state of version 0.1, which had the impressions too."""
        if take(arrays, "counts").shape == (_COUNTS_OF_0_1,):
            arrays = self._of_0_1(arrays)
        else:
            self.waiting.load(part(arrays, "kept"))
        counts = take(arrays, "counts", np.zeros(len(_COUNTS), np.int64))
        for name, number in zip(_COUNTS, counts.tolist(), strict=True):
            setattr(self, name, number)
        self.tick = float(take(arrays, "tick", np.zeros(1))[0])
        self._upgraded, self.unfinished = bool(take(arrays, "upgraded", np.zeros(1, np.bool_))[0]), False
        self.showings.load(part(arrays, "shown"))
        if self.lists is not None:
            self.lists.load(part(arrays, "lists"))

    def _join(self, feedback: Feedback) -> Examples | None:
        if self.lists is not None:
            return self.lists.join(feedback, self.tick, np.inf if self.window is None else self.window, self._list_examples)
        key = keys(feedback.request, feedback.index)
        shown = np.isnan(feedback.label)
        examples = None
        if not shown.all():
            examples = self._complete(only(feedback, ~shown) if shown.any() else feedback, key[~shown])
        if self.window is not None and shown.any():
            # A showing counts from the newest tick at the earliest, as in the journal, so that both agree on what is late.
            due = np.maximum(feedback.time[shown], self.tick) + self.window
            self.showings.add(feedback.incarnation[shown], key[shown], due)
        if len(self.showings) and not shown.all():
            self.showings.label(feedback.incarnation[~shown], key[~shown])
        return examples

    def _list_examples(self, closed: Items, late: Items) -> Examples | None:
        """Return the examples of lists, then those of late labels; all that can fail comes first."""
        assert self.lists is not None
        rows, number = self.lists.rows(closed, late)
        groups = self.waiting.find(rows["incarnation"].copy(), rows["key"].copy())
        columns, taken = gather(groups, self._reads) if groups else ({}, np.empty(0, np.intp))
        self._lose(len(rows) - len(taken))
        self.waiting.remove(groups)
        some, labels, weight, group, propensity = self.lists.learned(rows[taken], number[taken], columns, late)
        columns = {name: column[some] for name, column in columns.items()}
        if not some.any():
            return None
        weights = self.weights.of(labels.label, columns["corrected"], None, weight)
        return made(columns, labels, weights, group, propensity)

    def _lose(self, rows: int) -> None:
        if rows:
            self.unmatched += rows
            _log.error("%d labels are not learned: their impressions are not in memory or in the journal", rows)

    def _mature(self, now: float) -> Examples | None:
        tick, most = max(self.tick, now), max(_LEAST_SLICE, self.waiting.limit // (_SLICES * max(self.waiting.row_bytes, 1)))
        if self.lists is not None:
            due = self.lists.due(tick, most)
            examples = self._list_examples(due, due[:0])
            self.lists.remove(due)
            self.tick, self.unfinished = tick, len(self.lists.due(tick, 1)) > 0
            return examples
        incarnation, key = self.showings.due(tick, most)
        examples = None
        if len(key):
            zeros, none, at = np.zeros(len(key), np.float32), np.zeros(len(key), np.bool_), np.full(len(key), tick)
            silence = Feedback(incarnation, requests(key), indices(key), zeros, at, none, np.zeros_like(key))
            examples = self._complete(silence, key, silent=True)
            self.showings.take(tick, most)
            if self._upgraded and self.waiting.kept:
                self.waiting.restrict(self.showings.has)
        self.tick, self.unfinished = tick, len(key) == most
        return examples

    def _complete(self, feedback: Feedback, key: Ints, silent: bool = False) -> Examples | None:
        """Return examples of labelled rows, whose keys are `key`, in their order. All that can fail comes first."""
        label, late = feedback.label, feedback.late
        groups = self.waiting.find(feedback.incarnation, key)
        found, chosen = count(groups), groups
        undone = late & (label > 0) if late.any() else None
        if self.weights.keep < 1.0:
            keeps = self.weights.keeps(feedback.incarnation, key)
            undone = None if undone is None else undone & keeps
            wanted = keeps | (label > 0)
            chosen = [(mine[at], shelf, rows[at]) for mine, shelf, rows in groups for at in [wanted[mine]] if at.any()]
        examples = None
        if chosen:
            columns, taken = gather(chosen, self._reads)
            labelled = at(feedback, taken)
            back = None if undone is None else undone[taken]
            weights = self.weights.of(labelled.label, columns["corrected"], back, labelled.weights)
            examples = made(columns, labelled, weights)
            self.kept_negatives += int(np.count_nonzero(labelled.label == 0)) if self.loss.logit else 0
        self.dropped_negatives += found - count(chosen)
        self._lose(len(key) - found)
        if not self.relabels and not silent:
            self.waiting.remove(groups)
        return examples

    def _of_0_1(self, arrays: Arrays) -> Arrays:
        """Return the state of version 0.1 in today's format; the rows that it had, worker by worker, wait in memory."""
        unmatched, _, kept, dropped, _ = take(arrays, "counts", np.zeros(_COUNTS_OF_0_1, np.int64)).tolist()
        workers, showings, order = split(arrays), [EMPTY], [EMPTY["key"]]
        for worker, columns in workers.items():
            # Rows shown under a window that is no longer known never mature, as in the journal.
            if "shown" in columns and self.window is not None:
                shown = ~np.isnan(columns["shown"])
                due = columns["shown"][shown] + self.window
                of = np.full(len(due), int(worker))
                showings.append({"incarnation": of, "key": columns["key"][shown], "due": due})
                order.append(columns["showing"][shown])
        rest = ("waiting", "shown", "showing")
        self.waiting.load(nest({w: {n: c for n, c in columns.items() if n not in rest} for w, columns in workers.items()}))
        first = np.argsort(np.concatenate(order))
        return {
            "counts": np.array([unmatched, kept, dropped], np.int64),
            "tick": take(arrays, "tick"),
            "upgraded": np.array([False]),
            **{f"shown/{name}": np.concatenate([one[name] for one in showings])[first] for name in EMPTY},
        }
