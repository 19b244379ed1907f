"""Replay: learn a stream without a server, with labels at once or late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from riverdelta.features import Floats, Ints
from riverdelta.lab.stream import Stream
from riverdelta.session import open_session
from riverdelta.stack import Stack

_BLOCK = 8192


@dataclass(frozen=True)
class Replayed:
    """Base and served logits float32[N] of a stream, and the seconds that predicting and learning took."""

    base: Floats
    served: Floats
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


def replay(stack: Stack, stream: Stream, base: Floats, lag_rows: int = 0, lag_seconds: float = 0.0) -> Replayed:
    """Serve and learn every row in order.

    Without lag each label is learned before the next row is served. With `lag_rows` the served tables are refreshed once
    every so many rows. With `lag_seconds` a row is served with what was labelled at least so long before, in stream time.
    """
    wide = np.ascontiguousarray(base, np.float32).reshape(-1, 1)
    weight = np.ones(len(stream), np.float32)
    served = np.empty(len(stream), np.float32)
    start = time.perf_counter()

    def learn(rows: slice) -> Floats:
        columns = {name: stream.columns[name][rows] for name in stack.reads}
        return stack.learn(columns, wide[rows], stream.label[rows], weight[rows])[:, 0]

    if not lag_rows and not lag_seconds:
        for at in range(0, len(stream), _BLOCK):
            rows = slice(at, at + _BLOCK)
            served[rows] = learn(rows)
    else:
        learned = 0
        for first, last, known in _schedule(stream.time, lag_rows, lag_seconds):
            if known > learned:
                learn(slice(learned, known))
                learned = known
            rows = slice(first, last)
            served[rows] = stack.predict({name: stream.columns[name][rows] for name in stack.reads}, wide[rows])[:, 0]
        learn(slice(learned, len(stream)))
    return Replayed(wide[:, 0], served, time.perf_counter() - start)


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
