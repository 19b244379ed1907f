"""Claim: the checks before a service's workers start, and the folder and address that it reserves."""

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
    """Reserve a scorer's folder and its gRPC address until the returned stack is closed or the process ends.

    Everything at which workers or the learner would fail permanently is tried here first, because BentoML restarts a failed
    worker without limit. Raises a `RiverdeltaError` that says what is wrong.
    """
    refuse_exposed(settings)
    refuse_taken_http(settings.grpc_port)
    home = Home(definition, settings)
    with ExitStack() as held:
        if settings.grpc_port:
            change = (
                "set RIVERDELTA_GRPC_HOST and RIVERDELTA_GRPC_PORT to a free address of this machine (port 0: no gRPC); with "
                f"several scorers in one Bento, give {definition.name!r} its own port: @online(..., grpc_port=3002)"
            )
            held.enter_context(hold("gRPC", settings.grpc_host, settings.grpc_port, change))
        try:
            home.prepare()
            lock = Lock(home.folder / "serve.lock", f"the folder of scorer {definition.name!r}")
            held.callback(lock.release)
            home.ids()
            with closing(home.journal()) as journal:
                # Before a worker accepts feedback, whose outcomes depend on these settings.
                home.declare(journal, time.time())
        except OSError as error:
            raise Unavailable(f"{home.folder} cannot be used: {error}; repair it, or set RIVERDELTA_HOME") from error
        new_learner(home.definition, settings)
        return held.pop_all()


@contextmanager
def without_traceback() -> Iterator[None]:
    """Raise riverdelta's errors as BentoML's too, which its command line shows without a traceback."""
    try:
        yield
    except RiverdeltaError as error:
        kind = type(error)
        raise type(kind.__name__, (kind, BentoMLException), {"__module__": kind.__module__})(str(error)) from None
