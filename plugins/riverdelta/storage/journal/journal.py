"""Journal: writes the impressions and feedback of one process to a log, in groups."""

from __future__ import annotations

import logging
import math
import os
import threading
import time as clock
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import RiverdeltaError, Unavailable
from riverdelta.core.features import Floats, Ints
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import Control, Feedback, Tick
from riverdelta.storage.journal.base import Answer, Health
from riverdelta.storage.journal.buffer import Block, Buffer, Rows
from riverdelta.storage.journal.entries import add, encoded, recorded
from riverdelta.storage.journal.held import Call, Held
from riverdelta.storage.journal.ids import new_incarnation
from riverdelta.storage.journal.judge import Judge, Rules
from riverdelta.storage.journal.reader import Reader
from riverdelta.storage.log import Entry, Log, Named

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
#: How often an idle process closes the files of segments that retention has deleted, in seconds.
_IDLE_SECONDS = 5.0
#: How long feedback waits for rows of another process, in seconds, if the sender's timeout is unknown.
PATIENCE_SECONDS = 4.0
#: The longest pause between two checks of held feedback: in seconds, and as a share of the time that it may wait.
_PAUSE_SECONDS, _PAUSE_PART = 0.25, 1 / 8
_OWED = "the process that scored these rows is alive and has not stored them {}; send the feedback again later"


@dataclass(frozen=True)
class _Waiting:
    """A tick or a command that waits for its transaction."""

    record: Tick | Control | Instruction
    future: Future[int] = field(default_factory=Future)


