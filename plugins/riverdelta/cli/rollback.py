"""`riverdelta rollback`: serve an earlier release again."""

from __future__ import annotations

import click

from riverdelta.cli import operate


@click.command()
@operate.service
@click.argument("release", type=int, required=False)
@click.option("--relearn", is_flag=True, help="Learn the examples since that release again.")
@click.option("--freeze", is_flag=True, help="Learn nothing more until `riverdelta resume`.")
@operate.as_json
def rollback(target: str, release: int | None, relearn: bool, freeze: bool, as_json: bool) -> None:
    """Serve RELEASE again (the champion by default) and learn on from it; the examples since are un-learned."""
    with operate.operating(target) as operator:
        sequence = operator.rollback(release, relearn, freeze)

        def said(status: dict[str, object]) -> str:
            then = "learning is frozen, until `resume`" if status["frozen"] else "learning goes on from it"
            return f"release {status['release']} serves again as {status['release']}+{status['swap']}; {then}"

        operate.tell(operator, sequence, said, as_json)
