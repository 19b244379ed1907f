"""Logs: JSON lines for log collectors, and counts of events that are too frequent to log one by one."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

#: Returns the current trace and span ids, in hexadecimal, or None outside of a trace.
Tracing = Callable[[], "tuple[str, str] | None"]


class JsonLines(logging.Formatter):
    """Formats a record as {"time", "level", "logger", "message", "pid"}, with "trace_id" and "span_id" within a trace.

    `time` is UTC in ISO 8601. An exception's traceback is one string, "error": a line is always one record.

    >>> record = logging.makeLogRecord({"name": "riverdelta.x", "levelname": "INFO", "msg": "swap %d", "args": (3,)})
    >>> line = json.loads(JsonLines(lambda: ("0af7", "b7ad")).format(record))
    >>> line["message"], line["level"], line["trace_id"]
    ('swap 3', 'INFO', '0af7')
    """

    def __init__(self, tracing: Tracing = lambda: None) -> None:
        super().__init__()
        self._tracing = tracing

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if (ids := self._tracing()) is not None:
            line["trace_id"], line["span_id"] = ids
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def use_json(tracing: Tracing = lambda: None, stream: TextIO | None = None) -> None:
    """Write riverdelta's log as JSON lines only to `stream` (standard error); a second call does nothing."""
    log = logging.getLogger("riverdelta")
    if any(isinstance(handler.formatter, JsonLines) for handler in log.handlers):
        return
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(tracing))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class Throttled:
    """Calls `log` with the number of events since its last call, at most once in `seconds`.

    `add` may be called from any thread. Remaining events wait for the next `add`: call it from time to time with 0, and
    finally with `now` at infinity.

    >>> throttled = Throttled(print, 60.0)
    >>> for now in (0.0, 1.0, 59.0, 60.0):
    ...     throttled.add(1, now)
    1
    3
    """

    def __init__(self, log: Callable[[int], None], seconds: float = 60.0) -> None:
        self._log, self._seconds = log, seconds
        self._count, self._logged = 0, -math.inf
        self._lock = threading.Lock()

    def add(self, count: int, now: float) -> None:
        """Add `count` events at `now` (in seconds); a clock that was set back delays nothing."""
        with self._lock:
            self._count += count
            if not self._count or 0 <= now - self._logged < self._seconds:
                return
            count, self._count, self._logged = self._count, 0, now
        self._log(count)