class Journal(Reader):
    """The journal of one process over a log, which it owns; any number of processes may have one.

    Feedback is flushed at once, together with all waiting impressions. Feedback whose impressions another process scored and
    has not stored yet is held while that process lives, then refused with `Unavailable`, so that it can be sent again. It is
    lost permanently if the process has died, or has stored a later request.

    Parameters
    ----------
    log
        The log to write to; `close` closes it.
    flush_seconds, flush_rows
        Impressions are flushed this long after the first, or at this many rows (default 0.02 s and 1,024). Raise them to
        write less often.
    buffer_rows
        Rows that wait in memory while the log cannot be written (default 200,000); more are dropped and counted, and
        scoring continues.
    on_conflict, window_seconds, lists
        The rules for feedback (see `Rules`) until the first settings record, whose rules then apply.
    patience_seconds
        How long feedback is held for the rows of another process, in seconds.
    entropy
        Returns the requested number of random bytes; set it in tests.
    names
        The most texts of string ids that the index keeps (default 100,000).
    """

    def __init__(
        self,
        log: Log,
        flush_seconds: float = 0.02,
        flush_rows: int = 1024,
        buffer_rows: int = 200_000,
        on_conflict: str = "first",
        window_seconds: float | None = None,
        lists: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
        entropy: Callable[[int], bytes] = os.urandom,
        names: int = 100_000,
    ) -> None:
        self._rules = Rules(on_conflict, window_seconds, lists)
        super().__init__(log)
        self._flush_seconds, self._flush_rows = flush_seconds, flush_rows
        with log.transaction() as transaction:
            count = int(transaction.fact("incarnations")) + 1
            transaction.put("incarnations", count)
            #: A number below 2⁶³, unique among all processes that ever opened this journal or a copy of it.
            self.incarnation = new_incarnation(count, entropy)
            log.enter(self.incarnation)
        self._buffer = Buffer(self.incarnation, buffer_rows)
        self._patience, self._names = patience_seconds, names
        self._held = Held(flush_seconds / 4, min(_PAUSE_SECONDS, patience_seconds * _PAUSE_PART))
        self._calls, self._entries = list[Call](), list[_Waiting]()
        self._error: str | None = None
        self._leaving = self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._write_forever, name="riverdelta-journal", daemon=True)
        self._thread.start()

    def append(self, rows: Rows) -> int:
        """Append the rows of one request and return its number; never blocks, rows are durable within the flush interval."""
        with self._wake:
            request = self._buffer.add(rows)
            # The writer is woken for the first rows of a block and for a full one; in between it sleeps on purpose.
            if self._buffer.requests == 1 or self._buffer.rows >= self._flush_rows:
                self._wake.notify()
        return request

    def claim(self, rows: Rows) -> tuple[int, Future[Named]]:
        """Append the rows of one request with a name; return its number, and a future of who has the name, once durable.

        That may be an earlier request: these rows are then dropped. The future raises `Unavailable`, and nothing is stored, if
        the journal cannot be written now.
        """
        owner: Future[Named] = Future()
        owner.set_running_or_notify_cancel()
        with self._wake:
            self._refuse_if_closed()
            request = self._buffer.add(replace(rows, owner=owner))
            self._wake.notify()
        return request, owner

    def feedback(
        self,
        incarnation: Ints,
        request: Ints,
        index: Ints,
        label: Floats,
        time: float,
        source: int = 0,
        **more: npt.NDArray[Any],
    ) -> Future[Answer]:
        """Decide and store feedback (a NaN label means shown); the future resolves when all of it is durable.

        `source`, an int64, is the sender; `more` are the optional arrays of `Feedback`. The future raises `Unavailable`,
        and nothing is stored, if the journal cannot be written now or a live process has not stored some of the rows yet.
        """
        # Anything but an int64 is refused here, where it affects only its sender.
        times, late, sources = (np.full(len(label), value) for value in (time, False, np.int64(source)))
        kept: dict[str, Any] = dict(more)
        given = Feedback(incarnation, request, index.astype(np.int32), label, times, late, sources, **kept)
        call = Call(given, clock.monotonic() + self._patience)
        # A client that hangs up cannot take back what others are committed with.
        call.future.set_running_or_notify_cancel()
        with self._wake:
            self._refuse_if_closed()
            self._calls.append(call)
            self._wake.notify()
        return call.future

    def write(self, record: Tick | Control | Instruction) -> int:
        """Store one record and return its sequence number; raises `Unavailable` if the log cannot be written."""
        entry = _Waiting(record)
        with self._wake:
            self._refuse_if_closed()
            self._entries.append(entry)
            self._wake.notify()
        return entry.future.result()

    def health(self) -> Health:
        """Return the journal's health."""
        return Health(self._buffer.rows, self._buffer.dropped, self._error)

    def leave(self) -> None:
        """Refuse feedback that waits for other processes, from now on, because this process is stopping."""
        with self._wake:
            self._leaving = True
            self._wake.notify()

    def close(self) -> None:
        """Make everything pending durable and close the log."""
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
        waits = self._calls or self._entries or self._buffer.claims or (self._leaving and self._held)
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
            except Exception as error:  # the thread must survive any error of a full or broken disk
                self._fail(calls, entries, error)
                if self._closed:
                    return

    def _rest(self) -> None:
        """Sleep until something is urgent, a block is due, held feedback is due for a check, or the idle time is over."""
        while not self._urgent():
            due = self._flush_seconds if self._buffer.rows else _IDLE_SECONDS
            if not self._wake.wait(min(due, self._held.pause(clock.monotonic()))):
                return

    def _commit(self, calls: list[Call], entries: list[_Waiting]) -> None:
        block, made = self._next_block()
        calls = self._settled(calls, block)
        if not (block or calls or entries):
            self.log.refresh()
            return
        with self.log.transaction() as transaction:
            owners = block.store(transaction, made, self._names) if block is not None and made is not None else {}
            judge = Judge(transaction, recorded(transaction, Rules.of) or self._rules)
            answers = [judge.judge(call.feedback) for call in calls]
            for record in judge.records():
                transaction.append(encoded(record))
            transaction.feed(judge.fed())
            places = [add(transaction, entry.record) for entry in entries]
            position = transaction.last()
        if block is not None:
            with self._wake:
                self._buffer.forget(block, owners)
        for call, outcomes in zip(calls, answers, strict=True):
            call.future.set_result(Answer(outcomes, position))
        for entry, place in zip(entries, places, strict=True):
            entry.future.set_result(place)

    def _next_block(self) -> tuple[Block | None, Entry | None]:
        try:
            with self._wake:
                block = self._buffer.block()
            return block, encoded(block.impressions) if block is not None else None
        except Exception:  # rows that cannot be encoded must not block those after them
            _log.exception("impressions cannot be encoded; %d rows are dropped", self._buffer.rows)
            with self._wake:
                self._buffer.discard(Unavailable("the rows cannot be stored; send the request without request_id"))
            return None, None

    def _settled(self, calls: list[Call], block: Block | None) -> list[Call]:
        """Return the calls that can be decided now, held ones first; hold or refuse the others."""
        now, reaches, ready = clock.monotonic(), dict[int, float](), list[Call]()

        def owes(incarnation: int, request: int) -> bool:
            if incarnation not in reaches:
                reaches[incarnation] = self._reach(incarnation, block)
            return request > reaches[incarnation]

        held = self._held.release() if self._leaving or self._held.pause(now) == 0.0 else []
        calls[:0] = held  # in place: if this fails the caller refuses all of them
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
        """Return the newest request of an incarnation whose rows are known to be in the journal or `block`, or to be lost."""
        if incarnation == self.incarnation:
            return math.inf if block is None else int(block.requests[-1, 0])
        return self.log.flushed(incarnation) if self.log.lives(incarnation) else math.inf

    def _fail(self, calls: list[Call], entries: list[_Waiting], error: Exception) -> None:
        if self._error is None:
            _log.error("the journal cannot be written: %s; scoring continues, and feedback is refused until it can", error)
        self._error = str(error) if isinstance(error, RiverdeltaError) else f"{type(error).__name__}: {error}"
        refusal = Unavailable(f"the journal cannot be written now ({error}); send the feedback again later")
        _refuse([*calls, *self._held.release(), *entries], refusal)
        with self._wake:
            self._buffer.withdraw(refusal)
            self._wake.wait_for(lambda: self._closed, timeout=_RETRY_SECONDS)


def _refuse(waiting: Iterable[Call | _Waiting], error: Unavailable) -> None:
    for one in waiting:
        if not one.future.done():
            one.future.set_exception(error)
