"""SqliteJournal: the embedded journal; one writer thread per process commits groups."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time as clock
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.errors import ConfigurationError, Unavailable
from riverdelta.events import Control, Feedback, Record, Tick
from riverdelta.features import Floats, Ints
from riverdelta.journal.base import Answer, Health, Outcome
from riverdelta.journal.buffer import Buffer
from riverdelta.journal.judge import POLICIES, Judge, Key
from riverdelta.journal.segments import Segments
from riverdelta.registry import State

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5


@dataclass
class _Call:
    """Feedback that waits for its transaction."""

    keys: list[Key]
    labels: list[float]
    time: float
    deadline: float
    future: Future[Answer] = field(default_factory=Future)


class SqliteJournal:
    """A folder of SQLite segments, written by any number of processes and read by one learner.

    Impressions are flushed `flush_seconds` after the first or at `flush_rows`; feedback at once, together with whatever
    impressions wait. Feedback whose impression is not there yet waits two flush intervals for the worker that scored it.
    While the disk is full, up to `buffer_rows` rows wait in memory; more are dropped and counted, and scoring goes on.
    """

    def __init__(
        self,
        folder: Path,
        flush_seconds: float = 0.02,
        flush_rows: int = 1024,
        segment_bytes: int = 256 << 20,
        buffer_rows: int = 200_000,
        on_conflict: str = "first",
        window_seconds: float | None = None,
    ) -> None:
        if on_conflict not in POLICIES:
            raise ConfigurationError(f"on_conflict is {on_conflict!r}; expected one of {', '.join(POLICIES)}")
        self._flush_seconds, self._flush_rows = flush_seconds, flush_rows
        self._segments = Segments(folder, segment_bytes)
        self._readable = Segments(folder, segment_bytes)
        self._reading = threading.Lock()
        self._judge = Judge(self._segments, on_conflict, window_seconds)
        with self._segments.transaction() as segment:
            self.incarnation = int(segment.get("incarnations")) + 1
            segment.put("incarnations", self.incarnation)
        self._buffer = Buffer(self.incarnation, buffer_rows)
        self._calls: list[_Call] = []
        self._records: list[tuple[Tick | Control, Future[int]]] = []
        self._error: str | None = None
        self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._write_forever, name="riverdelta-journal", daemon=True)
        self._thread.start()

    def append(
        self,
        columns: Mapping[str, npt.NDArray[Any]],
        base: Floats,
        corrected: Floats,
        served: Floats,
        propensity: Floats | None,
        state: State,
        time: float,
    ) -> int:
        """See `Journal.append`."""
        with self._wake:
            request = self._buffer.add(columns, base, corrected, served, propensity, state, time)
            # The writer needs waking for the first rows of a block and for a full one; in between it sleeps on purpose.
            if self._buffer.requests == 1 or self._buffer.rows >= self._flush_rows:
                self._wake.notify()
        return request

    def feedback(self, incarnation: Ints, request: Ints, index: Ints, label: Floats, time: float) -> Future[Answer]:
        """See `Journal.feedback`."""
        keys = list(zip(incarnation.tolist(), request.tolist(), index.tolist(), strict=True))
        call = _Call(keys, label.tolist(), time, clock.monotonic() + 2 * self._flush_seconds)
        with self._wake:
            self._refuse_if_closed()
            self._calls.append(call)
            self._wake.notify()
        return call.future

    def write(self, record: Tick | Control) -> int:
        """See `Journal.write`."""
        future: Future[int] = Future()
        with self._wake:
            self._refuse_if_closed()
            self._records.append((record, future))
            self._wake.notify()
        return future.result()

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """See `Journal.read`."""
        with self._reading:
            return self._readable.read(after, rows)

    def last(self) -> int:
        """See `Journal.last`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.newest.last()

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float) -> int:
        """See `Journal.sweep`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.sweep(behind, max_age, max_bytes, now)

    def size(self) -> int:
        """See `Journal.size`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.size()

    def health(self) -> Health:
        """See `Journal.health`."""
        return Health(self._buffer.rows, self._buffer.dropped, self._error)

    def close(self) -> None:
        """See `Journal.close`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        with self._reading:
            self._readable.close()
        self._segments.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable("the journal is closed; the service is stopping")

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._calls or self._records or self._buffer.rows)
                if not (self._closed or self._calls or self._records or self._buffer.rows >= self._flush_rows):
                    self._wake.wait_for(
                        lambda: self._closed or self._calls or self._records or self._buffer.rows >= self._flush_rows,
                        timeout=self._flush_seconds,
                    )
                calls, self._calls = self._calls, []
                records, self._records = self._records, []
                if self._closed and not (calls or records or self._buffer.rows):
                    return
            try:
                self._commit(calls, records)
                self._error = None
            except Exception as error:  # the thread must outlive whatever a full or broken disk raises
                self._fail(calls, records, error)
                if self._closed:
                    return

    def _commit(self, calls: list[_Call], records: list[tuple[Tick | Control, Future[int]]]) -> None:
        with self._wake:
            block = self._buffer.block()
        ready: list[tuple[_Call, list[Outcome]]] = []
        waiting: list[_Call] = []
        places: list[int] = []
        with self._segments.transaction() as segment:
            if block is not None:
                segment.add(block.impressions)
                segment.add_block(self.incarnation, block.requests)
            accepted: list[tuple[Key, float, float, bool]] = []
            for call in calls:
                if clock.monotonic() < call.deadline and not self._closed and self._judge.missing(call.keys):
                    waiting.append(call)
                    continue
                outcomes = []
                for key, label in zip(call.keys, call.labels, strict=True):
                    verdict = self._judge.judge(segment, key, label, call.time)
                    outcomes.append(verdict.outcome)
                    if verdict.journalled:
                        accepted.append((key, label, call.time, verdict.outcome is Outcome.LATE))
                ready.append((call, outcomes))
            if accepted:
                segment.add(_feedback(accepted))
            for record, _ in records:
                places.append(segment.add(record))
                if isinstance(record, Tick):
                    segment.put("tick", record.time)
            position = segment.last()
        with self._wake:
            self._buffer.forget(block)
            self._calls.extend(waiting)
        for call, outcomes in ready:
            call.future.set_result(Answer(outcomes, position))
        for (_, future), place in zip(records, places, strict=True):
            future.set_result(place)
        if waiting:
            clock.sleep(self._flush_seconds / 4)

    def _fail(self, calls: list[_Call], records: list[tuple[Tick | Control, Future[int]]], error: Exception) -> None:
        if self._error is None:
            _log.error("the journal cannot be written: %s; scoring goes on, feedback is refused until it can", error)
        self._error = f"{type(error).__name__}: {error}"
        refusal = Unavailable(f"the journal cannot be written now ({error}); send the feedback again later")
        for call in calls:
            call.future.set_exception(refusal)
        for _, future in records:
            future.set_exception(refusal)
        if isinstance(error, sqlite3.Error | OSError):
            with self._wake:
                self._wake.wait_for(lambda: self._closed, timeout=_RETRY_SECONDS)


def _feedback(accepted: list[tuple[Key, float, float, bool]]) -> Feedback:
    keys, labels, times, late = zip(*accepted, strict=True)
    incarnation, request, index = np.array(keys, np.int64).T
    return Feedback(
        np.ascontiguousarray(incarnation),
        np.ascontiguousarray(request),
        index.astype(np.int32),
        np.array(labels, np.float32),
        np.array(times, np.float64),
        np.array(late, np.bool_),
    )
