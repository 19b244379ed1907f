"""What `bentoml serve` does where it must not serve: one message, an exit code that is not 0, and no worker."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from riverdelta.lab.server import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path):
    """start(change, **settings): serve a copy of the reference service, changed, until it ends; what it says, in lines."""

    def run(change=("", ""), **settings):
        shutil.copytree(ROOT / "service", tmp_path, dirs_exist_ok=True)
        service = tmp_path / "service.py"
        service.write_text(service.read_text().replace(*change))
        environment = {
            "RIVERDELTA_HOME": str(tmp_path / "state"),
            "RIVERDELTA_GRPC_PORT": str(free_port()),
            "BENTOML_HOME": str(tmp_path / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "serve", "service:Ranker", "--host", "127.0.0.1", "--port", str(free_port())],
            cwd=tmp_path,
            env=os.environ | environment | settings,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert "worker" not in done.stdout + done.stderr
        return done.stderr.strip().splitlines()

    return run


def test_a_second_service_on_the_grpc_port_ends_and_the_first_one_answers_every_request(server, grpc_client, start, tmp_path):
    columns = {"user_id": np.arange(8), "item_id": np.arange(8), "hour": np.zeros(8, np.float32)}
    base = grpc_client.score(columns)[0]
    (said,) = start(("forget=0.98", "forget=0.9"), RIVERDELTA_GRPC_PORT=str(server.grpc_port))
    assert f"gRPC cannot listen on 127.0.0.1:{server.grpc_port}: process {server.process.pid} (" in said
    assert "RIVERDELTA_GRPC_PORT" in said
    assert not (tmp_path / "state").exists()
    for _ in range(30):
        assert np.array_equal(grpc_client.score(columns)[0], base)


def test_a_port_that_something_else_has_and_another_stack_on_a_home_end_the_start(server, start):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        (said,) = start(RIVERDELTA_GRPC_HOST="localhost", RIVERDELTA_GRPC_PORT=str(port))
    assert f"gRPC cannot listen on localhost:{port}: process {os.getpid()} (" in said
    home = server.log.parent / "state"
    said, *more = start(("forget=0.98", "forget=0.9"), RIVERDELTA_HOME=str(home))
    assert said.endswith(f"{home}/ranker learned with another definition of 'ranker':")
    assert [line.partition(":")[0] for line in more] == [
        "  Entity 'entity_user_id'",
        "to carry over what it learned, once no service uses it",
        "to start over",
    ]


def test_a_variable_that_is_almost_a_setting_ends_the_start_with_the_setting_s_name(start, tmp_path):
    (said,) = start(RIVERDELTA_HOEM=str(tmp_path))
    assert "RIVERDELTA_HOEM is not a setting, but RIVERDELTA_HOME is" in said
    assert not (tmp_path / "state").exists()


def test_a_wrong_option_ends_the_start_without_a_traceback(start):
    (said,) = start(('logit="logit"', 'logit="logits"'))
    assert "has no output 'logits': did you mean logit?" in said
