"""A real service against clients that want it for themselves, and pages of other sites."""

import http.client
import json
import socket

import psutil
import pytest

COLUMNS = {"columns": {"user_id": [1], "item_id": [1], "hour": [0.0]}}


def status(server, method, path, host, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, body, {"Host": host})
    found = connection.getresponse().status
    connection.close()
    return found


def test_nothing_listens_but_http_and_grpc(server):
    root = psutil.Process(server.process.pid)
    connections = [c for p in (root, *root.children(recursive=True)) for c in p.net_connections("inet")]
    assert {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN} == {server.port, server.grpc_port}


@pytest.mark.parametrize("path", ["/score", "/feedback", "/status", "/", "/v2", "/openapi.json", "/docs.json", "/unknown"])
def test_a_name_made_to_point_here_reaches_only_probes_and_metrics(server, path):
    method, body = ("POST", json.dumps(COLUMNS)) if path in ("/score", "/feedback") else ("GET", None)
    assert status(server, method, path, f"evil.example:{server.port}", body) == 403
    assert status(server, "GET", "/metrics", "prometheus.target") == status(server, "GET", "/livez", "pod") == 200


@pytest.mark.parametrize("target", ["http://evil.example/score", "http://localhost/score"])
def test_a_target_with_a_host_in_it_does_not_replace_the_header(server, target):
    body = json.dumps(COLUMNS)
    assert status(server, "POST", target, "localhost", body) == 200
    assert status(server, "POST", target, "evil.example", body) == 403


def test_headers_without_an_end_are_refused_by_the_server_that_bentoml_starts(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 40_000)
            answer = connection.recv(100)
        except ConnectionError:
            return  # closed before all of it was sent
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431")
