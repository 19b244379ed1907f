"""Connections: over real sockets, a client that does not send its request ends up closed, and takes nobody's place."""

import asyncio
import resource
import socket
import threading

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from riverdelta.bento import connections
from riverdelta.bento.connections import Connections, room

ANSWER = b"HTTP/1.1 200"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"


async def application(scope, receive, send):
    """Answers when the body is complete, or before for the path /early."""
    while scope["path"] != "/early" and (message := await receive()).get("more_body"):
        pass
    if scope["path"] == "/early" or message["type"] != "http.disconnect":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Served(uvicorn.Server):
    def install_signal_handlers(self):
        pass


@pytest.fixture
def serve(monkeypatch):
    """serve(seconds, most) starts a server with these limits and returns connect()."""
    running, opened = [], []

    def start(seconds, most=100):
        monkeypatch.setattr(Connections, "seconds", seconds)
        monkeypatch.setattr(Connections, "most", most)
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(application, http=Connections, lifespan="off", log_level="error", timeout_keep_alive=60)
        server = Served(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        running.append((server, thread))

        def connect():
            opened.append(socket.create_connection(listening.getsockname(), timeout=20))
            return opened[-1]

        return connect

    yield start
    for connection in opened:
        connection.close()
    for server, thread in running:
        server.should_exit = True
        thread.join()
    assert not Connections._waiting


def asks(connection, request=GET + b"\r\n"):
    """The answer."""
    connection.sendall(request)
    received = b""
    while not received.endswith(b"ok"):
        received += connection.recv(1000)
    return received


def ended(connection):
    """What comes until the server closes; a server that does not close makes it time out."""
    received = b""
    try:
        while part := connection.recv(1000):
            received += part
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("sent", [b"", b"G", GET, GET + b"X: " + b"a" * 1_000, POST, POST + b"12345", b"\r\n" * 10, CHUNKED])
def test_a_request_that_is_not_received_in_time_ends_its_connection(serve, sent):
    stalled = serve(0.2)()
    stalled.sendall(sent)
    assert ANSWER not in ended(stalled)


def test_a_client_that_sends_a_byte_now_and_then_gains_no_time(serve):
    stalled = serve(0.3)()
    stalled.sendall(GET)
    drips = 0
    try:
        while drips < 400:
            stalled.sendall(b"X")
            threading.Event().wait(0.05)
            drips += 1
    except OSError:  # a reset, or a broken pipe
        pass
    assert drips < 400


def test_a_body_that_its_answer_does_not_wait_for_has_no_longer_time(serve):
    stalled = serve(0.3)()
    assert asks(stalled, POST.replace(b"/ ", b"/early ", 1) + b"1").startswith(ANSWER)
    ended(stalled)


def test_connections_that_keep_their_time_are_kept_alive(serve):
    connect = serve(20.0)
    kept = connect()
    for request in (GET + b"\r\n", POST + b"1234567890", b"\r\n" + GET + b"\r\n", 2 * (GET + b"\r\n")):
        assert asks(kept, request).startswith(ANSWER)


def test_headers_without_an_end_are_refused(serve):
    long = serve(20.0)()
    long.sendall(GET)
    received = b""
    try:
        for _ in range(1_000):
            long.sendall(b"X: " + b"a" * 1_000 + b"\r\n")
    except OSError:
        pass
    received = ended(long)
    assert not received or received.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("more", [b"a:\r\n", b"a: " + b"b" * 60 + b"\r\n", b"a" * 64], ids=["tiny", "usual", "one name"])
@pytest.mark.parametrize("path", [b"/", b"/early"])
def test_trailers_without_an_end_close_their_connection_and_are_not_kept(serve, monkeypatch, path, more):
    kept = []
    monkeypatch.setattr(HttpToolsProtocol, "on_header", lambda self, name, value: kept.append(name))
    long = serve(20.0)()
    long.sendall(CHUNKED.replace(b"/", path, 1).removesuffix(b"1;") + b"2\r\n{}\r\n0\r\n")
    sent, piece = 0, more * (4_096 // len(more))
    try:
        while sent < 8 << 20:
            sent += long.send(piece)
    except OSError:
        pass
    assert sent < 8 << 20
    assert b"a" not in kept


def test_a_request_with_trailers_is_answered(serve):
    kept = serve(20.0)()
    request = CHUNKED.removesuffix(b"1;") + b"2\r\n{}\r\n0\r\nDigest: a\r\n\r\n"
    for _ in range(2):
        assert asks(kept, request).startswith(ANSWER)


def test_a_long_body_has_no_limit_here(serve):
    body = b"".join(b"%x\r\n%s\r\n" % (1_000, b"a" * 1_000) for _ in range(1_000))
    assert asks(serve(20.0)(), CHUNKED.removesuffix(b"1;") + body + b"0\r\n\r\n").startswith(ANSWER)


def test_the_connection_that_has_waited_longest_makes_room_for_a_new_one(serve):
    connect = serve(20.0, most=10)
    stalled = [connect() for _ in range(10)]
    for connection in stalled:
        connection.sendall(GET)
    for _ in range(15):
        new = connect()
        assert asks(new).startswith(ANSWER)
        new.close()
    assert ANSWER not in ended(stalled[0])


def test_the_room_follows_the_limit_on_open_files(monkeypatch):
    def limited(files):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (files, files))
        return room()

    assert limited(1 << 20) == 4_096
    assert limited(16) == 8
    assert 8 < limited(1_024) <= 512
    assert resource.RLIMIT_NOFILE == connections.resource.RLIMIT_NOFILE


def test_chunks_that_come_together_are_passed_on_together_and_in_order(serve, monkeypatch):
    passed = []
    on_body = HttpToolsProtocol.on_body
    monkeypatch.setattr(HttpToolsProtocol, "on_body", lambda self, body: passed.append(body) or on_body(self, body))
    connect = serve(20.0)
    chunks = b"".join(b"1\r\n%c\r\n" % (97 + i % 26) for i in range(2_000))
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert asks(connect(), request + request[:20]).startswith(ANSWER)
    assert b"".join(passed) == bytes(97 + i % 26 for i in range(2_000))
    assert len(passed) < 100
