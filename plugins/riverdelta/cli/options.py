"""Options: those that commands share, and the home of the scorer that they name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from riverdelta.sidecar.operator import Operator
    from riverdelta.storage.home import Home

#: The option that names the scorer; its home is in RIVERDELTA_HOME.
service = click.option("--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, e.g. service.py:Ranker.")
#: The option for machine-readable output.
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Misconfigured(click.ClickException):
    """An error that a restart cannot fix."""

    exit_code = os.EX_CONFIG


class Integer(click.IntRange):
    """An integer of a range, which the message about another value states."""

    def __init__(self, least: int, most: int | None = None) -> None:
        super().__init__(least, most)
        self.name = f"integer of at least {least}" if most is None else f"integer from {least} to {most}"


def home_of(target: str) -> Home:
    """Return the home of a scorer; raises `NotFound`, and creates nothing, if no service has made it."""
    from riverdelta.core.settings import Settings
    from riverdelta.learning.service import load
    from riverdelta.storage.home import Home

    home = Home(load(target), Settings.load())
    home.require()
    return home


@contextmanager
def operating(target: str) -> Iterator[Operator]:
    """Yield an operator for a scorer's home, with or without a running service; raises `NotFound` if there is no home."""
    from riverdelta.sidecar.operator import Operator

    home = home_of(target)
    home.prepare()
    journal = home.journal()
    try:
        yield Operator(home, journal)
    finally:
        journal.close()


def work(home: Home, sequence: int) -> bool:
    """Execute the command at `sequence` with a learner of this process; return False if another process has the home's."""
    from riverdelta.core.errors import Locked, Unavailable
    from riverdelta.sidecar.trainer import Trainer

    try:
        trainer = Trainer(home.definition, home.settings, home=home)
    except Locked:
        return False
    try:
        while trainer.step() or trainer.learner.position < sequence:
            if trainer.paused is not None:
                raise Unavailable(f"the command at position {sequence} waits: {trainer.paused}")
    finally:
        trainer.close()
    return True


def show(found: Any, as_json: bool, text: Callable[[Any], object]) -> None:
    """Print a result as JSON, or else with `text`."""
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        text(found)
