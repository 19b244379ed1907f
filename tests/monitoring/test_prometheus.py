"""A real Prometheus beside the real service: whatever a panel or a rule asks for is there, and nothing is wrong."""

import re
import shutil
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from panels import dashboards, expressions
from real import Prometheus, needs_prometheus

from riverdelta.lab.client import Grpc, Http
from riverdelta.lab.server import serving
from riverdelta.lab.simulator import Simulation

ROOT = Path(__file__).parents[2]
SERVICE = """
import bentoml
from riverdelta import Adapt, Calibration, Entity, Linear, online

@bentoml.service(workers=2, traffic={"timeout": 5}, logging={"access": {"enabled": False}})
@online(
    base="ranker.onnx", logit="logit", taps={"item_vec": "embedding_3"}, columns={"hour": "float32"},
    corrections=[Calibration(), Linear("user_id", "item_id", "hour"), Entity("user_id", on=["item_vec"])],
    on_drift=Adapt(), slices={"user_id": [0, 1]},
)
class Ranker: ...
"""
SETTINGS = {
    "RIVERDELTA_DRIFT_REFERENCE_EXAMPLES": "1024",
    "RIVERDELTA_RELEASE_EXAMPLES": "1500",
    "RIVERDELTA_CHECKPOINT_SECONDS": "5",
}
#: What Grafana fills in; here a minute passes in two seconds.
SHOWN = {"__rate_interval": "10s", "__range": "30s", "__interval": "2s"}
#: Until the reference is full and a window of it has passed, and a release has its rival; and the most that may take.
ROWS, PATIENCE_SECONDS = 6_000, 120.0


class Clients(threading.Thread):
    """The second half of the log that the base was made of, over HTTP and gRPC in turn, with the labels of all rows."""

    def __init__(self, server):
        super().__init__(daemon=True)
        _, second = Simulation(rows=40_000, users=300, items=500, seed=7).generate().stream.halves()
        # In no order, so that the stream stays as it is: the log's users and tastes move.
        order = np.random.default_rng(0).permutation(len(second))
        self._columns = {name: second.columns[name][order] for name in ("user_id", "item_id", "hour")}
        self._label = second.label[order]
        self._clients = [Http(server.port), Grpc(server.grpc_port, "ranker")]
        self.stopping, self.rows, self.error = threading.Event(), 0, None

    def run(self):
        turn = 0
        try:
            while not self.stopping.wait(0.02):
                cut = slice(self.rows % len(self._label), self.rows % len(self._label) + 8)
                client = self._clients[turn := 1 - turn]
                _, impressions, _ = client.score({name: column[cut] for name, column in self._columns.items()})
                client.feedback([f"{impressions}.{i}" for i in range(8)], self._label[cut])
                self.rows += 8
        except BaseException as error:
            self.error = error
        for client in self._clients:
            client.close()

    def close(self):
        self.stopping.set()
        self.join()
        assert self.error is None, self.error


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A service that is well, with its Prometheus, after it has learned and been read for a while."""
    folder = tmp_path_factory.mktemp("watched")
    for name in ("ranker.onnx", "ranker.onnx.data"):
        shutil.copy(ROOT / "service" / name, folder)
    (folder / "watched.py").write_text(SERVICE)
    with ExitStack() as stack:
        server = stack.enter_context(serving(folder, "watched:Ranker", folder / "state", SETTINGS))
        prometheus = Prometheus(folder / "prometheus", [f"127.0.0.1:{server.port}"])
        stack.callback(prometheus.close)
        clients = Clients(server)
        clients.start()
        stack.callback(clients.close)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while clients.rows < ROWS or lacking(prometheus):
            assert clients.error is None, clients.error
            assert time.monotonic() < deadline, (clients.rows, lacking(prometheus))
            time.sleep(1.0)
        yield prometheus, server


def asked():
    return [each for board in dashboards().values() for each in expressions(board, **SHOWN)]


def known(samples):
    """Those that are numbers: a panel that shows NaN shows nothing."""
    return [value for _, value in samples if value == value]


def lacking(prometheus):
    """What panels ask of a healthy service and get nothing for."""
    return [f"{a.board}: {a.title}: {a.expression}" for a in asked() if a.needed and not known(prometheus.ask(a.expression))]


@needs_prometheus
def test_every_panel_has_data_and_every_annotation_can_be_asked(watched):
    prometheus, _ = watched
    assert lacking(prometheus) == []
    for each in asked():
        prometheus.ask(each.expression)


@needs_prometheus
def test_every_metric_that_is_asked_for_is_exported_by_the_running_service(watched):
    prometheus, _ = watched
    names = prometheus.names()
    texts = [each.expression for each in asked()] + [rule["query"] for rule in prometheus.rules()]
    for text in texts:
        assert set(re.findall(r"\briverdelta[a-z0-9_:]+", text)) <= names, text


@needs_prometheus
def test_every_rule_is_evaluated_without_an_error_and_those_that_record_have_data(watched):
    prometheus, _ = watched
    rules = prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    for rule in rules:
        if rule["type"] == "recording":
            assert known(prometheus.ask(rule["name"])), rule["name"]


@needs_prometheus
def test_no_alert_fires_for_a_service_that_is_well(watched):
    prometheus, _ = watched
    assert {name for name, _, state in prometheus.alerts() if state == "firing"} == set()


@needs_prometheus
def test_a_learner_that_hangs_is_told_by_its_alert_alone_and_scores_go_on(watched):
    prometheus, server = watched
    learner = psutil.Process(server.status()["learning"]["pid"])
    learner.suspend()
    try:
        deadline = time.monotonic() + 60
        while not (fired := {name for name, _, state in prometheus.alerts() if state == "firing"}):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert fired == {"RiverdeltaLearnerDown"}
        client = Http(server.port)
        assert len(client.score({"user_id": [1], "item_id": [1], "hour": [1.0]})[0]) == 1
        client.close()
    finally:
        learner.resume()
    deadline = time.monotonic() + 60
    while any(state == "firing" for name, _, state in prometheus.alerts() if name == "RiverdeltaLearnerDown"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
