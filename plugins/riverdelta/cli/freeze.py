"""`riverdelta freeze`: stop learning."""

from __future__ import annotations

import click

from riverdelta.cli import operate


@click.command()
@operate.service
@operate.as_json
def freeze(target: str, as_json: bool) -> None:
    """Stop learning; serving, feedback and measuring go on."""
    with operate.operating(target) as operator:
        sequence = operator.freeze()
        operate.tell(operator, sequence, lambda s: f"learning is frozen at position {s['position']}, until `resume`", as_json)
