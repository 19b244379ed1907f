"""Replay: pushes a labelled log into a learner as the records that a service would have written."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.examples import Examples, cuts
from riverdelta.core.features import Columns, Floats, Ints
from riverdelta.core.records import Feedback, Impressions, Record, Tick, by_output
from riverdelta.corrections.interval import LOWER, UPPER
from riverdelta.learning.fold import AT_ONCE
from riverdelta.learning.joiner import Source
from riverdelta.learning.learner import Learner
from riverdelta.learning.observers import Observer

Times = npt.NDArray[np.float64]
#: An extra column that identifies examples; no declared column can have this name.
_ROW = "#row"


def replay(
    learner: Learner,
    columns: Columns,
    base: Floats,
    label: Floats,
    time: Times,
    *,
    label_time: Times | None = None,
    refresh_rows: int = 1,
    source: Ints | None = None,
    weight: Floats | None = None,
    group: Ints | None = None,
    propensity: Floats | None = None,
) -> Replayed:
    """Return a log's rows as a fresh learner serves them, each scored with what it learned from the labels known so far.

    The records are those of a service that scores row by row and publishes after each label: which labels are learned before a
    row is scored depends only on the given times. With a joiner of `labels="silence"`, every row is reported as shown when it
    is scored, only positive labels are sent, and the clock ticks before each refresh.

    Parameters
    ----------
    columns
        The columns that the learner reads: those of the corrections, and the keys of breaker and limiter.
    base
        The frozen base's raw output of each row, float32[N] or float32[N, K].
    label, time
        Labels float32[N], and when each row is scored, float64[N] in seconds, ascending.
    label_time
        When each label becomes known, float64[N] in seconds. None: before the next row is scored.
    refresh_rows
        The tables that score are refreshed every `refresh_rows` rows. Raise it to simulate slower publishing.
    source
        The sender of each label, int64[N] (default 1).
    weight
        The weight of each label, float32[N] from 0 to 100 (default 1); a negative by silence has the weight 1.
    group
        The list of each row, int64[N] with the rows of a list adjacent, for a loss of lists. A list is scored in one request,
        shown in its order, and complete when the last of its labels is known; `refresh_rows` then counts lists.
    propensity
        The probability that a row of a list was examined, float32[N] (default: none is known).
    """
    rows = len(label)
    weight = np.ones(rows, np.float32) if weight is None else weight
    source = np.ones(rows, np.int64) if source is None else source
    run = Replayed(
        learner, columns, np.ascontiguousarray(by_output(base), np.float32), label, time, source, weight, group, propensity
    )
    start = perf_counter()
    joiner = learner.joiner
    immediate = (joiner.window is None or group is not None) and joiner.weights.keep == 1.0 and propensity is None
    if label_time is None and refresh_rows <= 1 and immediate and learner.adaptation.response is None:
        for part in cuts(rows, group, AT_ONCE):
            run.serve_and_learn(part)
    else:
        run.push_records(time if label_time is None else label_time, max(refresh_rows, 1))
    run.seconds = perf_counter() - start
    run.base, run.corrected, run.served = (raw.reshape(base.shape) for raw in (run.base, run.corrected, run.served))
    return run


def first_served_with(time: Times, label_time: Times, refresh_rows: int) -> Ints:
    """Return int64[N]: for each row's label the first row scored by tables that contain it, N or more if there is none.

    >>> first_served_with(np.array([0.0, 1.0, 1.0, 5.0]), np.array([1.0, 1.0, 4.0, 9.0]), 1).tolist()
    [1, 2, 3, 4]
    """
    first: Ints = np.maximum(np.searchsorted(time, label_time), np.arange(1, len(time) + 1))
    return -(-first // refresh_rows) * refresh_rows


class Replayed(Source, Observer):
    """The N rows of a log, their served outputs, and their records: row r, or list r, is request r of one worker.

    `base`, `corrected`, `served` float32 of the base's shape are the raw outputs as logged, and `bounds` the ends of
    intervals, by their names in `corrections.interval`. `learned` bool[N] marks rows whose labels were learned, and `seconds`
    is how long it took. The rest is in the learner: its gate, its measures, its tables.
    """

    def __init__(
        self,
        learner: Learner,
        columns: Columns,
        base: Floats,
        label: Floats,
        time: Times,
        source: Ints,
        weight: Floats,
        group: Ints | None = None,
        propensity: Floats | None = None,
    ) -> None:
        self._propensity = propensity
        self.learner, self.columns, self.group = learner, columns, group
        self._edges_of_lists = np.arange(len(label) + 1) if group is None else learner.stack.loss.starts(len(label), group)
        counts = np.diff(self._edges_of_lists)
        self._request = np.repeat(np.arange(len(counts)), counts)
        self._index = (np.arange(len(label)) - np.repeat(self._edges_of_lists[:-1], counts)).astype(np.int32)
        self.base, self.label, self.time, self.source, self.weight = base, label, time, source, weight
        self.seconds = 0.0
        self.corrected, self.served = np.empty((2, *base.shape), np.float32)
        self.learned = np.zeros(len(label), np.bool_)
        #: The ends of each row's interval as served; {} without intervals, and for rows that are learned at once.
        self.bounds: dict[str, Floats] = {}
        self._sequence, self._tick = 0, 0.0
        #: The sequence number of each record of impressions, and the rows at which they begin, followed by the end of the last.
        self._sequences, self._edges = list[int](), [0]

    def serve_and_learn(self, rows: slice) -> None:
        """Serve and learn rows, each served after all labels before it are learned."""
        group = None if self.group is None else self.group[rows]
        said = self.label[rows], self.time[rows], self.source[rows], self.weight[rows], group
        served = self.learner.learn_at_once(Examples.unserved(self._columns(rows), self.base[rows], *said))
        self.corrected[rows], self.served[rows] = served.corrected, served.served
        self.learned[rows] = self.learner.admitted

    def push_records(self, label_time: Times, refresh_rows: int) -> None:
        """Score rows by the tables at each refresh, and push the records of scores and of labels known so far."""
        self.learner.joiner.waiting.source = self.learner.observers["replay"] = self
        silence, rows = self.learner.joiner.window is not None and self.group is None, len(self.label)
        if self.group is None:
            first = first_served_with(self.time, label_time, refresh_rows)
        else:
            edges = self._edges_of_lists
            known_at = np.maximum.reduceat(label_time, edges[:-1])
            served = np.minimum(first_served_with(self.time[edges[:-1]], known_at, refresh_rows), len(edges) - 1)
            first, label_time = edges[served][self._request], known_at[self._request]
        sent = np.flatnonzero(self.label > 0) if silence else np.arange(rows)
        sent = sent[np.lexsort((label_time[sent], first[sent]))]
        starts = np.arange(0, rows, refresh_rows) if silence else np.unique([0, *first[first < rows]])
        *known, never_served = np.split(sent, np.searchsorted(first[sent], starts, side="right"))
        for labelled, (start, end) in zip(known, pairwise([*starts.tolist(), rows]), strict=True):
            self._label(labelled, self.label[labelled], label_time[labelled])
            if silence:
                self._tick = float(self.time[start])
                self._push(Tick(self._tick))
            self._score(slice(start, end))
            if silence:
                self._label(np.arange(start, end), np.full(end - start, np.nan, np.float32), self.time[start:end])
        self._label(never_served, self.label[never_served], label_time[never_served])

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the record of a row that no longer fits in the joiner's memory."""
        return self._sequences[bisect_right(self._edges, int(self._edges_of_lists[request])) - 1]

    def impressions(self, sequence: int) -> Impressions:
        """Return the rows of a record as they were scored."""
        at = bisect_left(self._sequences, sequence)
        rows = slice(self._edges[at], self._edges[at + 1])
        count = rows.stop - rows.start
        zeros = np.zeros(count, np.int64)
        return Impressions(
            incarnation=1,
            request=self._request[rows],
            index=self._index[rows],
            time=self.time[rows],
            release=zeros,
            swap=zeros,
            position=zeros + sequence - 1,
            base=self.base[rows],
            corrected=self.corrected[rows],
            served=self.served[rows],
            propensity=np.full(count, np.nan, np.float32),
            columns={
                **self._columns(rows),
                **{name: ends[rows] for name, ends in self.bounds.items()},
                _ROW: np.arange(rows.start, rows.stop),
            },
        )

    def _score(self, rows: slice) -> None:
        group = None if self.group is None else self.group[rows]
        self.corrected[rows], self.served[rows] = self.learner.serve(self._columns(rows), self.base[rows], group)
        if self.learner.intervals is not None:
            found = self.learner.intervals.bounds(self.served[rows], self._columns(rows))
            for name, ends in zip((LOWER, UPPER), found, strict=True):
                self.bounds.setdefault(name, np.full(len(self.label), np.nan, np.float32))[rows] = ends
        self._sequences.append(self._sequence + 1)
        self._edges.append(rows.stop)
        self._push(self.impressions(self._sequence + 1))

    def _label(self, rows: Ints, label: Floats, received: Times) -> None:
        if not len(rows):
            return
        window, late = self.learner.joiner.window, np.zeros(len(rows), np.bool_)
        if window is not None and self.group is None:
            late = (self.time[rows] + window <= self._tick) & (label > 0)
        keys, weight = (np.ones(len(rows), np.int64), self._request[rows], self._index[rows]), self.weight[rows]
        shown: dict[str, Any] = {
            "propensity": None if self._propensity is None else self._propensity[rows],
            "place": None if self.group is None else self._index[rows],
            "complete": None if self.group is None else np.ones(len(rows), np.bool_),
        }
        self._push(Feedback(*keys, label, received, late, self.source[rows], weight, **shown))

    def _push(self, record: Record) -> None:
        self._sequence += 1
        self.learner.push(self._sequence, record)

    def on_examples(self, position: int, examples: Examples) -> None:
        """Record which rows were learned."""
        self.learned[examples.columns[_ROW]] = self.learner.admitted

    def _columns(self, rows: slice) -> dict[str, npt.NDArray[Any]]:
        return {name: column[rows] for name, column in self.columns.items()}
