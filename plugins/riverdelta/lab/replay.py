"""Replay: learn a stream without a server, with labels at once or late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats, Ints
from riverdelta.core.link import mix
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation.gate import Gate
from riverdelta.graph.runtime import open_session
from riverdelta.lab.stream import Stream
from riverdelta.learning.admission import Admission

_BLOCK = 8192


@dataclass(frozen=True)
class Replayed:
    """Logits float32[N] of base, corrections and what was served; bool[N] what was learned; the gate; seconds."""

    base: Floats
    corrected: Floats
    served: Floats
    admitted: npt.NDArray[np.bool_]
    gate: Gate
    seconds: float


def base_logits(model: Path, stream: Stream) -> Floats:
    """Return what the frozen base says of every row, float32[N]."""
    session = open_session(model, ("CPUExecutionProvider",))
    names = [i.name for i in session.get_inputs()]
    parts = [
        session.run(["logit"], {name: stream.columns[name][at : at + _BLOCK] for name in names})[0]
        for at in range(0, len(stream), _BLOCK)
    ]
    return np.concatenate(parts).reshape(-1)


def replay(
    stack: Stack,
    stream: Stream,
    base: Floats,
    lag_rows: int = 0,
    lag_seconds: float = 0.0,
    admission: Admission | None = None,
    source: Ints | None = None,
) -> Replayed:
    """Serve every row by the gate's mixture, and learn it, in order.

    Without lag each label is learned before the next row is served. With `lag_rows` the served tables are refreshed once
    every so many rows. With `lag_seconds` a row is served with what was labelled at least so long before, in stream time.
    What `admission` refuses is served and judged, and not learned; `source` int64[N] says who sent each label.
    """
    run = _Run(stack, stream, base, admission or Admission(), np.zeros(len(stream), np.int64) if source is None else source)
    start = time.perf_counter()
    if not lag_rows and not lag_seconds:
        for at in range(0, len(stream), _BLOCK):
            run.serve_and_learn(slice(at, min(at + _BLOCK, len(stream))))
    else:
        learned = 0
        for refresh, (first, last, known) in enumerate(_schedule(stream.time, lag_rows, lag_seconds), start=1):
            if known > learned:
                run.learn(slice(learned, known), refresh)
                learned = known
            run.serve(slice(first, last), refresh)
        run.learn(slice(learned, len(stream)), 0)
    return Replayed(run.base, run.corrected, run.served, run.admitted, run.gate, time.perf_counter() - start)


class _Run:
    """What has been served of a stream so far, and the tables, gate and admission that it went through."""

    def __init__(self, stack: Stack, stream: Stream, base: Floats, admission: Admission, source: Ints) -> None:
        self.stack, self.stream, self.admission, self.source = stack, stream, admission, source
        self.base = np.ascontiguousarray(base, np.float32).reshape(-1)
        self.corrected, self.served = np.empty((2, len(stream)), np.float32)
        self.position = np.zeros(len(stream), np.int64)
        self.admitted = np.ones(len(stream), np.bool_)
        self.gate = Gate()

    def serve_and_learn(self, rows: slice) -> None:
        """Serve rows that each know the labels of all before them, and learn them."""
        for part, admitted in self._admitted(rows):
            columns, base = self._columns(part), self.base[part].reshape(-1, 1)
            label = self.stream.label[part]
            if admitted:
                self.corrected[part] = self.stack.learn(columns, base, label, np.ones(len(label), np.float32))[:, 0]
            else:
                self.corrected[part] = self.stack.predict(columns, base)[:, 0]
        self.served[rows] = self.gate.serve(self.base[rows], self.corrected[rows], self.stream.label[rows])

    def serve(self, rows: slice, refresh: int) -> None:
        """Serve rows with the tables and the weight as they are at a refresh."""
        self.corrected[rows] = self.stack.predict(self._columns(rows), self.base[rows].reshape(-1, 1))[:, 0]
        self.served[rows] = mix(self.base[rows], self.corrected[rows], self.gate.weight)
        self.position[rows] = refresh

    def learn(self, rows: slice, refresh: int) -> None:
        """Learn the labels of rows that were served before, for the tables of a refresh (0: none follows)."""
        label = self.stream.label[rows]
        logged = (self.base[rows], self.corrected[rows], self.served[rows])
        self.gate.update(*logged, label, None, self.position[rows])
        if refresh:
            self.gate.note(refresh)
        for part, admitted in self._admitted(rows):
            if admitted:
                label = self.stream.label[part]
                weight = np.ones(len(label), np.float32)
                self.stack.learn(self._columns(part), self.base[part].reshape(-1, 1), label, weight)

    def _columns(self, rows: slice) -> dict[str, npt.NDArray[Any]]:
        return {name: self.stream.columns[name][rows] for name in self.stack.reads}

    def _admitted(self, rows: slice) -> Iterator[tuple[slice, bool]]:
        """Yield runs of rows that may all be learned, or none of them."""
        count = rows.stop - rows.start
        ones, times = np.ones(count, np.float32), self.stream.time[rows]
        self.admission.scored(count)
        admitted = self.admission.admit(
            Examples(
                columns=self._columns(rows),
                base=self.base[rows],
                corrected=self.corrected[rows],
                served=self.served[rows],
                label=self.stream.label[rows],
                weight=ones,
                received=times,
                scored=times,
                importance=ones,
                taken_back=np.zeros(count, np.float32),
                position=self.position[rows],
                source=self.source[rows],
            )
        )
        self.admitted[rows] = admitted
        edges = np.flatnonzero(np.diff(admitted)) + 1
        for first, last in zip([0, *edges.tolist()], [*edges.tolist(), count], strict=True):
            yield slice(rows.start + first, rows.start + last), bool(admitted[first])


def _schedule(times: npt.NDArray[np.float64], lag_rows: int, lag_seconds: float) -> Iterator[tuple[int, int, int]]:
    """Yield (first, last, known): rows first to last are served with the first `known` rows learned."""
    rows = len(times)
    known: Ints = np.arange(rows)
    if lag_rows:
        known = known // lag_rows * lag_rows
    if lag_seconds:
        known = np.minimum(known, np.searchsorted(times, times - lag_seconds, side="right"))
    starts = np.flatnonzero(np.diff(known, prepend=-1))
    for first, last in zip(starts.tolist(), [*starts[1:].tolist(), rows], strict=True):
        yield first, last, int(known[first])
