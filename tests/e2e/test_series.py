"""Ten thousand names that somebody made up, over every transport, add no series to /metrics and stand nowhere in it."""

import http.client
import json
import random
import time
from contextlib import closing

import grpc
import pytest

from riverdelta.serving.oip.messages import MESSAGES, SERVICE

#: Every made-up name begins so.
MARK = "zq7"
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE")
JSON = {"Content-Type": "application/json"}


class Hostile:
    """Sends made-up names of one kind after another; `names` counts them."""

    def __init__(self, server, seed):
        self.port, self.rng, self.names = server.port, random.Random(seed), 0
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")

    def close(self):
        self.connection.close()
        self.channel.close()

    def name(self):
        self.names += 1
        return f"{MARK}{self.rng.getrandbits(64):x}"

    def call(self, method, path, body=None, expected=range(200, 500)):
        self.connection.request(method, path, None if body is None else json.dumps(body), JSON)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status in expected, (method, path, answer.status, content[:200])

    def paths(self, count):
        for i in range(count):
            before = ("", "/score", "/feedback", "/status", "/admin", "/v2", "/static_content", "/metrics", "/livez")[i % 9]
            self.call("GET", f"{before}/{self.name()}{'?x=1' if i % 2 else ''}", expected=range(300, 500))

    def methods(self, count):
        for i in range(count):
            self.call(METHODS[i % len(METHODS)], f"/{self.name()}", expected=range(400, 500))
        for _ in range(count // 20):  # no method at all: refused by the HTTP parser, with its connection
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
                connection.request(self.name().upper(), "/score")
                assert connection.getresponse().status == 400

    def models(self, count):
        for i in range(count):
            path = (
                f"/v2/models/{self.name()}" + ("", "/ready", "/infer", f"/versions/{self.name()}", "/versions/1/infer")[i % 5]
            )
            body = {"inputs": []} if path.endswith("infer") else None
            self.call("GET" if body is None else "POST", path, body, expected=range(400, 500))

    def columns(self, count):
        for _ in range(count):
            self.call("POST", "/score", {"columns": {self.name(): [1]}}, expected=(400,))
            tensor = {"name": self.name(), "datatype": "FP32", "shape": [1], "data": [1]}
            self.call("POST", "/v2/models/ranker/infer", {"inputs": [tensor]}, expected=(400,))

    def ids(self, count):
        for at in range(0, count, 250):
            items = [{"id": f"{self.name()}.{i}", "label": 1} for i in range(min(250, count - at))]
            self.call("POST", "/feedback", {"items": items}, expected=(422,))
        for _ in range(count // 50):
            columns = {"user_id": [self.name()], "item_id": [self.name()], "hour": [1.0]}
            self.call("POST", "/score", {"columns": columns}, expected=(200,))

    def grpc(self, count):
        request = MESSAGES["ModelInferRequest"]
        infer = self.channel.unary_unary(
            f"/{SERVICE}/ModelInfer", request_serializer=request.SerializeToString, response_deserializer=bytes
        )
        for i in range(count):
            kind, ask = (grpc.StatusCode.NOT_FOUND, request(model_name=self.name()))
            if i % 2:
                tensor = MESSAGES["InferInputTensor"](name=self.name(), datatype="FP32", shape=[1])
                kind, ask = grpc.StatusCode.INVALID_ARGUMENT, request(model_name="ranker", inputs=[tensor])
            with pytest.raises(grpc.RpcError) as refused:
                infer(ask, timeout=20)
            assert refused.value.code() is kind
        for i in range(count // 5):
            method = f"/{SERVICE}/{self.name()}" if i % 2 else f"/{self.name()}/ModelInfer"
            with pytest.raises(grpc.RpcError) as refused:
                self.channel.unary_unary(method)(b"", timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def everything(self, share):
        """Send so large a share of ten thousand names and more."""
        self.paths(int(2_000 * share))
        self.methods(int(500 * share))
        self.models(int(800 * share))
        self.columns(int(300 * share))
        self.ids(int(5_000 * share))
        self.grpc(int(700 * share))


@pytest.fixture
def hostile(server):
    sender = Hostile(server, 0)
    yield sender
    sender.close()


def page(server):
    """The names of all series."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}, text


def test_made_up_names_add_no_series(server, http, hostile):
    scores, impressions, _ = http.score({"user_id": [1], "item_id": [1], "hour": [1.0]})
    http.feedback([f"{impressions}.0"], scores > 0)
    hostile.everything(0.04)  # every answer there is, once
    time.sleep(2.5)  # and what the learner says of it
    before, _ = page(server)
    hostile.names = 0
    hostile.everything(1.0)
    assert hostile.names >= 10_000
    after, text = page(server)
    assert MARK not in text
    assert {name for name in after if name.startswith("riverdelta_")} == {n for n in before if n.startswith("riverdelta_")}
    # BentoML's own are bounded too: it would make 20 series of every path.
    assert after == before
    assert any(name.startswith("bentoml_") and 'endpoint="other"' in name for name in after)
