"""Connections: ends those that do not send their requests, so that they cannot take the place of others."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: The maximum bytes of a request's headers, and of what is not body between two of its bytes or after the last.
_HEAD_BYTES = 64 << 10
#: The maximum number of connections, whatever the limit on open files is.
_MOST = 4_096
_FEWEST = 8
_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connections(HttpToolsProtocol):
    """An HTTP connection that closes if a request is not received within `seconds`, or its headers or trailers exceed 64 KiB.

    If more than `most` are open, the one that has waited longest for a client closes. A connection waits unless its request
    was received in full and is being answered.
    """

    #: The time within which a request must be received, in seconds.
    seconds: ClassVar[float] = 20.0
    #: The maximum number of open connections of this process.
    most: ClassVar[int] = _MOST
    _waiting: ClassVar[dict[Connections, None]] = {}
    _timer: asyncio.TimerHandle | None = None
    _receives = _in_head = True
    _head_bytes = _piece = 0

    def connection_made(self, transport: Any) -> None:
        """Take a connection, and close the one that has waited longest if there are too many."""
        super().connection_made(transport)
        self._chunks: list[bytes] = []
        self._wait()
        self._watch()
        if len(self.connections) > self.most:
            # All others may be answered: then this one is one too many until the next closes.
            next(iter(self._waiting)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; close the connection if its headers or trailers are too long."""
        # Line ends before a request do not begin it.
        self._receives = self._receives or self in self._waiting
        self._piece = len(data)
        self._head_bytes += self._piece
        super().data_received(data)
        self._pass_on()
        if self._receives:
            if self._head_bytes > _HEAD_BYTES:
                self._end(_LONG)
            self._watch()

    def on_message_begin(self) -> None:
        """Begin to receive a request."""
        super().on_message_begin()
        self._receives = self._in_head = True
        self._head_bytes = self._piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer, which comes after the body, is dropped: nothing reads it."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to receive a body."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Collect the chunks that come together: each would be appended to a copy of those before it."""
        self._chunks.append(body)
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        """End the wait for the client: the request is complete."""
        self._pass_on()
        self._receives, self._in_head, self._head_bytes = False, True, 0
        if not self.cycle.response_complete:
            self._rest()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to another protocol."""
        self._rest()
        super().handle_websocket_upgrade()

    def _pass_on(self) -> None:
        if self._chunks:
            super().on_body(b"".join(self._chunks))
            self._chunks.clear()

    def _wait(self) -> None:
        if not self.transport.is_closing():
            self._waiting[self] = None

    def _watch(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.seconds, self._end, _LATE)

    def _rest(self) -> None:
        self._waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            # A client that still sends a body may already have its answer.
            if self._in_head and self._head_bytes:
                self.transport.write(answer)
            self.transport.close()


def room() -> int:
    """Return how many connections this process can have: half of the files that it may still open, up to 4,096.

    The other half is for gRPC, which may have half as many, and for the journal.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = Path("/proc/self/fd") if os.path.isdir("/proc/self/fd") else Path("/dev/fd")
    return min(_MOST, max(_FEWEST, (files - len(list(open_files.iterdir()))) // 2))
