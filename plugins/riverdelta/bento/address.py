"""Address: the addresses that this service listens on, reserved before it starts."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import psutil

from riverdelta.bento import internals
from riverdelta.bento.access import refuse_exposure
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.settings import Settings

_WILDCARDS = ("0.0.0.0", "::")


def refuse_exposed(settings: Settings) -> None:
    """Raise `ConfigurationError` if HTTP or gRPC is reachable from other machines and a role has no token."""
    refuse_exposure(settings, http_host(), internals.serve_arguments().get("bento") or "service:Ranker")


def refuse_taken_http(grpc_port: int) -> None:
    """Raise `ConfigurationError`, naming the process that holds it, if the HTTP address of `bentoml serve` is taken."""
    given = internals.serve_arguments()
    if "host" in given and given.get("fd") is None:
        port = given.get("port") or internals.PORT.find().get()
        if port == grpc_port:
            raise ConfigurationError(
                f"HTTP and gRPC are both configured for port {port}; give `bentoml serve` another --port, or change "
                f"RIVERDELTA_GRPC_PORT"
            )
        hold("HTTP", str(http_host()), port, "give `bentoml serve` another --host or --port").close()


def http_host() -> str | None:
    """Return the HTTP address of this worker's socket or of `bentoml serve`; None if unknown.

    Both are read from the current Click command. A service that is started from Python has none in its first process; its
    workers, which are always commands, check instead.
    """
    given = internals.serve_arguments()
    if given.get("fd") is not None:
        # A copy of the descriptor: closing this socket leaves the server's open.
        with socket.socket(fileno=os.dup(given["fd"])) as listening:
            name = listening.getsockname()
        return name if isinstance(name, str) else str(name[0])
    if "host" in given:
        return str(given["host"] or internals.HOST.find().get())
    return None


def hold(what: str, host: str, port: int, change: str) -> socket.socket:
    """Return a socket that reserves `host:port` for this user's sockets with SO_REUSEPORT, until it is closed.

    Raises `ConfigurationError` if this machine does not have the address, or another socket is bound to it or to its wildcard:
    the message names `what` cannot listen, the process that does if it can be found, and the `change` to make.

    Notes
    -----
    Without SO_REUSEPORT a bind succeeds only if the port is free. Set afterwards, it admits the workers, while a second
    `hold` still fails. SO_REUSEADDR ignores connections that linger after a restart; on Linux it also permits two sockets to
    bind one address, but not to listen on it. So `listen` succeeds in at most one process, and the socket keeps the port after
    it stops listening.
    """
    held = None
    try:
        family, address = _resolve(host, port)
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # as gRPC binds it
        held.bind(address)
        if sys.platform == "linux":
            held.listen()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sys.platform == "linux":
            held.shutdown(socket.SHUT_RDWR)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        if held is not None:
            held.close()
            if holder := _listener(address[0], port):
                reason = f"{holder} listens there"
        raise ConfigurationError(f"{what} cannot listen on {_written(host, port)}: {reason}; {change}") from None
    return held


def target(host: str, port: int) -> str:
    """Return the address in gRPC's form, resolved as `hold` resolves it; raises `OSError` if the host does not exist.

    >>> target("127.0.0.1", 3001), target("::1", 3001), target("[::]", 0)
    ('127.0.0.1:3001', '[::1]:3001', '[::]:0')
    """
    _, address = _resolve(host, port)
    return _written(address[0], port)


def _bare(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in (host := _bare(host)) else f"{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Return the arguments of `bind`; a name is resolved to its first IPv4 address if it has one, "" to all addresses."""
    found = socket.getaddrinfo(_bare(host) or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda entry: entry[0] == socket.AF_INET6)
    return family, address


def _listener(host: str, port: int) -> str | None:
    """Return the id and command of the process that listens on `host:port`; None if they cannot be read."""
    try:
        for found in psutil.net_connections("tcp"):
            at = found.laddr.ip.removeprefix("::ffff:") if found.laddr else ""
            same = at == host or at in _WILDCARDS or host in _WILDCARDS
            if found.status == psutil.CONN_LISTEN and found.laddr.port == port and same and found.pid:
                process = psutil.Process(found.pid)
                # A killed worker is restarted, so the process that starts it is named.
                while (parent := process.parent()) and any(Path(part).name == "bentoml" for part in parent.cmdline()):
                    process = parent
                return f"process {process.pid} ({' '.join(process.cmdline())[:100]})"
    except psutil.Error:  # another user's process, or one that has ended
        pass
    return None
