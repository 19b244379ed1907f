"""SqliteJournal: the embedded journal; one writer thread per process commits groups."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time as clock
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, RiverdeltaError, Unavailable
from riverdelta.core.features import Floats, Ints
from riverdelta.core.records import SETTINGS, Control, Impressions, Record, Tick
from riverdelta.storage.journal.alive import Alive
from riverdelta.storage.journal.base import Answer, Health, Needed, Outcome
from riverdelta.storage.journal.buffer import Block, Buffer
from riverdelta.storage.journal.held import Call, Held
from riverdelta.storage.journal.ids import new_incarnation
from riverdelta.storage.journal.judge import POLICIES, Judge, Rules
from riverdelta.storage.journal.segment import Encoded
from riverdelta.storage.journal.segments import Segments
from riverdelta.storage.registry.state import State

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
#: How often an idle process looks for segments that retention has deleted, whose files it still holds.
_IDLE_SECONDS = 5.0
#: How long feedback waits for rows that another process owes it, where nobody knows how long its sender does.
PATIENCE_SECONDS = 4.0
#: The longest pause between two looks at held feedback: in seconds, and as a part of the time that it may wait.
_PAUSE_SECONDS, _PAUSE_PART = 0.25, 1 / 8
_OWED = "the process that scored these rows lives and has not stored them {}; send the feedback again later"


@dataclass(frozen=True)
class _Entry:
    """A tick or a control that waits for its transaction."""

    record: Tick | Control
    future: Future[int] = field(default_factory=Future)


class SqliteJournal:
    """A folder of SQLite segments, written by any number of processes and read by one learner.

    Impressions are flushed `flush_seconds` after the first or at `flush_rows`; feedback at once, together with whatever
    impressions wait. Feedback whose impressions another process scored and has not stored yet is held for up to
    `patience_seconds` while that process lives, then refused with `Unavailable`: it may come again. It is lost for good when
    the process has died, or has stored a later request. While the disk is full, up to `buffer_rows` rows wait in memory; more
    are dropped and counted, and scoring goes on. The constructor raises `Unavailable` or `Corrupt`, naming the file, where the
    folder cannot be used. `entropy` returns as many random bytes as it is asked for.
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
        patience_seconds: float = PATIENCE_SECONDS,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if on_conflict not in POLICIES:
            raise ConfigurationError(f"on_conflict is {on_conflict!r}; expected one of {', '.join(POLICIES)}")
        self._flush_seconds, self._flush_rows = flush_seconds, flush_rows
        self._rules = Rules(on_conflict, window_seconds)
        self._segments = Segments(folder, segment_bytes)
        self._readable = Segments(folder, segment_bytes)
        self._reading = threading.Lock()
        with self._segments.transaction() as segment:
            count = int(segment.get("incarnations")) + 1
            segment.put("incarnations", count)
            self.incarnation = new_incarnation(count, entropy)
            self._alive = self._enter(folder / "alive")
        self._buffer = Buffer(self.incarnation, buffer_rows)
        self._patience = patience_seconds
        self._calls: list[Call] = []
        self._held = Held(flush_seconds / 4, min(_PAUSE_SECONDS, patience_seconds * _PAUSE_PART))
        self._entries: list[_Entry] = []
        self._error: str | None = None
        self._leaving = self._closed = False
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
        trace: str | None = None,
    ) -> int:
        """See `Journal.append`."""
        with self._wake:
            request = self._buffer.add(columns, base, corrected, served, propensity, state, time, trace)
            # The writer needs waking for the first rows of a block and for a full one; in between it sleeps on purpose.
            if self._buffer.requests == 1 or self._buffer.rows >= self._flush_rows:
                self._wake.notify()
        return request

    def feedback(
        self, incarnation: Ints, request: Ints, index: Ints, label: Floats, time: float, source: int = 0
    ) -> Future[Answer]:
        """See `Journal.feedback`."""
        keys = np.stack([incarnation, request, index], axis=1)
        # What is no int64 is refused here, where it harms its sender alone.
        call = Call(keys, label.tolist(), time, int(np.int64(source)), clock.monotonic() + self._patience)
        # A client that hangs up cannot take back what others are committed with.
        call.future.set_running_or_notify_cancel()
        with self._wake:
            self._refuse_if_closed()
            self._calls.append(call)
            self._wake.notify()
        return call.future

    def write(self, record: Tick | Control) -> int:
        """See `Journal.write`."""
        entry = _Entry(record)
        with self._wake:
            self._refuse_if_closed()
            self._entries.append(entry)
            self._wake.notify()
        return entry.future.result()

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """See `Journal.read`."""
        with self._reading:
            return self._readable.read(after, rows)

    def locate(self, incarnation: int, request: int) -> int | None:
        """See `Journal.locate`."""
        with self._reading:
            return self._readable.locate(incarnation, request)

    def impressions(self, sequence: int) -> Impressions:
        """See `Journal.impressions`."""
        with self._reading:
            return self._readable.impressions(sequence)

    def controls(self, after: int, before: int) -> list[tuple[int, Control]]:
        """See `Journal.controls`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.controls(after, before)

    def complete_after(self) -> int:
        """See `Journal.complete_after`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.complete_after()

    def first(self) -> int:
        """See `Journal.first`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.first()

    def settings(self) -> dict[str, Any]:
        """See `Journal.settings`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.newest.settings(dict) or {}

    def tick(self) -> float:
        """See `Journal.tick`."""
        with self._reading:
            self._readable.refresh()
            return float(self._readable.newest.get("tick"))

    def last(self) -> int:
        """See `Journal.last`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.last()

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed = lambda spans: False) -> int:
        """See `Journal.sweep`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.sweep(behind, max_age, max_bytes, now, needed)

    def size(self) -> int:
        """See `Journal.size`."""
        with self._reading:
            self._readable.refresh()
            return self._readable.size()

    def health(self) -> Health:
        """See `Journal.health`."""
        return Health(self._buffer.rows, self._buffer.dropped, self._error)

    def leave(self) -> None:
        """See `Journal.leave`."""
        with self._wake:
            self._leaving = True
            self._wake.notify()

    def close(self) -> None:
        """See `Journal.close`."""
        with self._wake:
            self._leaving = self._closed = True
            self._wake.notify()
        self._thread.join()
        self._alive.leave()
        with self._reading:
            self._readable.close()
        self._segments.close()

    def _enter(self, folder: Path) -> Alive:
        try:
            alive = Alive(folder)
            alive.enter(self.incarnation)
        except OSError as error:
            raise Unavailable(f"the journal folder {folder} cannot be written: {error}") from error
        return alive

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable("the journal is closed; the service is stopping")

    def _urgent(self) -> bool:
        waits = self._calls or self._entries or (self._leaving and self._held)
        return bool(self._closed or waits or self._buffer.rows >= self._flush_rows)

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                self._rest()
                calls, self._calls = self._calls, []
                entries, self._entries = self._entries, []
                if self._closed and not (calls or entries or self._held or self._buffer.rows):
                    return
            try:
                self._commit(calls, entries)
                if self._error is not None:
                    _log.warning("the journal can be written again")
                self._error = None
            except Exception as error:  # the thread must outlive whatever a full or broken disk raises
                self._fail(calls, entries, error)
                if self._closed:
                    return

    def _rest(self) -> None:
        """Sleep until something is urgent, a block is due, held feedback wants another look, or for the idle time."""
        while not self._urgent():
            due = self._flush_seconds if self._buffer.rows else _IDLE_SECONDS
            if not self._wake.wait(min(due, self._held.pause(clock.monotonic()))):
                return

    def _commit(self, calls: list[Call], entries: list[_Entry]) -> None:
        block, encoded = self._next_block()
        calls = self._settled(calls, block)
        if not (block or calls or entries):
            self._segments.refresh()
            return
        answers: list[list[Outcome]] = []
        places: list[int] = []
        with self._segments.transaction() as segment:
            if block is not None and encoded is not None:
                segment.add_block(self.incarnation, block.requests, segment.add(encoded))
            judge = Judge(self._segments, segment, self._rules)
            answers = [judge.judge(call.keys, call.labels, call.time, call.source) for call in calls]
            judge.store()
            for entry in entries:
                places.append(segment.add(Encoded.of(entry.record)))
                if isinstance(entry.record, Tick):
                    segment.put("tick", max(entry.record.time, segment.get("tick")))
                elif entry.record.action == SETTINGS:
                    if segment.settings(dict) is None:
                        segment.put("first_window", entry.record.arguments.get("window_seconds") or 0.0)
                    segment.put("settings", json.dumps(dict(entry.record.arguments)))
            position = segment.last()
        if block is not None:
            with self._wake:
                self._buffer.forget(block)
        for call, outcomes in zip(calls, answers, strict=True):
            call.future.set_result(Answer(outcomes, position))
        for entry, place in zip(entries, places, strict=True):
            entry.future.set_result(place)

    def _next_block(self) -> tuple[Block | None, Encoded | None]:
        try:
            with self._wake:
                block = self._buffer.block()
            return block, Encoded.of(block.impressions) if block is not None else None
        except Exception:  # rows that make no block must not keep those after them waiting for ever
            _log.exception("impressions cannot be journalled; %d rows are dropped", self._buffer.rows)
            with self._wake:
                self._buffer.discard()
            return None, None

    def _settled(self, calls: list[Call], block: Block | None) -> list[Call]:
        """Return the calls that can be judged now, held ones among them; hold or refuse the others."""
        now, reaches = clock.monotonic(), dict[int, float]()

        def reach(incarnation: int) -> float:
            if incarnation not in reaches:
                reaches[incarnation] = self._reach(incarnation, block)
            return reaches[incarnation]

        with self._segments.explained():
            if self._leaving:
                calls[:0] = self._held.release()
            elif self._held.pause(now) == 0.0:
                awake, overdue = self._held.look(now, reach)
                calls[:0] = awake
                _refuse(overdue, Unavailable(_OWED.format(f"within {self._patience:g} s")))
            ready: list[Call] = []
            for call in calls:
                owes = next((owner for owner, request in call.newest.items() if request > reach(owner)), None)
                if owes is None:
                    ready.append(call)
                elif self._leaving and owes != self.incarnation:
                    _refuse([call], Unavailable(_OWED.format("before this one stops")))
                else:
                    self._held.hold(call, owes, now)
        return ready

    def _reach(self, incarnation: int, block: Block | None) -> float:
        """Return up to which request it is certain whether an incarnation's rows are in the journal, `block` included."""
        if incarnation == self.incarnation:
            return math.inf if block is None else int(block.requests[-1, 0])
        return self._segments.flushed(incarnation) if self._alive.has(incarnation) else math.inf

    def _fail(self, calls: list[Call], entries: list[_Entry], error: Exception) -> None:
        if self._error is None:
            _log.error("the journal cannot be written: %s; scoring goes on, feedback is refused until it can", error)
        self._error = str(error) if isinstance(error, RiverdeltaError) else f"{type(error).__name__}: {error}"
        refusal = Unavailable(f"the journal cannot be written now ({error}); send the feedback again later")
        _refuse([*calls, *self._held.release(), *entries], refusal)
        with self._wake:
            self._wake.wait_for(lambda: self._closed, timeout=_RETRY_SECONDS)


def _refuse(waiting: Iterable[Call | _Entry], error: Unavailable) -> None:
    for one in waiting:
        if not one.future.done():
            one.future.set_exception(error)
