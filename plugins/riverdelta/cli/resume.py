"""`riverdelta resume`: learn again."""

from __future__ import annotations

import click

from riverdelta.cli import operate


@click.command()
@operate.service
@operate.as_json
def resume(target: str, as_json: bool) -> None:
    """Learn again after a freeze, and close the breaker."""
    with operate.operating(target) as operator:
        sequence = operator.resume()
        operate.tell(operator, sequence, lambda s: f"learning goes on from position {s['position']}", as_json)
