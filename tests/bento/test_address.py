"""An address is held once: by one service of all that start at once, and shared with its own workers alone."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from threading import Barrier

import psutil
import pytest

from riverdelta.bento.address import hold, target
from riverdelta.core.errors import ConfigurationError
from riverdelta.lab.server import free_port

HOSTS = ("127.0.0.1", "0.0.0.0", "::1", "::")
#: IPv4 alone and IPv6 loopback share no packet; every other two do.
APART = {frozenset(("127.0.0.1", "::1")), frozenset(("0.0.0.0", "::1"))}


def held(host, port):
    return hold("gRPC", host, port, "set RIVERDELTA_GRPC_PORT")


def worker(host, port):
    """What a worker's gRPC does: a socket that shares the port and listens."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    made.bind((host, port))
    made.listen()
    return made


@pytest.mark.parametrize("first", HOSTS)
@pytest.mark.parametrize("second", HOSTS)
def test_a_second_service_is_refused_before_and_after_the_first_one_s_workers_listen(first, second):
    port = free_port()
    with held(first, port), ExitStack() as workers:
        for serving in (False, True):
            if serving:
                for _ in range(2):
                    workers.enter_context(worker(first, port))
            if frozenset((first, second)) in APART:
                held(second, port).close()
            else:
                with pytest.raises(ConfigurationError, match=rf"gRPC cannot listen on .*:{port}: .*; set RIVERDELTA_GRPC_PORT"):
                    held(second, port)
    held(second, port).close()


@pytest.mark.parametrize("listens", HOSTS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_listener_of_anything_else_is_found_and_named_though_it_would_share_its_port(listens, host):
    port = free_port()
    with worker(listens, port):
        if frozenset((listens, host)) in APART:
            held(host, port).close()
        else:
            with pytest.raises(ConfigurationError, match=rf": process {psutil.Process().pid} \(.+\) listens there;"):
                held(host, port)


def test_of_many_that_start_at_once_one_gets_the_port():
    for _ in range(10):
        port, together = free_port(), Barrier(8)

        def start(_, port=port, together=together):
            together.wait()
            try:
                return held("127.0.0.1", port)
            except ConfigurationError:
                return None

        with ThreadPoolExecutor(8) as pool:
            got = [each for each in pool.map(start, range(8)) if each is not None]
        for each in got:
            each.close()
        assert len(got) == 1


def test_a_killed_service_lets_go():
    port = free_port()
    script = f"from riverdelta.bento.address import hold; h = hold('gRPC', '127.0.0.1', {port}, ''); print(flush=True); input()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        process.stdout.readline()
        with pytest.raises(ConfigurationError, match="Address already in use"):
            held("127.0.0.1", port)
        process.kill()
    held("127.0.0.1", port).close()


def test_connections_that_linger_after_a_restart_do_not_count():
    port = free_port()
    with (
        held("127.0.0.1", port),
        worker("127.0.0.1", port) as listening,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        listening.accept()[0].close()  # who closes first is left in TIME_WAIT
        assert client.recv(1) == b""
    held("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.0.2.1", "gRPC cannot listen on 192.0.2.1:3001: Cannot assign"),
        ("no.such.host.invalid", "invalid:3001: .*not known"),
    ],
)
def test_an_address_of_another_machine_is_refused_with_the_reason(host, said):
    with pytest.raises(ConfigurationError, match=f"{said}.*; set RIVERDELTA_GRPC_PORT"):
        held(host, 3001)


def test_a_name_stands_for_one_address_to_the_service_and_its_workers():
    assert target("localhost", 3001) == "127.0.0.1:3001"
    port = free_port()
    with closing(held("localhost", port)), pytest.raises(ConfigurationError):
        held("127.0.0.1", port)
    with worker("127.0.0.1", port), pytest.raises(ConfigurationError, match=f"on localhost:{port}: process "):
        held("localhost", port)
