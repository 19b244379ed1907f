"""Rows without a score are answered alike over REST, the Open Inference Protocol on REST, and gRPC."""

import asyncio

import grpc
import httpx
import jsonschema_rs
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from not_a_number import learn, rows, scorer
from riverdelta.bento import oip_rest, rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.openapi import document
from riverdelta.bento.runtime import Runtime
from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

KINDS = {"user": ("INT64", np.int64), "x": ("FP32", np.float32), "shop": ("FP32", np.float32), "town": ("FP32", np.float32)}
TRANSPORTS = ("rest", "oip_rest", "oip_rest_bytes", "grpc")


class Served:
    """A worker whose live tables, and whose base, have no number for some rows."""

    def __init__(self, folder, not_finite):
        self.registry, self.runtime = CollectorRegistry(), Runtime(scorer(folder))
        self.settings = Settings.load(home=folder / "home", not_finite=not_finite, follow_seconds=3600.0)
        self.runtime.start(DataPlane(self.runtime.definition, self.settings, registry=self.registry))
        learn(self.runtime.plane.session)

    def ask(self, transport, columns):
        """Return the scores, None where there is none, or the status and the message of the refusal."""
        return asyncio.run(self._grpc(columns) if transport == "grpc" else self._http(transport, columns))

    async def _http(self, transport, columns):
        app = Guard(
            Starlette(routes=[*rest.routes(self.runtime), *oip_rest.routes(self.runtime)]),
            Policy(self.runtime).open(self.settings),
        )
        binary = {"parameters": {"binary_data_output": True}} if transport == "oip_rest_bytes" else {}
        inputs = [{"name": n, "datatype": KINDS[n][0], "shape": [len(c)], "data": c} for n, c in columns.items()]
        path, body = (
            ("/score", {"columns": columns})
            if transport == "rest"
            else ("/v2/models/ranker/infer", {"inputs": inputs, "outputs": [{"name": "score"}], **binary})
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            answer = await client.post(path, json=body)
        if answer.status_code != 200:
            error = answer.json()["error"]
            return answer.status_code, error["message"] if transport == "rest" else error
        if transport == "rest":
            described = document(self.runtime.definition, self.settings)["components"]["schemas"]["ScoreResponse"]
            assert jsonschema_rs.is_valid(described, answer.json())
            return answer.json()["scores"]
        if binary:
            return _or_none(answer.content[int(answer.headers["inference-header-content-length"]) :])
        return answer.json()["outputs"][0]["data"]

    async def _grpc(self, columns):
        server = GrpcServer(self.runtime, "127.0.0.1", 0, 100_000)
        await server.start()
        tensor = MESSAGES["InferInputTensor"]
        request = MESSAGES["ModelInferRequest"](
            model_name="ranker",
            inputs=[tensor(name=n, datatype=KINDS[n][0], shape=[len(c)]) for n, c in columns.items()],
            raw_input_contents=[np.array(c, KINDS[n][1]).tobytes() for n, c in columns.items()],
        )
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                data = await channel.unary_unary(f"/{SERVICE}/ModelInfer")(request.SerializeToString())
            return _or_none(MESSAGES["ModelInferResponse"].FromString(data).raw_output_contents[0])
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()
        finally:
            await server.stop()


def _or_none(data):
    return [None if np.isnan(score) else score for score in np.frombuffer(data, np.float32).tolist()]


@pytest.fixture
def served(tmp_path, request):
    made = Served(tmp_path, request.param)
    yield made
    made.runtime.stop()


@pytest.mark.parametrize("served", ["null"], indirect=True)
def test_null_leaves_out_the_score_of_that_row_alone(served):
    found = [served.ask(transport, rows(0, 1, 2)) for transport in TRANSPORTS]
    assert [[score is None for score in scores] for scores in found] == [[False, True, True]] * 4
    assert [scores[0] for scores in found] == pytest.approx([found[0][0]] * 4)


@pytest.mark.parametrize("served", ["error", "champion"], indirect=True)
def test_an_error_is_the_service_s_and_names_the_row_and_the_setting(served):
    for transport in TRANSPORTS:
        status, message = served.ask(transport, rows(0, 1))
        assert status == ("INTERNAL" if transport == "grpc" else 500)
        assert message.startswith("row 1 has no score: the base's output is nan; check")
        assert message.endswith("set RIVERDELTA_NOT_FINITE=null to get null for such rows")
    described = document(served.runtime.definition, served.settings)["paths"]
    assert all("500" in described[path]["post"]["responses"] for path in ("/score", "/v2/models/{name}/infer"))
    value = served.registry.get_sample_value
    assert value("riverdelta_requests_total", {**WHO, "transport": "grpc", "endpoint": "score", "outcome": "internal"}) == 1
    assert value("riverdelta_rows_not_finite_total", {**WHO, "scorer": "base"}) == 4


@pytest.mark.parametrize("served", ["champion"], indirect=True)
def test_the_champion_s_score_comes_over_every_transport(served):
    for transport in TRANSPORTS:
        assert served.ask(transport, rows(0, 2))[1] == pytest.approx(1 / (1 + np.exp(-0.5)))
    value = served.registry.get_sample_value
    assert [value("riverdelta_rows_not_finite_total", {**WHO, "scorer": s}) for s in ("base", "served")] == [0, 4]


WHO = {"model": "ranker"}
