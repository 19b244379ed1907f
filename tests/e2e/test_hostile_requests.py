"""Requests that no well-meaning client sends: each is a 4xx that says why, and the service goes on."""

import gzip
import http.client
import json
import re
import shutil
import subprocess

import pytest


@pytest.fixture
def send(server):
    def call(path, body=b"", headers=None, method="POST"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer.status, content

    return call


INFER = "/v2/models/ranker/infer"
HEADER = "Inference-Header-Content-Length"


def tensor(tail=b"", size=None, **entry):
    """An inference request with one input, and `tail` behind its JSON."""
    entry = {"name": "hour", "datatype": "FP32", **entry}
    if size is not None:
        entry["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [entry]}).encode()
    return INFER, head + tail, {HEADER: str(len(head))}


BAD = {
    "no JSON": ("/score", b"{", {}, 400, "not JSON"),
    "no object": ("/score", b"[1]", {}, 400, "is a list"),
    "no columns": ("/score", b"{}", {}, 400, "has no .*columns"),
    "another key": ("/score", b'{"columns": {}, "colums": 1}', {}, 400, "colums"),
    "columns of a kind": ("/score", b'{"columns": [1]}', {}, 400, "columns is .*; expected an object"),
    "a column missing": ("/score", b'{"columns": {"user_id": [1]}}', {}, 400, "is missing"),
    "deep nesting": ("/score", b'{"columns":' + b"[" * 2000, {}, 400, "not JSON"),
    "propensity above one": (
        "/score", b'{"columns": {"user_id": [1], "item_id": [1], "hour": [1]}, "propensity": [2]}', {}, 400, "propensity",
    ),
    "no items": ("/feedback", b'{"items": []}', {}, 400, "items is .*; expected a list of at least 1, as in"),
    "an item without an id": ("/feedback", b'[{"label": 1}]', {}, 400, "expected an id, or a request_id"),
    "a label of two": ("/feedback", b'[{"id": "a.0", "label": 2}]', {}, 400, "label 2; expected 0 or 1"),
    "a label of text": ("/feedback", b'[{"id": "a.0", "label": "1"}]', {}, 400, "item 0 has the label '1'; expected 0 or 1"),
    "not shown": ("/feedback", b'[{"id": "a.0", "shown": false}]', {}, 400, "expected a label, or"),
    "a body too large": ("/score", b" " * (17 << 20), {}, 413, "at most 16777216"),
    "inputs of a kind": (INFER, b'{"inputs": 3}', {}, 400, "inputs is 3; expected a list"),
    "an input without a name": (INFER, b'{"inputs": [{"datatype": "FP32"}]}', {}, 400, "has no 'name'; expected an object"),
    "a negative shape": (*tensor(shape=[-1], data=[1]), 400, "shape"),
    "a huge shape": (*tensor(shape=[99999999, 99999999], data=[]), 413, "at most 16384 rows"),
    "an unknown type": (*tensor(datatype="FP99", shape=[1], data=[1]), 400, "FP99"),
    "data too short": (*tensor(shape=[2], data=[1]), 400, "needs 2"),
    "a header length past the body": (INFER, b"{}", {HEADER: "99"}, 400, "at most the body's 2 bytes"),
    "a header length of text": (INFER, b"{}", {HEADER: "x"}, 400, "'x'"),
    "binary data missing": (*tensor(size=4, shape=[1]), 400, "binary_data_size 4; 0 bytes are left"),
    "binary data left over": (*tensor(b"12345678", size=4, shape=[1]), 400, "4 bytes remain"),
    "a binary size of minus one": (*tensor(size=-1, shape=[1]), 400, "binary_data_size is -1"),
    "a string that ends early": (
        *tensor(b"\xff\0\0\0a", size=5, datatype="BYTES", shape=[1]), 400, "255 bytes, but only 1 are left",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_with_its_reason(send, name):
    path, body, headers, status, message = BAD[name]
    got, content = send(path, body, headers)
    assert got == status, content
    assert re.search(message, content), content


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/score", 405),
        ("OPTIONS", "/score", 405),
        ("POST", "/score/", 404),
        ("POST", "/nothing/here", 404),
        ("GET", "/v2/nothing", 404),
        ("DELETE", "/v2/models/ranker", 405),
        ("POST", f"{INFER}/", 404),
        ("GET", "/v2/models/ranker/versions/1/nothing", 404),
    ],
)
def test_another_method_and_another_path_are_errors_in_json(send, method, path, status):
    got, content = send(path, method=method)
    error = json.loads(content)["error"]
    assert (got, "does not exist" in (error if path.startswith("/v2") else error["message"])) == (status, True)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_what_curl_sends_compressed_is_scored(server):
    rows = b'{"columns": {"user_id": [1, "ann"], "item_id": [1, 2], "hour": [1, 2]}}'
    line = ["curl", "-sS", f"http://127.0.0.1:{server.port}/score", "-H", "Content-Encoding: gzip", "--data-binary", "@-"]
    for more, coding in (([], "Content-Length"), (["-H", "Transfer-Encoding: chunked"], "chunked")):
        answer = subprocess.run([*line, *more], input=gzip.compress(rows), capture_output=True, check=True).stdout
        assert len(json.loads(answer)["scores"]) == 2, (coding, answer)


def test_the_service_scores_on_after_all_of_it(send):
    body = b'{"columns": {"user_id": [1, "ann"], "item_id": [1, 2], "hour": [1, 2]}}'
    status, content = send("/score", body)
    assert status == 200, content
