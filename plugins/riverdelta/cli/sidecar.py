"""`riverdelta sidecar`: runs the learner as its own process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import click

from riverdelta.cli.options import Misconfigured, service
from riverdelta.core.errors import ConfigurationError, Locked
from riverdelta.core.logs import use_json
from riverdelta.core.settings import Settings
from riverdelta.learning.service import load
from riverdelta.sidecar import Trainer
from riverdelta.storage.home import Home


@click.command()
@service
@click.option("--end-with-stdin", is_flag=True, help="Stop when standard input closes (set by the service).")
def sidecar(target: str, end_with_stdin: bool) -> None:
    """Run the learner of a service.

    The service must have run once. The learner runs until SIGTERM or SIGINT, then saves. Exit code 78 (EX_CONFIG) means that
    the configuration is wrong, for example that the home belongs to another base.
    """
    try:
        _run(target, end_with_stdin)
    except Locked:  # another learner, which may be about to end
        raise
    except ConfigurationError as error:
        raise Misconfigured(str(error)) from error


def _run(target: str, end_with_stdin: bool) -> None:
    definition, settings = load(target), Settings.load()
    if not end_with_stdin:  # a service starts its learner before its workers make the home
        Home(definition, settings).require()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.log_format == "json":
        use_json()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if end_with_stdin:
        threading.Thread(target=_watch_stdin, args=(stopping,), daemon=True).start()
    trainer = Trainer(definition, settings)
    logging.getLogger(__name__).info("learning in %s (pid %d)", trainer.home.folder, os.getpid())
    trainer.run(stopping.is_set)


def _watch_stdin(stopping: threading.Event) -> None:
    # Unbuffered: a buffered reader would hold its lock at interpreter exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stopping.set()
