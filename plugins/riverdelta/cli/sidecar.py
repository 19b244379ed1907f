"""`riverdelta sidecar`: the learner as a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import click

from riverdelta.definition import load
from riverdelta.logs import use_json
from riverdelta.settings import Settings
from riverdelta.trainer import Trainer


@click.command()
@click.option("--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker.")
@click.option("--end-with-stdin", is_flag=True, help="Stop when standard input closes: the parent is gone.")
def sidecar(target: str, end_with_stdin: bool) -> None:
    """Run the learner of a service until SIGTERM or SIGINT, then save."""
    settings = Settings.load()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.log_format == "json":
        use_json()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if end_with_stdin:
        threading.Thread(target=_watch_stdin, args=(stopping,), daemon=True).start()
    trainer = Trainer(load(target), settings)
    logging.getLogger(__name__).info("learning in %s (pid %d)", trainer.home.folder, os.getpid())
    trainer.run(stopping.is_set)


def _watch_stdin(stopping: threading.Event) -> None:
    # Unbuffered: a buffered reader would hold its lock when the interpreter ends.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stopping.set()
