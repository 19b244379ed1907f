"""A served service with tokens: no route and no method answers without one, and none of them is told to anybody."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from riverdelta.bento.access import Role
from riverdelta.lab.server import free_port
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

ROOT = Path(__file__).parents[2]
TOKENS = {role: f"{role}-token-of-the-shop" for role in Role}
COLUMNS = {"user_id": [1, "ann"], "item_id": [1, 2], "hour": [1, 2]}


def settings(folder):
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RIVERDELTA_", "BENTOML_"))}
    return plain | {
        "RIVERDELTA_HOME": str(folder / "state"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }


class Guarded:
    """A service with tokens on free loopback ports."""

    def __init__(self, folder):
        self.port, self.grpc_port, self.log = free_port(), free_port(), folder / "log"
        names = {f"RIVERDELTA_{role.upper()}_TOKENS": f"an-older-token-of-{role},{token}" for role, token in TOKENS.items()}
        command = [sys.executable, "-m", "bentoml", "serve", "service.service:Ranker", "--host", "127.0.0.1"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=ROOT,
                env={**settings(folder), **names, "RIVERDELTA_GRPC_PORT": str(self.grpc_port)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self):
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                if self.send("GET", "/readyz")[0] == 200 and self.send("GET", "/status", Role.SCORE)[2]["sidecar"]["alive"]:
                    return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def send(self, method, path, token=None, body=None):
        given = {"Authorization": f"Bearer {TOKENS.get(token, token)}"} if token else {}
        given |= {} if body is None else {"Content-Type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), given)
            answer = connection.getresponse()
            content = answer.read()
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, answer.headers, json.loads(content) if is_json and content else content.decode(errors="replace")

    def call(self, method, data=b"", token=None):
        metadata = [("authorization", f"Bearer {TOKENS.get(token, token)}")] if token else []
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            try:
                channel.unary_unary(f"/{SERVICE}/{method}")(data, metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                return error.code().name
        return "OK"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    server = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        server.wait()
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)


BASIC = 'Basic realm="riverdelta: any name, and a token as the password", '
PROBES = ("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready")


def test_no_path_that_the_service_names_answers_without_a_token(guarded):
    named = guarded.send("GET", "/schema.json", Role.SCORE)[2]["paths"]
    paths = {path.replace("{name}", "ranker").replace("{number}", "1") for path in named}
    paths |= {"/", "/docs.json", "/schema.json", "/metrics", "/static_content/index.js", "/nothing/here", *PROBES}
    assert {"/score", "/feedback", "/status", "/v2/models/ranker/infer"} <= paths
    for path in sorted(paths):
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            status, headers, _ = guarded.send(method, path)
            if path in PROBES and method == "GET":
                assert status == 200, path
            else:
                # A browser is asked for a token where it is shown the status page, and nowhere else.
                asked = BASIC * (path == "/" and method == "GET")
                assert (status, headers["WWW-Authenticate"]) == (401, f"{asked}Bearer"), (method, path)


def test_bentoml_s_own_pages_open_with_a_token(guarded):
    for path in ("/", "/docs.json", "/schema.json", "/metrics"):
        assert guarded.send("GET", path, Role.SCORE)[0] == 200, path


def test_no_grpc_method_but_the_probes_answers_without_a_token(guarded):
    for name in MESSAGES:
        if name.endswith("Request"):
            method = name.removesuffix("Request")
            assert guarded.call(method) == ("OK" if method in ("ServerLive", "ServerReady") else "UNAUTHENTICATED")
    assert guarded.call("ServerMetadata", token=Role.FEEDBACK) == "OK"
    message = MESSAGES["ModelInferRequest"](model_name="ranker-feedback").SerializeToString()
    assert guarded.call("ModelInfer", message, Role.SCORE) == "PERMISSION_DENIED"


def test_scores_and_feedback_pass_with_the_token_of_their_role_also_with_an_older_one(guarded):
    for prefix in ("", "an-older-token-of-"):
        score, feedback = (f"{prefix}{role}" if prefix else role for role in (Role.SCORE, Role.FEEDBACK))
        assert guarded.send("POST", "/score", feedback, {"columns": COLUMNS})[0] == 403
        status, _, scored = guarded.send("POST", "/score", score, {"columns": COLUMNS})
        assert status == 200
        items = [{"id": f"{scored['impressions']}.{i}", "label": 1} for i in range(2)]
        assert guarded.send("POST", "/feedback", score, items)[0] == 403
        assert guarded.send("POST", "/feedback", feedback, items)[2]["outcomes"] == ["accepted", "accepted"]


def test_the_operator_s_routes_take_the_admin_token_alone(guarded):
    for method, path, body in (
        ("GET", "/admin/releases", None),
        ("GET", "/admin/diff?a=0&b=0", None),
        ("GET", "/admin/export?release=0", None),
        ("POST", "/admin/freeze", {}),
        ("POST", "/admin/resume", {}),
        ("POST", "/admin/release", {}),
        ("POST", "/admin/promote", {"release": 0}),
        ("POST", "/admin/rollback", {"release": 0}),
    ):
        assert guarded.send(method, path, None, body)[0] == 401, path
        assert guarded.send(method, path, "some-other-token-of-the-shop", body)[0] == 401, path
        for role in (Role.SCORE, Role.FEEDBACK):
            status, _, refused = guarded.send(method, path, role, body)
            assert (status, refused["error"]["type"]) == (403, "Forbidden"), path
        assert guarded.send(method, path, Role.ADMIN, body)[0] == 200, path


def test_no_token_is_told_to_anybody(guarded):
    guarded.send("POST", "/score", "some-other-token-of-the-shop", {"columns": COLUMNS})
    told = [str(guarded.send("GET", path, Role.SCORE)[2]) for path in ("/status", "/metrics", "/docs.json", "/schema.json")]
    for text in [*told, guarded.log.read_text()]:
        assert "token-of" not in text


def test_bentoml_serve_without_a_host_and_without_tokens_says_what_to_type(tmp_path):
    command = [sys.executable, "-m", "bentoml", "serve", "service.service:Ranker", "--port", str(free_port())]
    for more in ({}, {"BENTOML_CONTAINERIZED": "true"}):
        done = subprocess.run(command, cwd=ROOT, env=settings(tmp_path) | more, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert "\n  bentoml serve --host 127.0.0.1 service.service:Ranker\n" in done.stderr
        assert "export RIVERDELTA_SCORE_TOKENS=$(openssl rand -hex 32)" in done.stderr


def test_a_worker_looks_at_the_socket_that_it_is_given(tmp_path):
    script = (
        f"import socket, sys; sys.argv = ['worker', 'service.service:Ranker', '--worker-id', '1', '--fd']\n"
        f"listening = socket.socket(); listening.bind(('0.0.0.0', {free_port()}))\n"
        f"sys.argv.append(str(listening.detach()))\n"
        f"from _bentoml_impl.worker.service import main; main()\n"
    )
    environment = {**settings(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "HTTP would be served on 0.0.0.0" in done.stdout + done.stderr
