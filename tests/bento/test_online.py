"""@online: what it refuses at import, and what it leaves of the class that it decorates."""

import http.client
import json
import sys
import time
from contextlib import closing, suppress
from types import ModuleType

import grpc
import numpy as np
import onnx
import psutil
import pytest

from riverdelta import Calibration, Entity, Linear, online
from riverdelta.core.errors import ConfigurationError, ModelError
from riverdelta.lab.client import Http
from riverdelta.lab.server import free_port, serving
from riverdelta.learning.definition import ATTRIBUTE
from riverdelta.serving.oip.messages import MESSAGES
from riverdelta.serving.oip.messages import SERVICE as INFERENCE

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""


@pytest.fixture
def base(tmp_path):
    onnx.save(onnx.parser.parse_model(RANKER), tmp_path / "ranker.onnx")
    return tmp_path / "ranker.onnx"


WRONG = {
    "a path that is not there": ({"base": "gone.onnx"}, ModelError, "gone.onnx"),
    "a tag that is not there": ({"base": "gone:latest"}, ConfigurationError, "neither a file .* nor a BentoML model tag"),
    "an output that is not there": ({"logit": "logits"}, ModelError, "did you mean logit"),
    "a misspelt parameter": ({"logits": "logit"}, ConfigurationError, "@online has no logits=: did you mean logit"),
    "a tap that is not there": ({"taps": {"vec": "halve"}}, ConfigurationError, "did you mean half"),
    "names of no input": ({"names": ["age", "income"]}, ConfigurationError, r'write names=\{"X": \["age", "income"\]\}'),
    "columns in a list": ({"columns": ["hour"]}, ConfigurationError, r"columns is \['hour'\]; write columns="),
    "a column of no type": ({"columns": {"hour": "float"}}, ConfigurationError, "'hour' is declared as 'float'"),
    "a column of the base as what it cannot be": ({"columns": {"x": "float32[3]"}}, ConfigurationError, "'x'"),
    "a correction's column that is not there": ({"corrections": [Linear("item")]}, ConfigurationError, "reads column 'item'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_fails_at_import_with_the_reason(base, name):
    changed, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        online(**{"base": base, "logit": "logit", "corrections": [Calibration()], **changed})(type("Ranker", (), {}))


def test_a_scorer_is_named_after_its_class_or_as_told(base):
    plain, named = (online(base, **given)(type("HomePage", (), {})) for given in ({}, {"name": "front"}))
    assert (getattr(plain, ATTRIBUTE).name, getattr(named, ATTRIBUTE).name) == ("homepage", "front")


def test_a_definition_says_how_commands_name_its_service_and_whether_inputs_are_kept(base, monkeypatch):
    shop = ModuleType("shop")
    shop.__file__, shop.__package__ = str(base.with_name("shop.py")), ""
    monkeypatch.setitem(sys.modules, "shop", shop)

    def define(module, **given):
        return getattr(online(base, **given)(type("Ranker", (), {"__module__": module})), ATTRIBUTE)

    assert define("shop").service == f"{base.parent.resolve()}/shop.py:Ranker"
    monkeypatch.chdir(base.parent)
    assert define("shop").service == "shop.py:Ranker"
    assert define("riverdelta.core.records").service == "riverdelta.core.records:Ranker"
    assert (list(define("shop").journal), list(define("shop", keep_inputs=True).journal)) == ([], ["user", "x"])


def test_the_base_may_be_a_bentoml_model(base, tmp_path, monkeypatch):
    import bentoml
    from bentoml._internal.configuration.containers import BentoMLContainer

    (tmp_path / "models").mkdir()
    BentoMLContainer.model_store_dir.set(str(tmp_path / "models"))
    try:
        with bentoml.models.create("riverdelta-base") as model:
            (tmp_path / "ranker.onnx").rename(f"{model.path}/ranker.onnx")
        cls = online("riverdelta-base:latest", corrections=[Entity("user")])(type("Ranker", (), {}))
    finally:
        BentoMLContainer.model_store_dir.reset()
    assert getattr(cls, ATTRIBUTE).base.name == "ranker.onnx"


def test_a_relative_home_lies_where_the_service_was_imported_as_for_its_workers(base, tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("RIVERDELTA_HOME", "state")
    monkeypatch.setenv("RIVERDELTA_GRPC_PORT", "0")
    monkeypatch.chdir(tmp_path / "shop")
    cls = online(base, logit="logit")(type("Ranker", (), {}))
    monkeypatch.chdir(tmp_path / "elsewhere")
    cls.riverdelta_deploy()
    assert (tmp_path / "shop" / "state" / "ranker" / "serve.lock").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


SERVICE = """
import bentoml
from pathlib import Path
from riverdelta import Calibration, Entity, Linear, online

HERE = Path(__file__).parent

@bentoml.service(workers=1)
@online("ranker.onnx", corrections=[Linear("user")], grpc_port=PORT)
class Search:
    pass

@bentoml.service(workers=1)
@online("ranker.onnx", logit="logit", columns={"shop": "float32"}, corrections=[Calibration(), Entity("user", on=["shop"])])
class Shop:
    search = bentoml.depends(Search)

    def __init__(self):
        self.greeting = "hello"

    @bentoml.on_startup
    async def begin(self):
        self.greeting += " " + "there"

    @bentoml.api
    def greet(self, who: str) -> str:
        return f"{self.greeting}, {who}"

    def __is_ready__(self):
        return not (HERE / "closed").exists()
"""


@pytest.fixture(scope="module")
def bento(tmp_path_factory):
    """(folder, server, gRPC port of the second scorer): a Bento with two scorers, served for real."""
    folder, port = tmp_path_factory.mktemp("bento"), free_port()
    onnx.save(onnx.parser.parse_model(RANKER), folder / "ranker.onnx")
    (folder / "shop.py").write_text(SERVICE.replace("PORT", str(port)))
    over_ipv6 = {"RIVERDELTA_GRPC_HOST": "::1", "RIVERDELTA_HOME": "state"}
    with serving(folder, "shop:Shop", folder / "state", over_ipv6) as server:
        yield folder, server, port


def call(server, method, path, body=None):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def wait(condition, seconds=40.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError, psutil.Error, StopIteration):
            if condition():
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing came of it within {seconds} s")


def teach(server, rows=3):
    columns = {"user": np.arange(rows), "x": np.ones(rows, np.float32), "shop": np.ones(rows, np.float32)}
    with closing(Http(server.port)) as client:
        _, impressions, _ = client.score(columns)
        return client.feedback([f"{impressions}.{i}" for i in range(rows)], np.ones(rows, np.float32))[1]


def learner_of(server):
    """(the BentoML process of the sidecar, the learner under it)."""
    below = psutil.Process(server.process.pid).children(recursive=True)
    learner = next(p for p in below if p.cmdline()[1:6] == ["-m", "riverdelta", "sidecar", "--service", "shop:Shop"])
    return learner.parent(), learner


def test_two_scorers_of_a_bento_are_served_learn_and_count_apart(bento):
    folder, server, port = bento
    position = teach(server)
    columns = {"user": np.arange(5), "x": np.ones(5, np.float32)}
    with grpc.insecure_channel(f"[::1]:{port}") as channel:

        def infer(model, **tensors):
            tensor, request = MESSAGES["InferInputTensor"], MESSAGES["ModelInferRequest"](model_name=model)
            for name, (datatype, data) in tensors.items():
                request.inputs.append(tensor(name=name, datatype=datatype, shape=[len(data)]))
                request.raw_input_contents.append(data.tobytes())
            answer = channel.unary_unary(f"/{INFERENCE}/ModelInfer")(request.SerializeToString(), timeout=10)
            return MESSAGES["ModelInferResponse"].FromString(answer)

        infer("search", user=("INT64", columns["user"]), x=("FP32", columns["x"]))
        with pytest.raises(grpc.RpcError, match="there is no model 'shop'"):
            infer("shop")
    status, text = call(server, "GET", "/metrics")
    assert status == 200
    for model, transport, rows in (("shop", "rest", 3), ("shop", "grpc", 0), ("search", "rest", 0), ("search", "grpc", 5)):
        assert f'riverdelta_rows_scored_total{{model="{model}",transport="{transport}"}} {rows}.0\n' in text
    wait(lambda: server.status()["position"] >= position and (folder / "state" / "search" / "status.json").exists())
    assert {"definition.json", "serve.lock", "sidecar.lock", "journal", "status.json"} <= {
        p.name for p in (folder / "state" / "search").iterdir()
    }


def test_the_class_keeps_its_own_and_outlives_the_loss_of_its_sidecar(bento):
    folder, server, _ = bento
    with grpc.insecure_channel(f"[::1]:{server.grpc_port}") as channel:
        channel.unary_unary(f"/{INFERENCE}/ServerMetadata")(b"", timeout=10)
    # The supervisor, the workers and the learner mean the same folder.
    assert {"serve.lock", "sidecar.lock", "journal", "releases"} <= {p.name for p in (folder / "state" / "shop").iterdir()}
    assert call(server, "POST", "/greet", json.dumps({"who": "ann"})) == (200, "hello there, ann")
    (folder / "closed").touch()
    assert call(server, "GET", "/readyz")[0] == 503
    (folder / "closed").unlink()
    assert call(server, "GET", "/readyz")[0] == 200
    position = teach(server)
    wait(lambda: server.status()["position"] >= position)

    shell, learner = learner_of(server)
    shell.kill()
    wait(lambda: not learner.is_running())
    position = teach(server)
    wait(lambda: learner_of(server)[1].pid != learner.pid and server.status()["position"] >= position)
    everyone = psutil.Process(server.process.pid).children(recursive=True)
    server.stop()
    assert not [p for p in everyone if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert "shop" not in sys.modules
