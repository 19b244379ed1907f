"""The options that commands share, and the scorer's home that they name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from riverdelta.sidecar.operator import Operator
    from riverdelta.storage.home import Home

#: The option that names the scorer; its home is found by RIVERDELTA_HOME.
service = click.option(
    "--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker."
)
#: The option for output that a program reads.
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def home_of(target: str) -> Home:
    """Return the home that a service of the scorer has made; raises `NotFound`, and creates nothing, where there is none."""
    from riverdelta.core.settings import Settings
    from riverdelta.learning.definition import load
    from riverdelta.storage.home import Home

    home = Home(load(target), Settings.load())
    home.require()
    return home


@contextmanager
def operating(target: str) -> Iterator[Operator]:
    """Open the scorer's home, beside a running service or without one; raises `NotFound` where there is none."""
    from riverdelta.sidecar.operator import Operator

    home = home_of(target)
    home.prepare()
    journal = home.journal()
    try:
        yield Operator(home, journal)
    finally:
        journal.close()


def show(found: Any, as_json: bool, text: Callable[[Any], object]) -> None:
    """Print what a command found: as JSON, or as `text` prints it for people."""
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        text(found)
