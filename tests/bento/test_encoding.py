"""Encoding: a compressed body is what it was, a bomb is refused before it is inflated, and another coding by name."""

import asyncio
import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from riverdelta.bento.encoding import ACCEPTED, decoded
from riverdelta.bento.http import read_body
from riverdelta.core.errors import InvalidInput, TooLarge

CODINGS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes, "GZIP": gzip.compress}
ROWS = {"columns": {"user": [1, "ann"], "x": [0.5, 1], "shop": [0, 1]}}
LIMIT = 100_000


async def parts(data, size):
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def at_once(act, *given):
    return act(*given)


def read(data, coding, size=1 << 16):
    async def all_of_it():
        return b"".join([piece async for piece in decoded(parts(data, size), [coding], at_once)])

    return asyncio.run(all_of_it())


SIZES = st.integers(0, 700_000) | st.sampled_from([1 << 18, 1 << 19])


@given(st.binary(max_size=2_000) | SIZES.map(bytes), st.sampled_from([*CODINGS]), st.integers(1, 70_000))
def test_a_body_is_what_it_was_however_it_arrives(body, coding, size):
    assert read(CODINGS[coding](body), coding, max(size, len(body) // 100)) == body


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate"]), st.data())
def test_a_body_that_is_cut_changed_or_longer_is_refused_or_the_same(body, coding, data):
    packed = bytearray(CODINGS[coding](body))
    kind = data.draw(st.sampled_from(["cut", "changed", "longer"]))
    if kind == "cut":
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
    elif kind == "longer":
        packed += b"x"
    else:
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = read(bytes(packed), coding)
    except InvalidInput as error:
        said = str(error)
    else:
        assert (found, kind) == (body, "changed")  # the header of gzip has bytes without a meaning
        return
    assert coding in said


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("path", ["/score", "/feedback", "/v2/models/ranker/infer", "/v2/repository/index"])
def test_a_bomb_is_refused_before_it_is_inflated(send, monkeypatch, coding, path):
    inflated = []

    class Watched:
        def __init__(self, bits):
            self._stream = zlib.decompressobj(bits)

        def decompress(self, data, most):
            piece = self._stream.decompress(data, most)
            inflated.append(len(piece))
            return piece

        def __getattr__(self, name):
            return getattr(self._stream, name)

    bomb = CODINGS[coding](bytes(50_000_000))
    assert len(bomb) < LIMIT
    monkeypatch.setattr("riverdelta.bento.encoding.zlib", type("Zlib", (), {"decompressobj": Watched, "error": zlib.error}))
    answer = send("POST", path, content=bomb, headers={"Content-Encoding": coding})
    limit = 8_192 if path == "/v2/repository/index" else LIMIT
    assert (answer.status_code, f" {limit} " in answer.text) == (413, True)
    assert inflated in ([1 << 18], [])  # it is not even begun if what comes is too long


def test_a_body_that_inflates_to_nothing_has_the_same_limit(runtime):
    """Empty blocks have bytes, and none when they are inflated."""
    received = []

    async def stream():
        yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
        for _ in range(1_000):
            received.append(5_000)
            yield b"\0\0\0\xff\xff" * 1_000

    request = Request({"type": "http", "headers": [(b"content-encoding", b"gzip")]})
    request.stream = stream
    with pytest.raises(TooLarge, match=f"more than {LIMIT} bytes"):
        asyncio.run(read_body(request, runtime))
    assert sum(received) <= LIMIT + 5_000


def test_all_but_the_first_piece_of_a_body_is_inflated_where_large_bodies_are_read():
    async def inflate():
        asked = []

        def apart(act, *given):
            asked.append(act)
            return at_once(act, *given)

        packed = parts(gzip.compress(bytes(20 << 18)), 1 << 16)
        return len([piece async for piece in decoded(packed, ["gzip"], apart)]), len(asked)

    pieces, asked = asyncio.run(inflate())
    assert pieces - 1 == asked >= 19


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_request_is_scored_as_the_plain_one(send, coding):
    plain = send("POST", "/score", json=ROWS).json()["scores"]
    answer = send("POST", "/score", content=CODINGS[coding](json.dumps(ROWS).encode()), headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.json().get("scores")) == (200, plain)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, deflate", "none", "\xe9"])
@pytest.mark.parametrize("path", ["/score", "/feedback", "/v2/models/ranker/infer"])
def test_another_coding_is_415_and_says_what_is_accepted(send, path, coding):
    answer = send("POST", path, content=b"x", headers={"Content-Encoding": coding.encode("latin-1")})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, ACCEPTED)
    assert f"expected one of {ACCEPTED}, or none" in answer.text


def test_a_body_that_is_not_what_its_header_says_is_refused_by_the_coding(send):
    for content, said in ((b"{}", "is not gzip, which its Content-Encoding says"), (b"", "ends inside its gzip data")):
        answer = send("POST", "/score", content=content, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, said in answer.text) == (400, True)
