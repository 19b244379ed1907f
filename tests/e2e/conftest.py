"""One real service of the reference Bento, two workers, for all tests here."""

import sys
from pathlib import Path

import pytest

from riverdelta.lab.client import Grpc, Http
from riverdelta.lab.server import serving

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with serving(ROOT, "service.service:Ranker", tmp_path_factory.mktemp("served") / "state") as running:
        yield running


@pytest.fixture
def http(server):
    client = Http(server.port)
    yield client
    client.close()


@pytest.fixture
def grpc_client(server):
    client = Grpc(server.grpc_port, "ranker")
    yield client
    client.close()
