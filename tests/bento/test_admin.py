"""Admin over HTTP: each step is what the operator's command is, and nothing gets it done that should not."""

import asyncio
import threading
import time
from dataclasses import fields

import httpx
import jsonschema_rs
import numpy as np
import onnx
import onnxruntime
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from riverdelta.bento import admin, oip_rest, rest
from riverdelta.bento.access import Role
from riverdelta.bento.endpoints import TABLE
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.runtime import Runtime
from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.sidecar.operator import Answer, Operator

TOKENS = {role: f"{role}-token-of-the-shop" for role in Role}
GUARDED = {f"{role}_tokens": token for role, token in TOKENS.items()}
READS = ("/admin/releases", "/admin/diff?a=0&b=0", "/admin/export")
#: Records of a home that nothing was done to: the settings that learning reads.
BEGUN = 1
WRITES = ("release", "promote", "rollback", "freeze", "resume", "rotate-key")


class Shop:
    """A scorer on a home of its own, its routes behind a guard, and a learner that runs while it is asked to."""

    def __init__(self, definition, home, **given):
        self.settings, self.registry = Settings.load(home=home, **given), CollectorRegistry()
        self.runtime = Runtime(definition)
        self.runtime.start(DataPlane(definition, self.settings, registry=self.registry))
        policy = Policy(self.runtime).open(self.settings)
        routes = [*rest.routes(self.runtime), *admin.routes(self.runtime), *oip_rest.routes(self.runtime)]
        self.app = Guard(Starlette(routes=routes), policy)
        self._stop, self._thread = threading.Event(), None

    def learn(self):
        trainer = Trainer(self.runtime.definition, self.settings)
        self._thread = threading.Thread(target=trainer.run, args=(self._stop.is_set,))
        self._thread.start()
        while not self.runtime.plane.home.read_status():  # commands tell a learner that runs by it
            time.sleep(0.01)

    def send(self, method, path, base="http://127.0.0.1", **given):
        async def one():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=base) as client:
                return await client.request(method, path, **given)

        return asyncio.run(one())

    def command(self, name, **body):
        return self.send("POST", f"/admin/{name}", json=body)

    def teach(self, label, user=5):
        columns = {"user": [user] * 20, "x": [1.0] * 20, "shop": [1.0] * 20}
        scored = self.send("POST", "/score", json={"columns": columns}).json()
        items = [{"id": f"{scored['impressions']}.{i}", "label": label} for i in range(20)]
        self.send("POST", "/feedback", json=items)
        return scored["scores"][0]

    def last(self):
        return self.runtime.plane.journal.last()

    def count(self, outcome):
        labels = {"model": "ranker", "transport": "rest", "endpoint": "admin", "outcome": outcome}
        return self.registry.get_sample_value("riverdelta_requests_total", labels) or 0

    def close(self):
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.runtime.stop()


@pytest.fixture
def make(definition, tmp_path):
    made = []

    def shop(**given):
        made.append(Shop(definition, tmp_path / "home", **given))
        return made[-1]

    yield shop
    for each in made:
        each.close()


@pytest.fixture
def shop(make):
    return make()


@pytest.fixture
def learning(shop):
    shop.learn()
    return shop


def test_a_rollback_over_http_serves_the_release_and_is_answered_with_how_learning_stands(learning):
    before = learning.teach(1)
    made = learning.command("release").json()
    assert (made["obeyed"], made["release"]) == (True, 1)
    deadline = time.monotonic() + 5
    while learning.teach(1) <= before:
        assert time.monotonic() < deadline
    answer = learning.command("rollback", release=0, freeze=True)
    assert answer.status_code == 200
    told = answer.json()
    assert told.keys() == {field.name for field in fields(Answer)}
    assert (told["obeyed"], told["waits"], told["release"], told["frozen"]) == (True, None, 0, True)
    assert told["position"] >= told["sequence"] > made["sequence"]
    deadline = time.monotonic() + 5
    while learning.teach(1) > before:
        assert time.monotonic() < deadline
    assert not learning.command("resume").json()["frozen"]
    assert learning.command("promote", release=1).json()["champion"] == 1
    assert learning.command("freeze").json()["frozen"]


