"""`riverdelta diff`: what was learned between two releases."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from riverdelta.cli import operate
from riverdelta.sidecar.diff import TOP, Change, Diff, diff, parse_ids


@click.command(name="diff")
@operate.service
@click.argument("a", type=int)
@click.argument("b", type=int)
@click.option("--top", type=click.IntRange(1), default=TOP, show_default=True, help="How many changes to show.")
@click.option("--id", "ids", multiple=True, metavar="COLUMN=VALUE", help="Show the coefficients of this id alone.")
@operate.as_json
def diff_command(target: str, a: int, b: int, top: int, ids: tuple[str, ...], as_json: bool) -> None:
    """Show the coefficients that changed most from release A to release B, in logits.

    Ids share slots by hashing and cannot be had back: name one with --id user_id=42, or --id name='"42"' where it is text.
    """
    with operate.operating(target) as operator:
        definition = operator.home.definition
        found = diff(definition, operator.home.releases(), a, b, top, parse_ids(ids, definition.schema))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    console = Console()
    console.print(_table(found))
    console.print(
        f"from release {a} to release {b}, {found.examples:+,} examples; changed: {_turnover(found)}", highlight=False
    )


def _table(found: Diff) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("correction", "table", "feature", "of", "before", "after", "logits"):
        table.add_column(heading, justify="left" if heading in ("correction", "table", "feature", "of") else "right")
    for change in found.changes:
        logits = "-" if change.logits is None else f"{change.logits:+.4f}"
        table.add_row(
            change.correction,
            change.table,
            change.feature,
            _whose(change),
            *map(_number, (change.before, change.after)),
            logits,
        )
    return table


def _whose(change: Change) -> str:
    return change.id or ("" if change.slot is None else f"slot {change.slot}")


def _turnover(found: Diff) -> str:
    return (
        ", ".join(f"{t.correction}/{t.table} {t.changed:,} of {t.coefficients:,}" for t in found.tables) or "nothing to change"
    )


def _number(value: float) -> str:
    return f"{value:.4f}"
