"""Claim: what a service reserves, and the checks that it must pass, before its workers start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from bentoml.exceptions import BentoMLException

from riverdelta.bento.address import hold, refuse_exposed, refuse_taken_http
from riverdelta.core.errors import RiverdeltaError, Unavailable
from riverdelta.core.locks import Lock
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import new_learner
from riverdelta.storage.home import Home


def claim(definition: Definition, settings: Settings) -> ExitStack:
    """Return what keeps a scorer's folder and its gRPC address for this process, until it is closed or the process ends.

    Whatever workers or the learner would fail at for good is tried here once: a worker that fails is started again without
    end. Raises a `RiverdeltaError` that says what is wrong.
    """
    refuse_exposed(settings)
    refuse_taken_http(settings.grpc_port)
    home = Home(definition, settings)
    with ExitStack() as held:
        if settings.grpc_port:
            change = (
                "set RIVERDELTA_GRPC_HOST and RIVERDELTA_GRPC_PORT to a free address of this machine (port 0: no gRPC); of "
                f"several scorers in one Bento, give {definition.name!r} a port of its own: @online(..., grpc_port=3002)"
            )
            held.enter_context(hold("gRPC", settings.grpc_host, settings.grpc_port, change))
        try:
            home.prepare()
            lock = Lock(home.folder / "serve.lock", f"the folder of scorer {definition.name!r}")
            held.callback(lock.release)
            home.ids()
            with closing(home.journal()) as journal:
                # Before the first worker takes feedback: it is judged by the settings of this start.
                home.declare(journal, time.time())
        except OSError as error:
            raise Unavailable(f"{home.folder} cannot be used: {error}; repair it, or set RIVERDELTA_HOME") from error
        new_learner(home.definition, settings)
        return held.pop_all()


@contextmanager
def without_traceback() -> Iterator[None]:
    """Raise our errors as errors of BentoML too: its command line shows the message of those without a traceback."""
    try:
        yield
    except RiverdeltaError as error:
        kind = type(error)
        raise type(kind.__name__, (kind, BentoMLException), {"__module__": kind.__module__})(str(error)) from None