def test_every_answer_is_one_of_its_model_and_of_the_openapi_document(learning):
    learning.teach(1)
    described = learning.send("GET", "/openapi.json").json()["components"]
    columns = {"user": [5], "x": [1.0], "shop": [1.0]}
    tensors = [
        {"name": name, "datatype": "INT64" if name == "user" else "FP32", "shape": [1], "data": data}
        for name, data in columns.items()
    ]
    bodies = {
        "score": {"columns": columns}, "feedback": [{"id": "a.0", "label": 1}], "infer": {"inputs": tensors, "id": "mine"},
        "promote": {"release": 0}, "forget": {"what": "user=5"},
    }  # fmt: skip
    asked = [row for row in TABLE if row.gives and row.transport != "grpc"]
    assert {row.name for row in asked} >= {
        "releases",
        "diff",
        "server",
        "live",
        "ready",
        "model",
        "model_ready",
        "infer",
        *WRITES,
    }
    for row in asked:
        path = row.path.format(name="ranker", number="1") + ("?a=0&b=0" if row.query else "")
        answer = learning.send(row.method, path, **({"json": bodies.get(row.name, {})} if row.method == "POST" else {}))
        assert answer.status_code in (200, 202, 422), (path, answer.text)
        row.gives.model_validate_json(answer.content)
        schema = {"$ref": f"#/components/schemas/{row.gives.__name__}", "components": described}
        assert [error.message for error in jsonschema_rs.iter_errors(schema, answer.json())] == [], path


def test_a_rollback_over_http_promotes_only_where_it_says_so(learning):
    learning.teach(1)
    learning.command("release")
    learning.command("release")
    for promote, champion in ((False, 0), (True, 1)):
        told = learning.command("rollback", release=1, promote=promote, wait=30).json()
        assert (told["release"], told["champion"], told["refused"]) == (1, champion, None)


def test_what_the_learner_refuses_is_answered_409_with_why(learning, monkeypatch):
    def ask(self, command):
        """As where a release is deleted between the check and the learner."""
        return self.journal.write(command.model_copy(update={"release": 9}).record(position=0, time=self.clock()))

    monkeypatch.setattr(Operator, "ask", ask)
    for name in ("promote", "rollback"):
        answer = learning.command(name, release=0, wait=30)
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert error["type"] == "Refused"
        assert error["message"].startswith(f"the {name} at position {learning.last() - 1} was refused, and nothing changed: ")
    assert learning.send("GET", "/admin/releases").json()["releases"][0]["champion"]


def test_a_rollback_that_only_a_promotion_could_serve_is_answered_409_before_it_is_written(make):
    shop = make(guard="release")
    shop.learn()
    shop.teach(1)
    shop.command("release", wait=30)
    last = shop.last()
    answer = shop.command("rollback", release=1)
    assert answer.status_code == 409
    assert "`riverdelta rollback 1 --promote`" in answer.json()["error"]["message"]
    assert shop.last() == last


def test_the_releases_are_the_same_rows_as_the_command_s(learning):
    learning.teach(1)
    learning.command("release")
    rows = learning.send("GET", "/admin/releases").json()["releases"]
    assert [row["release"] for row in rows] == [0, 1]
    assert [row["examples"] for row in rows] == [0, 20]
    assert [row["champion"] for row in rows] == [True, False]


def test_diff_shows_what_changed_and_an_id_alone(learning):
    learning.teach(1)
    learning.command("release")
    found = learning.send("GET", "/admin/diff?a=0&b=1&top=2").json()
    assert (found["a"], found["b"], found["examples"], len(found["changes"])) == (0, 1, 20, 2)
    assert {t["correction"] for t in found["tables"]} == {"calibration", "entity_user"}
    mine = learning.send("GET", "/admin/diff", params={"a": 0, "b": 1, "id": "user=5"}).json()["changes"]
    assert [change["id"] for change in mine] == ["user=5"] * 2
    assert all(change["effect"] > 0 for change in mine)


