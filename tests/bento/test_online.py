"""@online: what it refuses at import, and what it leaves of the class that it decorates."""

import http.client
import json
import sys
import time
from contextlib import closing, suppress

import grpc
import numpy as np
import onnx
import psutil
import pytest

from riverdelta import Calibration, Entity, Linear, online
from riverdelta.core.errors import ConfigurationError, ModelError
from riverdelta.lab.client import Http
from riverdelta.lab.server import serving
from riverdelta.learning.definition import ATTRIBUTE
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
    "a tap that is not there": ({"taps": {"vec": "halve"}}, ConfigurationError, "did you mean half"),
    "a column of no type": ({"columns": {"hour": "float"}}, ConfigurationError, "'hour' is declared as 'float'"),
    "a column of the base again": ({"columns": {"x": "float32"}}, ConfigurationError, "'x'"),
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
from riverdelta import Calibration, Entity, online

HERE = Path(__file__).parent

@bentoml.service(workers=1)
@online("ranker.onnx", logit="logit", columns={"shop": "float32"}, corrections=[Calibration(), Entity("user", on=["shop"])])
class Shop:
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
    learner = next(p for p in below if p.cmdline()[1:4] == ["-m", "riverdelta", "sidecar"])
    return learner.parent(), learner


def test_the_class_keeps_its_own_and_outlives_the_loss_of_its_sidecar(base, tmp_path):
    (tmp_path / "shop.py").write_text(SERVICE)
    over_ipv6 = {"RIVERDELTA_GRPC_HOST": "::1", "RIVERDELTA_HOME": "state"}
    with serving(tmp_path, "shop:Shop", tmp_path / "state", over_ipv6) as server:
        with grpc.insecure_channel(f"[::1]:{server.grpc_port}") as channel:
            channel.unary_unary(f"/{INFERENCE}/ServerMetadata")(b"", timeout=10)
        # The supervisor, the workers and the learner mean the same folder.
        assert {"serve.lock", "sidecar.lock", "journal", "releases"} <= {
            p.name for p in (tmp_path / "state" / "shop").iterdir()
        }
        assert call(server, "POST", "/greet", json.dumps({"who": "ann"})) == (200, "hello there, ann")
        (tmp_path / "closed").touch()
        assert call(server, "GET", "/readyz")[0] == 503
        (tmp_path / "closed").unlink()
        assert call(server, "GET", "/readyz")[0] == 200
        position = teach(server)
        wait(lambda: server.status()["position"] >= position)

        shell, learner = learner_of(server)
        shell.kill()
        wait(lambda: not learner.is_running())
        position = teach(server)
        wait(lambda: learner_of(server)[1].pid != learner.pid and server.status()["position"] >= position)
        everyone = psutil.Process(server.process.pid).children(recursive=True)
    assert not [p for p in everyone if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert "shop" not in sys.modules
