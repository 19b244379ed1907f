"""`riverdelta promote`: make a release the champion."""

from __future__ import annotations

import click

from riverdelta.cli import operate


@click.command()
@operate.service
@click.argument("release", type=int)
def promote(target: str, release: int) -> None:
    """Make RELEASE the champion, without waiting for its trial."""
    with operate.operating(target) as operator:
        operate.tell(operator, operator.promote(release), lambda s: f"release {s['champion']} is the champion")
