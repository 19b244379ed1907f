"""The loop on a running service: what is fed back is learned, over every transport, and nothing is lost."""

import json
import time
from contextlib import closing
from http.client import HTTPConnection

import numpy as np
import pytest

from riverdelta.lab.client import Http


def rows(n=4, user=1):
    return {
        "user_id": np.full(n, user),
        "item_id": np.arange(n),
        "hour": np.linspace(0, 23, n, dtype=np.float32),
    }


def get(server, path):
    with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def wait_for(server, position, seconds=20.0):
    """Until every worker that answers has the position; the two take turns at random."""
    deadline, seen = time.monotonic() + seconds, 0
    while seen < 6:
        assert time.monotonic() < deadline, f"position {position} was not learned within {seconds} s"
        seen = seen + 1 if server.status()["position"] >= position else 0
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["http", "grpc_client"])
def test_feedback_moves_the_scores_of_its_user_and_the_state(server, request, kind):
    client = request.getfixturevalue(kind)
    columns = rows(user=41 if kind == "http" else 42)
    before, impressions, state = client.score(columns)
    position = 0
    for _ in range(5):
        _, impressions, _ = client.score(columns)
        outcomes, position = client.feedback([f"{impressions}.{i}" for i in range(4)], np.ones(4, np.float32))
        assert outcomes == ["accepted"] * 4
    wait_for(server, position)
    after, _, later = client.score(columns)
    assert (after > before).all()
    assert int(later.split("+")[1]) > int(state.split("+")[1])


def test_an_impression_of_one_worker_takes_feedback_on_any(server):
    for _ in range(6):  # the kernel deals connections out between the two workers
        with closing(Http(server.port)) as scored, closing(Http(server.port)) as fed:
            _, impressions, _ = scored.score(rows(1, user=50))
            assert fed.feedback([f"{impressions}.0"], np.ones(1, np.float32))[0] == ["accepted"]


def test_each_item_gets_its_own_outcome_in_one_answer(http):
    _, impressions, _ = http.score(rows(2, user=60))
    forged = impressions[:-1] + ("A" if impressions[-1] != "A" else "Q")
    ids = [f"{impressions}.0", f"{impressions}.0", f"{impressions}.1", f"{impressions}.9", f"{forged}.0", "nonsense"]
    outcomes, _ = http.feedback(ids, np.array([1, 1, 0, 1, 1, 1], np.float32))
    assert outcomes == ["accepted", "duplicate", "accepted", "out_of_range", "bad_id", "bad_id"]
    again, _ = http.feedback([f"{impressions}.0", f"{impressions}.1"], np.array([1, 1], np.float32))
    assert again == ["duplicate", "conflict"]


def test_the_status_tells_what_serves_and_what_learns(server, http):
    status = http.status()
    assert status["provider"] == "CPUExecutionProvider"
    assert status["taking"] == {"user_id": "int64[N]", "item_id": "int64[N]", "hour": "float32[N]"}
    assert status["sidecar"]["alive"]
    assert status["journal"]["error"] is None
    assert status["learning"]["prequential"]["all"]["served"]["examples"] == status["learning"]["examples"]


def test_metrics_of_both_workers_are_one_page(server):
    for _ in range(8):
        with closing(Http(server.port)) as client:
            client.score(rows(3, user=70))
    status, page = get(server, "/metrics")
    assert status == 200
    samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("riverdelta_"))
    model = f'model="{json.loads(get(server, "/status")[1])["name"]}"'
    assert float(samples[f'riverdelta_execution_provider{{{model},provider="CPUExecutionProvider"}}']) == 2
    assert float(samples[f'riverdelta_rows_scored_total{{{model},transport="rest"}}']) >= 24
    assert float(samples[f"riverdelta_sidecar_up{{{model}}}"]) == 1
    assert float(samples[f'riverdelta_request_seconds_count{{{model},stage="total",transport="rest"}}']) >= 8


def test_bentoml_itself_says_that_the_service_is_ready(server):
    assert get(server, "/readyz")[0] == 200