def test_export_is_a_model_that_runs_alone_and_scores_as_the_service_does(learning):
    learning.teach(1)
    learning.command("release")
    learning.command("release")
    learning.command("rollback", release=1)
    for query, number in (("", 1), ("?release=0", 0)):
        answer = learning.send("GET", f"/admin/export{query}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert f'filename="merged-{number:06d}.onnx"' in answer.headers["content-disposition"]
        assert int(answer.headers["content-length"]) == len(answer.content)
        onnx.checker.check_model(onnx.load_from_string(answer.content))
        session = onnxruntime.InferenceSession(answer.content, providers=["CPUExecutionProvider"])
        feeds = {"user": np.array([5]), "x": np.ones(1, np.float32), "shop": np.ones(1, np.float32)}
        (score,) = session.run(["score"], feeds)
        base = 1 / (1 + np.exp(-0.5))
        assert score[0] > base + 0.01 if number else score[0] == pytest.approx(base)


def test_without_a_learner_the_command_is_written_and_the_answer_says_that_it_waits(shop):
    answer = shop.command("freeze")
    assert answer.status_code == 202
    told = answer.json()
    assert (told["obeyed"], told["frozen"], told["sequence"]) == (False, None, shop.last())
    assert "waits in the journal until one is started" in told["waits"]
    shop.learn()
    assert shop.command("release", wait=30).json()["frozen"]


def test_a_new_key_needs_no_learner_and_ids_of_the_one_before_stay_valid(shop):
    path = shop.runtime.plane.home.key_path
    key, columns = path.read_bytes(), {"user": [5], "x": [1.0], "shop": [1.0]}
    old = shop.send("POST", "/score", json={"columns": columns}).json()["impressions"]
    answer = shop.command("rotate-key")
    assert (answer.status_code, answer.json()["obeyed"], answer.json()["sequence"]) == (200, True, shop.last())
    assert path.read_bytes() != key
    fed = shop.send("POST", "/feedback", json=[{"id": f"{old}.0", "label": 1}]).json()
    assert fed["outcomes"] == ["accepted"]


def test_with_no_time_to_wait_the_answer_says_how_far_the_learner_is(learning):
    learning.command("resume")
    told = learning.command("freeze", wait=0).json()
    assert told["obeyed"] or "within 0 s" in told["waits"]


REFUSED = {
    "no body": ("freeze", b"", "is empty; expected JSON"),
    "no object": ("freeze", b"[]", "the body is a list"),
    "an unknown key": ("freeze", b'{"relearn": true}', "the body has 'relearn'; allowed: wait"),
    "a misspelt key that is needed": ("promote", b'{"relase": 3}', "the body has 'relase': did you mean release?"),
    "a key twice": ("rollback", b'{"release": 1, "freeze": true, "release": 2}', "the body has 'release' twice"),
    "an unknown key twice below": ("freeze", b'{"x": [{"b": 1, "b": 1}]}', "the body has 'b' twice"),
    "a misspelt key": ("rollback", b'{"relase": 1}', "did you mean release"),
    "no release to promote": ("promote", b"{}", 'as in {"release":3}'),
    "a release of text": ("promote", b'{"release": "1"}', "release is '1'"),
    "a release of NUL": ("promote", b'{"release": "\\u0000"}', "release is '\\x00'"),
    "a release that is true": ("promote", b'{"release": true}', "release is True"),
    "a release below zero": ("rollback", b'{"release": -1}', "release is -1"),
    "a release with a fraction": ("rollback", b'{"release": 1.0}', "release is 1.0"),
    "a release beyond any": ("rollback", b'{"release": 100000000000000000000}', "release is 1"),
    "what the record has beside the command": ("rollback", b'{"position": 3}', "the body has 'position'"),
    "a flag of text": ("rollback", b'{"freeze": "no"}', "freeze is 'no'"),
    "a flag of a number": ("rollback", b'{"promote": 1}', 'as in {"promote":true}'),
    "a wait of text": ("freeze", b'{"wait": "5"}', "wait is '5'"),
    "a wait that is true": ("freeze", b'{"wait": true}', "wait is True"),
    "too long a wait": ("freeze", b'{"wait": 31}', "wait is 31"),
    "a wait below zero": ("freeze", b'{"wait": -1}', "wait is -1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_body_that_is_wrong_is_refused_by_what_is_wrong_with_it_and_nothing_is_written(shop, name):
    command, body, said = REFUSED[name]
    before = shop.last()
    answer = shop.send("POST", f"/admin/{command}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "InvalidInput"
    assert said in answer.json()["error"]["message"]
    assert shop.last() == before
    assert shop.count("invalid") == 1


@pytest.mark.parametrize("number", [9, 10**9])
def test_a_release_that_is_not_there_is_refused_with_those_that_are(shop, number):
    for answer in (
        shop.command("promote", release=number),
        shop.command("rollback", release=number),
        shop.send("GET", f"/admin/export?release={number}"),
        shop.send("GET", f"/admin/diff?a=0&b={number}"),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"there is no release {number}; there are: 0"
    assert shop.last() == BEGUN


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/admin/diff", "the query has no 'a'; expected the parameters a, b, top, id"),
        ("/admin/diff?a=0", "the query has no 'b'"),
        ("/admin/diff?a=0&b=x", "b is 'x'; expected an integer of at least 0 and at most 1000000000"),
        ("/admin/diff?a=0&b=-1", "b is '-1'"),
        ("/admin/diff?a=0&b=%D9%A1", "expected an integer"),
        ("/admin/diff?a=0&a=0&b=0", "the query has 'a' twice"),
        ("/admin/diff?a=0&b=0&top=0", "top is 0; expected an integer of at least 1 and at most 1000"),
        ("/admin/diff?a=0&b=0&top=1001", "expected an integer of at least 1 and at most 1000"),
        ("/admin/diff?a=0&b=0&id=user", "expected column=value"),
        ("/admin/diff?a=0&b=0&id=users=1", "did you mean user"),
        ("/admin/diff?a=0&b=0&c=1", "the query has 'c'; allowed: a, b, top, id"),
        ("/admin/export?release=", "release is ''"),
        ("/admin/export?release=99999999999", "release is '99999999999'"),
        ("/admin/releases?" + "a&" * 2_100, "the query has 4200 bytes; at most 4096 are accepted"),
        ("/admin/diff?" + "id=1&" * 1_000, "the query has 5000 bytes; at most 4096 are accepted"),
        ("/admin/releases?all=1", "the query has 'all'; allowed: nothing"),
    ],
)
def test_a_query_that_is_wrong_is_refused_by_what_is_wrong_with_it(shop, path, said):
    answer = shop.send("GET", path)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"])
def test_what_a_form_of_another_site_can_send_is_refused_unread(shop, kind):
    for name in WRITES:
        headers = {} if kind is None else {"Content-Type": kind}
        answer = shop.send("POST", f"/admin/{name}", content=b'{"release": 0}', headers=headers)
        assert answer.status_code == 415
        said = answer.json()["error"]["message"]
        assert f"the request has {f'Content-Type: {kind}' if kind else 'no Content-Type'}; expected" in said
        assert "add -H 'Content-Type: application/json' -d '{}'" in said
    assert shop.last() == BEGUN


def test_a_preflight_of_another_site_is_not_granted(shop):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = shop.send("OPTIONS", "/admin/rollback", headers=asked | {"Access-Control-Request-Headers": "content-type"})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "evil.example:3000", "10.0.0.7"])
def test_without_tokens_a_name_that_was_made_to_point_here_gets_nothing(shop, host):
    for path in READS:
        answer = shop.send("GET", path, headers={"Host": host})
        assert answer.status_code == 403, path
        assert "without tokens" in answer.json()["error"]["message"]
    for name in WRITES:
        assert shop.send("POST", f"/admin/{name}", json={"release": 0}, headers={"Host": host}).status_code == 403
    assert shop.last() == BEGUN


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3000", "[::1]:3000", "127.0.0.1:3000"])
def test_without_tokens_the_machine_s_own_names_pass(shop, host):
    assert shop.send("GET", "/admin/releases", headers={"Host": host}).status_code == 200


def test_with_tokens_admin_alone_may_and_by_any_name(make):
    shop = make(**GUARDED)
    requests = [("GET", path, {}) for path in READS] + [("POST", f"/admin/{name}", {"json": {"release": 9}}) for name in WRITES]
    for method, path, given in requests:
        expected = {None: 401, Role.SCORE: 403, Role.FEEDBACK: 403}
        for role, status in expected.items():
            headers = {"Authorization": f"Bearer {TOKENS[role]}"} if role else {}
            assert shop.send(method, path, headers=headers, **given).status_code == status, path
        answer = shop.send(
            method, path, headers={"Authorization": f"Bearer {TOKENS[Role.ADMIN]}", "Host": "shop.example"}, **given
        )
        assert answer.status_code in (200, 400, 404), path
    assert shop.last() == BEGUN


def test_what_is_damaged_is_named_and_nothing_is_written(learning):
    learning.teach(1)
    learning.command("release")
    store = learning.runtime.plane.home.releases()
    store.get(1).state_path.unlink()
    answers = [learning.command("rollback", release=1), learning.send("GET", "/admin/diff?a=0&b=1")]
    store.get(1).path.write_bytes(b"damaged")
    answers += [learning.send("GET", "/admin/export?release=1"), learning.send("GET", "/admin/export")]
    assert [answer.json()["error"]["type"] for answer in answers] == ["Corrupt"] * 4


def test_a_folder_that_is_read_only_is_named_without_a_traceback(shop, monkeypatch, caplog):
    def refuse(*given):
        raise PermissionError(13, "Permission denied", "/home/journal/.key.turn")

    monkeypatch.setattr("riverdelta.sidecar.operator.rotate_key", refuse)
    answer = shop.command("rotate-key")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "rotate-key failed in the service: Permission denied; its log names the file"
    (record,) = (r for r in caplog.records if r.levelname == "ERROR")
    assert (record.exc_info, "/home/journal/.key.turn" in record.getMessage()) == (None, True)


def test_an_index_that_is_a_folder_is_damaged(shop):
    path = shop.runtime.plane.home.folder / "releases" / "index.json"
    before = shop.send("GET", "/admin/releases").json()
    path.unlink()
    path.mkdir()
    answer = shop.send("GET", "/admin/releases")
    assert (answer.status_code, answer.json()) == (200, before)


def test_requests_are_counted_at_their_endpoint(shop):
    shop.send("GET", "/admin/releases")
    shop.send("GET", "/admin/nothing")
    assert shop.count("ok") == 1
