"""New tables ten times a second under load, of rows, classes and lists: no request fails, and an answer is of one model."""

import itertools
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from user import User, visits

import small_scorers as small
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.graph.merge import GATE_WEIGHT
from riverdelta.lab.client import Grpc, Http
from riverdelta.lab.server import serving
from riverdelta.learning.learner import new_learner
from riverdelta.learning.service import load
from riverdelta.storage.home import Home

ROOT, TESTS = Path(__file__).parents[2], Path(__file__).parents[1]
#: Releases are made all the while, so that the session meets both, and all are kept.
SETTINGS = {"swap_min_seconds": 0.1, "release_seconds": 1.5, "keep_releases": 100}
#: The load goes on until so many tables were published and releases made, and each user met so many states.
SWAPS, RELEASES, MET, MOST_SECONDS = 30, 2, 12, 120.0


@dataclass
class Load:
    """What 2 users over HTTP and 2 over gRPC met, how the service counted it, and its home."""

    users: list
    swaps: int
    status: dict
    home: Home


def of_task(task, folder):
    """Return how the small scorer of a task is served: folder, target, definition, settings, environment and traffic."""

    def traffic(rng, rows):
        columns = small.request(rng, rows, np.arange(200))
        return columns, small.labels(rng, task, columns)

    settings = {"window_seconds": 0.2} if small.TASKS[task][0].lists else {}
    environment = {"SCORER_TASK": task, "SCORER_FOLDER": str(folder)}
    return TESTS, "scorer_service:Ranker", small.definition(folder, task), settings, environment, traffic


@pytest.fixture(scope="module", params=["reference", "multiclass", "ranking"])
def under_load(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("swapped")
    if request.param in small.TASKS:
        where, target, definition, settings, environment, traffic = of_task(request.param, folder)
    else:
        definition = load(f"{ROOT}/service/service.py:Ranker")
        where, target, settings, environment, traffic = ROOT, "service.service:Ranker", {}, {}, visits
    settings |= SETTINGS
    environment |= {f"RIVERDELTA_{name.upper()}": str(value) for name, value in settings.items()}
    with serving(where, target, folder / "state", environment) as server:
        doors = partial(Http, server.port, definition.loss.lists), partial(Grpc, server.grpc_port, "ranker")
        users = [User(doors[number % 2](), number, 8.0, traffic=traffic) for number in range(4)]
        before, end = server.status()["learning"]["swap"], time.monotonic() + MOST_SECONDS
        for user in users:
            user.start()
        while time.monotonic() < end:
            time.sleep(0.5)
            status = server.status()["learning"]
            if status["swap"] - before >= SWAPS and status["releases"] > RELEASES and min(len(u.states) for u in users) >= MET:
                break
        for user in users:
            user.stop()
        status = server.status()["learning"]
    home = Home(definition, Settings.load(home=folder / "state", **settings))
    return Load(users, status["swap"] - before, status, home)


def test_no_request_fails(under_load):
    users = under_load.users
    assert [failure for user in users for failure in user.failures] == []
    assert all(user.requests > 40 for user in users)
    assert sum(user.accepted for user in users) == sum(user.requests for user in users) // 2 * 8


def test_swaps_are_really_taken_by_every_user_s_worker(under_load):
    assert under_load.swaps >= SWAPS
    assert under_load.status["releases"] > RELEASES
    for user in under_load.users:
        assert len({swap for _, swap in user.states}) >= MET


def test_no_worker_goes_back_to_an_older_state(under_load):
    for user in under_load.users:
        swaps = [swap for _, swap in user.states]
        assert all(a < b for a, b in itertools.pairwise(swaps))
        releases = [release for release, _ in user.states]
        assert all(a <= b for a, b in itertools.pairwise(releases))


def positions(records):
    """Return up to which journal position the tables of each release and swap were learned, by what was scored."""
    found = {}
    for record in records:
        if isinstance(record, Impressions):
            for release, swap, position in zip(
                record.release.tolist(), record.swap.tolist(), record.position.tolist(), strict=True
            ):
                assert found.setdefault((release, swap), position) == position
    return found


def test_every_answer_is_what_plain_onnxruntime_makes_of_the_merged_model_of_its_release_and_the_tables_of_its_swap(under_load):
    home, answers = under_load.home, {}
    for answer in (answer for user in under_load.users for answer in user.answers):
        answers.setdefault(answer.state, []).append(answer)
    with closing(home.reader()) as journal:
        records = journal.read(0, 1_000_000)
    plain = {release.number: onnxruntime.InferenceSession(release.path) for release in home.releases().all()}
    learner, earlier, told_apart = new_learner(home.definition, home.settings), None, 0
    for state, position in sorted(positions(record for _, record in records).items(), key=itemgetter(1)):
        while learner.position < position:
            learner.push(*records[learner.position])
        tables = {name: table.values.copy() for name, table in learner.stack.tables().items()}
        tables[GATE_WEIGHT] = np.full((1, 1), learner.gate.weight, np.float32)
        for answer in answers.pop(state, ()):
            (scores,) = plain[state[0]].run(["score"], {**answer.columns, **tables})
            np.testing.assert_allclose(answer.scores.reshape(scores.shape), scores, rtol=1e-5)
            if earlier is not None:
                (others,) = plain[state[0]].run(["score"], {**answer.columns, **earlier})
                told_apart += not np.allclose(others, scores, rtol=1e-5)
        earlier = tables
    assert not answers
    # What the tables before would have made is something else.
    assert told_apart > 50


def test_what_was_accepted_is_learned_once(under_load):
    assert under_load.status["unmatched"] == 0
    assert under_load.status["examples"] <= sum(user.accepted for user in under_load.users)
