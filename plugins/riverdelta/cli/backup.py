"""`riverdelta backup`: a copy of everything, to go back to."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from riverdelta.cli import operate
from riverdelta.storage.backup import back_up


@click.command()
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@operate.service
def backup(destination: Path, target: str) -> None:
    """Copy the scorer's folder to DEST, which must not exist, while the service runs; DEST appears complete or not at all."""
    home = operate.home_of(target)
    made = back_up(home, destination)
    here, there = quote(str(home.folder)), quote(str(made.folder))
    click.echo(f"{made.folder}: {made.bytes:,} bytes, the journal up to record {made.last}")
    click.echo(f"to restore it, stop the service, then: mv {here} {here}.old && cp -a {there} {here}")
