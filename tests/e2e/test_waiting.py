"""Feedback that reaches one worker of a service while another has not stored the rows: late, put off, never lost."""

import contextlib
import http.client
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from riverdelta.lab.client import Http
from riverdelta.lab.server import serving

ROOT = Path(__file__).parents[2]
COLUMNS = {"user_id": np.array([7]), "item_id": np.array([3]), "hour": np.zeros(1, np.float32)}


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A service whose workers store what they scored a second later."""
    environment = {"RIVERDELTA_FLUSH_SECONDS": "1"}
    with serving(ROOT, "service.service:Ranker", tmp_path_factory.mktemp("slow") / "state", environment) as running:
        yield running


def score(server):
    """Return a row's id and the worker that scored it."""
    with closing(Http(server.port)) as client:
        _, impressions, _ = client.score(COLUMNS)
        mine = client._connection.sock.getsockname()[1]
        for process in psutil.Process(server.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(c.raddr and c.raddr.port == mine for c in process.net_connections("tcp")):
                    return f"{impressions}.0", process
    raise AssertionError("no process has the connection")


def feed(server, name):
    """Send a label over a connection of its own; return the answer's status, headers and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        body = json.dumps({"items": [{"id": name, "label": 1}]})
        connection.request("POST", "/feedback", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())


def test_not_one_of_several_hundred_labels_is_lost_between_two_workers(slow):
    def exchange(_):
        with closing(Http(slow.port)) as scorer, closing(Http(slow.port)) as taker:
            _, impressions, _ = scorer.score(COLUMNS)
            return taker.feedback([f"{impressions}.0"], np.ones(1, np.float32))[0]

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(exchange, range(300))) == [["accepted"]] * 300


def test_while_the_worker_that_scored_lives_and_stores_nothing_the_answer_is_to_come_again(slow):
    name, worker = score(slow)
    worker.suspend()
    try:
        status, headers, body = feed(slow, name)
        assert (status, headers["Retry-After"], body["error"]["type"]) == (503, "1", "Unavailable")
    finally:
        worker.resume()
    assert feed(slow, name)[2]["outcomes"] == ["accepted"]


def test_a_worker_that_is_stopped_does_not_wait_for_what_another_owes(slow):
    name, worker = score(slow)
    worker.suspend()
    try:
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(feed, slow, name)
            workers = [p for p in psutil.Process(worker.ppid()).children() if p != worker and "Sidecar" not in str(p.cmdline())]
            (taker,) = (p for p in workers if "worker.service" in str(p.cmdline()))
            while not any(c.raddr for c in taker.net_connections("tcp")):
                time.sleep(0.01)
            time.sleep(0.5)  # by now the call waits; it would for 4 s
            taker.send_signal(signal.SIGTERM)
            status, _, body = answer.result(20)
        assert status == 503
        assert "before this one stops" in body["error"]["message"]
    finally:
        worker.resume()
