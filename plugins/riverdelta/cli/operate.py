"""What the operator's commands share: which scorer, and a journal to write the command into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from riverdelta.definition import load
from riverdelta.errors import Unavailable
from riverdelta.home import Home
from riverdelta.operator import Operator
from riverdelta.settings import Settings

#: The option that names the scorer; its folder is found by RIVERDELTA_HOME.
service = click.option(
    "--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker."
)
#: The option that asks for what a program reads.
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def operating(target: str) -> Iterator[Operator]:
    """Open the scorer's folder, beside a running service or without one."""
    home = Home(load(target), Settings.load())
    home.prepare()
    journal = home.journal()
    try:
        yield Operator(home, journal)
    finally:
        journal.close()


def tell(operator: Operator, sequence: int, said: Callable[[dict[str, Any]], str]) -> None:
    """Wait for the learner and say what has come of a command, or that it waits."""
    try:
        click.echo(said(operator.wait(sequence)))
    except Unavailable as error:
        click.echo(f"written at position {sequence}; {error}")
