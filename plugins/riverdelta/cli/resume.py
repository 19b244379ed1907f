"""`riverdelta resume`: learn again."""

from __future__ import annotations

import click

from riverdelta.cli import operate


@click.command()
@operate.service
def resume(target: str) -> None:
    """Learn again after a freeze, and close the breaker."""
    with operate.operating(target) as operator:
        operate.tell(operator, operator.resume(), lambda s: f"learning goes on from position {s['position']}")
