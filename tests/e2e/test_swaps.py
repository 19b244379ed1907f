"""A minute of new tables ten times a second, under load: no request fails, and no score mixes two states."""

import itertools
import time
from pathlib import Path

import pytest
from user import User, one_score_a_state

from riverdelta.lab.client import Grpc, Http
from riverdelta.lab.server import serving

ROOT = Path(__file__).parents[2]
#: Releases are made all the while, so that the session meets both.
SETTINGS = {"RIVERDELTA_SWAP_MIN_SECONDS": "0.1", "RIVERDELTA_RELEASE_SECONDS": "5"}
SECONDS = 60.0


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """What 2 users over HTTP and 2 over gRPC met in a minute, and how the service counted it.

    Memory is settled after a minute alone: `tests/benchmarks/bench_swaps.py` measures it over ten.
    """
    home = tmp_path_factory.mktemp("swapped") / "state"
    with serving(ROOT, "service.service:Ranker", home, SETTINGS) as server:
        transports = [Http(server.port), Grpc(server.grpc_port, "ranker")]
        transports += [Http(server.port), Grpc(server.grpc_port, "ranker")]
        users = [User(transport, number, rate=8.0) for number, transport in enumerate(transports)]
        before = server.status()["learning"]["swap"]
        for user in users:
            user.start()
        time.sleep(SECONDS)
        for user in users:
            user.stop()
        end = server.status()["learning"]
        with_http = Http(server.port)
        rows = {"user_id": [1], "item_id": [1], "hour": [1.0]}
        assert with_http.score(rows)[0].shape == (1,)
        with_http.close()
        yield users, end["swap"] - before, end


def test_no_request_fails(minute):
    users, *_ = minute
    assert [failure for user in users for failure in user.failures] == []
    assert all(user.requests > 60 for user in users)
    assert sum(user.accepted for user in users) == sum(user.requests for user in users) // 2 * 8


def test_swaps_are_really_taken_by_every_user_s_worker(minute):
    users, published, end = minute
    assert published >= 100  # 600 where nothing else runs
    assert end["releases"] >= 3
    for user in users:
        assert len({swap for _, swap in user.states}) >= 30


def test_no_worker_goes_back_to_an_older_state(minute):
    users, *_ = minute
    for user in users:
        swaps = [swap for _, swap in user.states]
        assert all(a < b for a, b in itertools.pairwise(swaps))
        releases = [release for release, _ in user.states]
        assert all(a <= b for a, b in itertools.pairwise(releases))


def test_a_state_scores_a_row_in_one_way_wherever_it_is_asked(minute):
    users, *_ = minute
    assert one_score_a_state(users) == {}
    # Where one state was met by many and the states differ, that says something.
    assert len({score for user in users for scores in user.scores.values() for score in scores}) > 30
    assert sum(len(user.scores) for user in users) > len({state for user in users for state in user.scores})


def test_what_was_accepted_is_learned_once(minute):
    users, _, end = minute
    assert end["unmatched"] == 0
    assert end["examples"] <= sum(user.accepted for user in users)
