"""`riverdelta rollback`: serve an earlier release again."""

from __future__ import annotations

from typing import Any

import click

from riverdelta.cli import operate
from riverdelta.sidecar.operator import outcome_of


@click.command()
@operate.service
@click.argument("release", type=int, required=False)
@click.option("--relearn", is_flag=True, help="Learn the examples since that release again.")
@click.option("--freeze", is_flag=True, help="Learn nothing more until `riverdelta resume`.")
@click.option("--promote", is_flag=True, help="Make that release the champion, too.")
@operate.as_json
def rollback(target: str, release: int | None, relearn: bool, freeze: bool, promote: bool, as_json: bool) -> None:
    """Serve RELEASE again (the champion by default) and learn on from it; the examples since are un-learned."""
    with operate.operating(target) as operator:
        sequence = operator.rollback(release, relearn, freeze, promote)

        def said(status: dict[str, Any]) -> str:
            number, state = (outcome_of(status, sequence) or {}).get("release"), f"{status['release']}+{status['swap']}"
            back = f"release {number} serves again as {state}"
            if status["release"] != number:
                back = f"learning went back to release {number}, and {state} serves now"
            then = "learning is frozen, until `resume`" if status["frozen"] else "learning goes on from it"
            return f"{back}; the champion is {status['champion']}; {then}"

        operate.tell(operator, sequence, said, as_json)
