"""Address: where BentoML listens, or is about to."""

from __future__ import annotations

import os
import socket
from typing import Any

import click
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException

from riverdelta.access import refuse_exposure
from riverdelta.errors import ConfigurationError
from riverdelta.settings import Settings


class Exposed(ConfigurationError, BentoMLException):
    """A service that others could reach without a token; BentoML's command line shows its message alone."""


def refuse_exposed(settings: Settings) -> None:
    """Raise `Exposed` where HTTP or gRPC is served beyond this machine and a role has no token."""
    try:
        refuse_exposure(settings, http_host(), _given().get("bento") or "service:Ranker")
    except ConfigurationError as error:
        raise Exposed(str(error)) from None


def http_host() -> str | None:
    """Return the address of the socket that this worker was given, or that `bentoml serve` was asked for; None: not known.

    Both are commands of Click, whose context is still there. A service that is started from Python has none in its first
    process: there the workers, which are always commands, decide.
    """
    given = _given()
    if given.get("fd") is not None:
        # A copy of the descriptor: closing this socket leaves the server's open.
        with socket.socket(fileno=os.dup(given["fd"])) as listening:
            name = listening.getsockname()
        return name if isinstance(name, str) else str(name[0])
    if "host" in given:
        return str(given["host"] or BentoMLContainer.http.host.get())
    return None


def _given() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return context.params if context is not None else {}
