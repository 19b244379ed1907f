"""Traces: a request's trace is in its impressions, and where OTLP is configured its span reaches the collector."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from riverdelta.lab.server import serving
from riverdelta.serving.oip.messages import MESSAGES, SERVICE
from riverdelta.serving.oip.tensors import Tensor, from_bytes, to_bytes

ROOT = Path(__file__).parents[2]
COLUMNS = {
    "user_id": np.array([1, 2]),
    "item_id": np.array([3, 4]),
    "hour": np.array([5, 6], np.float32),
    "x": np.array([0.5, 0.6], np.float32),
}
RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user_id, int64[N] item_id, float[N] x) => (float[N] logit) { logit = Identity(x) }"""
TRACED = """
import bentoml
from riverdelta import Calibration, online

@bentoml.service(workers=1, tracing={{
    "exporter_type": "otlp", "sample_rate": 1.0,
    "otlp": {{"protocol": "http", "endpoint": "http://127.0.0.1:{port}/v1/traces"}},
}})
@online(base="ranker.onnx", logit="logit", columns={{"hour": "float32"}}, corrections=[Calibration()])
class Ranker: ...
"""


def parent(trace):
    return f"00-{trace}-b7ad6b7169203331-01"


def taken(server):
    """Those of the columns that a service takes."""
    return {name: COLUMNS[name] for name in server.status()["taking"]}


def over_http(server, trace):
    """Score over HTTP within a trace and return the impression id."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    columns = {name: column.tolist() for name, column in taken(server).items()}
    connection.request("POST", "/score", json.dumps({"columns": columns}), {"traceparent": parent(trace)})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["impressions"]


def over_grpc(server, trace):
    """The same over gRPC."""
    tensors = [Tensor(n, "INT64" if c.dtype == np.int64 else "FP32", c) for n, c in taken(server).items()]
    entry = MESSAGES["InferInputTensor"]
    message = MESSAGES["ModelInferRequest"](
        model_name="ranker",
        inputs=[entry(name=t.name, datatype=t.datatype, shape=t.data.shape) for t in tensors],
        raw_input_contents=[to_bytes(t) for t in tensors],
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=MESSAGES["ModelInferRequest"].SerializeToString,
            response_deserializer=MESSAGES["ModelInferResponse"].FromString,
        )
        answer = call(message, timeout=10, metadata=(("traceparent", parent(trace)),))
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        if output.name == "impressions":
            return from_bytes(output.name, output.datatype, list(output.shape), raw).data[0].decode()
    raise AssertionError(f"no impressions among {[o.name for o in answer.outputs]}")


def test_the_trace_that_a_client_names_is_found_with_the_impression(server):
    home = server.log.parent / "state"
    for place, send in enumerate((over_http, over_grpc)):
        trace = f"{place + 1:032x}"
        name = send(server, trace).partition(".")[0]
        command = [
            sys.executable,
            "-m",
            "riverdelta",
            "impression",
            f"{name}.1",
            "--service",
            "service.service:Ranker",
            "--json",
        ]
        environment = os.environ | {"RIVERDELTA_HOME": str(home)}
        deadline = time.monotonic() + 30
        while (done := subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)).returncode:
            assert time.monotonic() < deadline, done.stderr  # it is durable a moment after its answer
        found = json.loads(done.stdout)
        assert (found["trace"], found["columns"]["user_id"]) == (trace, 2)


class Collector:
    """An OpenTelemetry collector that keeps what it is sent."""

    def __init__(self):
        collector, self.spans = self, []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for scope in (s for r in request.resource_spans for s in r.scope_spans):
                    collector.spans += [(scope.scope.name, span) for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def carrying(self, impression):
        """The spans that carry this impression."""
        return [
            span
            for _, span in self.spans
            if any(a.key == "riverdelta.impressions" and a.value.string_value == impression for a in span.attributes)
        ]


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.close()


def test_spans_of_both_transports_reach_an_otlp_collector_with_the_impression_and_the_clients_trace(collector, tmp_path):
    onnx.save(onnx.parser.parse_model(RANKER), tmp_path / "ranker.onnx")
    (tmp_path / "traced.py").write_text(TRACED.format(port=collector.port))
    sent = {}
    with serving(tmp_path, "traced:Ranker", tmp_path / "state") as server:
        for place, send in enumerate((over_http, over_grpc)):
            trace = f"{place + 1:032x}"
            sent[trace] = send(server, trace).partition(".")[0]
    # The worker has sent what it had by its end.
    for trace, impression in sent.items():
        (span,) = collector.carrying(impression)
        assert span.trace_id.hex() == trace
        assert span.kind == span.SPAN_KIND_SERVER
