"""Journal: takes impressions and feedback of one process and writes them to a log in groups, whatever the log is."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time as clock
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from riverdelta.core.errors import RiverdeltaError, Unavailable
from riverdelta.core.features import Floats, Ints
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import SETTINGS, Control, Feedback, Impressions, Record, Tick, encode
from riverdelta.storage.journal.base import Answer, Health
from riverdelta.storage.journal.buffer import Block, Buffer, Rows
from riverdelta.storage.journal.held import Call, Held
from riverdelta.storage.journal.ids import new_incarnation
from riverdelta.storage.journal.judge import Judge, Rules
from riverdelta.storage.journal.reader import Reader, recorded
from riverdelta.storage.log import Entry, Log, Transaction

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
class _Waiting:
    """A tick or a control that waits for its transaction."""

    record: Tick | Control | Instruction
    future: Future[int] = field(default_factory=Future)


class Journal(Reader):
    """One process's hold on the journal in a log, which it owns; any number of processes have one.

    Impressions are flushed `flush_seconds` after the first or at `flush_rows`; feedback at once, together with whatever
    impressions wait. Feedback whose impressions another process scored and has not stored yet is held for up to
    `patience_seconds` while that process lives, then refused with `Unavailable`: it may come again. It is lost for good when
    the process has died, or has stored a later request. While the log cannot be written, up to `buffer_rows` rows wait in
    memory; more are dropped and counted, and scoring goes on. The rules of the last settings record go before `on_conflict`
    and `window_seconds`. `entropy` returns as many random bytes as it is asked for.
    """

    def __init__(
        self,
        log: Log,
        flush_seconds: float = 0.02,
        flush_rows: int = 1024,
        buffer_rows: int = 200_000,
        on_conflict: str = "first",
        window_seconds: float | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._rules = Rules(on_conflict, window_seconds)
        super().__init__(log)
        self._flush_seconds, self._flush_rows = flush_seconds, flush_rows
        with log.transaction() as transaction:
            count = int(transaction.fact("incarnations")) + 1
            transaction.put("incarnations", count)
            #: A number below 2⁶³ that no other process has had that ever opened this journal or a copy of it.
            self.incarnation = new_incarnation(count, entropy)
            log.enter(self.incarnation)
        self._buffer = Buffer(self.incarnation, buffer_rows)
        self._patience = patience_seconds
        self._calls: list[Call] = []
        self._held = Held(flush_seconds / 4, min(_PAUSE_SECONDS, patience_seconds * _PAUSE_PART))
        self._entries: list[_Waiting] = []
        self._error: str | None = None
        self._leaving = self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._write_forever, name="riverdelta-journal", daemon=True)
        self._thread.start()

    def append(self, rows: Rows) -> int:
        """Take the rows of one request and return the request's number; never blocks, durable within the flush interval."""
        with self._wake:
            request = self._buffer.add(rows)
            # The writer needs waking for the first rows of a block and for a full one; in between it sleeps on purpose.
            if self._buffer.requests == 1 or self._buffer.rows >= self._flush_rows:
                self._wake.notify()
        return request

    def feedback(
        self, incarnation: Ints, request: Ints, index: Ints, label: Floats, time: float, source: int = 0
    ) -> Future[Answer]:
        """Judge and store feedback (a NaN label means shown); the future resolves when it is durable with its impressions.

        `source`, an int64, says who sent all of it. The future raises `Unavailable`, and nothing of the call is stored, when
        the journal cannot be written now, or a living process still owes it some of the rows.
        """
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

    def write(self, record: Tick | Control | Instruction) -> int:
        """Store one record and return its sequence number; raises `Unavailable`."""
        entry = _Waiting(record)
        with self._wake:
            self._refuse_if_closed()
            self._entries.append(entry)
            self._wake.notify()
        return entry.future.result()

    def health(self) -> Health:
        """Return how it does."""
        return Health(self._buffer.rows, self._buffer.dropped, self._error)

    def leave(self) -> None:
        """Refuse feedback that waits for other processes, now and from now on: this one is asked to stop."""
        with self._wake:
            self._leaving = True
            self._wake.notify()

    def close(self) -> None:
        """Make everything pending durable and let go."""
        with self._wake:
            self._leaving = self._closed = True
            self._wake.notify()
        self._thread.join()
        self.log.leave(self.incarnation)
        super().close()

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

    def _commit(self, calls: list[Call], entries: list[_Waiting]) -> None:
        block, encoded = self._next_block()
        calls = self._settled(calls, block)
        if not (block or calls or entries):
            self.log.refresh()
            return
        with self.log.transaction() as transaction:
            if block is not None and encoded is not None:
                transaction.index(self.incarnation, block.requests, transaction.append(encoded))
            judge = Judge(transaction, recorded(transaction, Rules.of) or self._rules)
            answers = [judge.judge(call.keys, call.labels, call.time, call.source) for call in calls]
            for record in judge.records():
                transaction.append(_encoded(record))
            transaction.feed(judge.fed())
            places = [_add(transaction, entry.record) for entry in entries]
            position = transaction.last()
        if block is not None:
            with self._wake:
                self._buffer.forget(block)
        for call, outcomes in zip(calls, answers, strict=True):
            call.future.set_result(Answer(outcomes, position))
        for entry, place in zip(entries, places, strict=True):
            entry.future.set_result(place)

    def _next_block(self) -> tuple[Block | None, Entry | None]:
        try:
            with self._wake:
                block = self._buffer.block()
            return block, _encoded(block.impressions) if block is not None else None
        except Exception:  # rows that make no block must not keep those after them waiting for ever
            _log.exception("impressions cannot be journalled; %d rows are dropped", self._buffer.rows)
            with self._wake:
                self._buffer.discard()
            return None, None

    def _settled(self, calls: list[Call], block: Block | None) -> list[Call]:
        """Return the calls that can be judged now, held ones before the new; hold or refuse the others."""
        now, reaches, ready = clock.monotonic(), dict[int, float](), list[Call]()

        def owes(incarnation: int, request: int) -> bool:
            if incarnation not in reaches:
                reaches[incarnation] = self._reach(incarnation, block)
            return request > reaches[incarnation]

        held = self._held.release() if self._leaving or self._held.pause(now) == 0.0 else []
        calls[:0] = held  # in place: where this fails the caller refuses all of them
        for place, call in enumerate(calls):
            owners = [incarnation for incarnation, request in call.newest.items() if owes(incarnation, request)]
            if not owners:
                ready.append(call)
            elif self._leaving and owners != [self.incarnation]:
                _refuse([call], Unavailable(_OWED.format("before this one stops")))
            elif now >= call.deadline:
                _refuse([call], Unavailable(_OWED.format(f"within {self._patience:g} s")))
            else:
                self._held.hold(call, now, again=place < len(held))
        return ready

    def _reach(self, incarnation: int, block: Block | None) -> float:
        """Return up to which request it is certain whether an incarnation's rows are in the journal, `block` included."""
        if incarnation == self.incarnation:
            return math.inf if block is None else int(block.requests[-1, 0])
        return self.log.flushed(incarnation) if self.log.lives(incarnation) else math.inf

    def _fail(self, calls: list[Call], entries: list[_Waiting], error: Exception) -> None:
        if self._error is None:
            _log.error("the journal cannot be written: %s; scoring goes on, feedback is refused until it can", error)
        self._error = str(error) if isinstance(error, RiverdeltaError) else f"{type(error).__name__}: {error}"
        refusal = Unavailable(f"the journal cannot be written now ({error}); send the feedback again later")
        _refuse([*calls, *self._held.release(), *entries], refusal)
        with self._wake:
            self._wake.wait_for(lambda: self._closed, timeout=_RETRY_SECONDS)


def _refuse(waiting: Iterable[Call | _Waiting], error: Unavailable) -> None:
    for one in waiting:
        if not one.future.done():
            one.future.set_exception(error)


def _encoded(record: Record) -> Entry:
    return Entry.of(record.kind, len(record) if isinstance(record, Impressions | Feedback) else 1, encode(record))


def _add(transaction: Transaction, record: Tick | Control | Instruction) -> int:
    """Add a record with the facts that it changes; return its place."""
    if isinstance(record, Tick):
        transaction.put("tick", max(record.time, transaction.fact("tick")))
    elif isinstance(record, Control) and record.action == SETTINGS:
        if recorded(transaction, dict) is None:
            transaction.put("first_window", record.arguments.get("window_seconds") or 0.0)
        transaction.put("settings", json.dumps(dict(record.arguments)))
    return transaction.append(_encoded(record))
