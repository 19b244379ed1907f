"""`riverdelta freeze`: stop learning."""

from __future__ import annotations

import click

from riverdelta.cli import operate


@click.command()
@operate.service
def freeze(target: str) -> None:
    """Stop learning; serving, feedback and measuring go on."""
    with operate.operating(target) as operator:
        operate.tell(operator, operator.freeze(), lambda s: f"learning is frozen at position {s['position']}, until `resume`")
