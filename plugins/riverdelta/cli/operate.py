"""What the operator's commands share: which scorer, and a journal to write the command into."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from riverdelta.core.errors import Refused, Unavailable
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import load
from riverdelta.sidecar.operator import Operator
from riverdelta.storage.home import Home

#: The option that names the scorer; its folder is found by RIVERDELTA_HOME.
service = click.option(
    "--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker."
)
#: The option that asks for what a program reads.
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def home_of(target: str) -> Home:
    """Return the folder that a service of the scorer has made; raises `NotFound`, and makes nothing, where there is none."""
    home = Home(load(target), Settings.load())
    home.require()
    return home


@contextmanager
def operating(target: str) -> Iterator[Operator]:
    """Open the scorer's folder, beside a running service or without one; raises `NotFound` where there is none."""
    home = home_of(target)
    home.prepare()
    journal = home.journal()
    try:
        yield Operator(home, journal)
    finally:
        journal.close()


def tell(operator: Operator, sequence: int, said: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Wait for the learner and print the outcome of a command, or that it waits; raises `Refused` where it was refused."""
    status: dict[str, Any] = {}
    waits: Unavailable | None = None
    try:
        status = operator.wait(sequence)
    except Unavailable as error:
        waits = error
    except Refused:
        if as_json:
            click.echo(json.dumps(operator.outcome(sequence), indent=1))
        raise
    if as_json:
        click.echo(json.dumps(operator.outcome(sequence, waits), indent=1))
    else:
        click.echo(said(status) if waits is None else f"written at position {sequence}; {waits}")
