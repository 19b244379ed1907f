"""`riverdelta promote`: make a release the champion."""

from __future__ import annotations

import click

from riverdelta.cli import operate


@click.command()
@operate.service
@click.argument("release", type=int)
@operate.as_json
def promote(target: str, release: int, as_json: bool) -> None:
    """Make RELEASE the champion, without waiting for its trial."""
    with operate.operating(target) as operator:
        sequence = operator.promote(release)
        operate.tell(operator, sequence, lambda s: f"release {s['champion']} is the champion", as_json)
