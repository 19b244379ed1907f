"""Commands that only look: at a model's tensors, at what two releases learned apart, at one scored row."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from riverdelta.cli.operate import as_json, home_of, operating, service
from riverdelta.graph.taps import list_tensors
from riverdelta.sidecar.diff import TOP, diff, parse_ids
from riverdelta.storage.impression import find


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--taps", "only_taps", is_flag=True, help="Only the tensors that can be tapped.")
def inspect(model: Path, only_taps: bool) -> None:
    """List the tensors of an ONNX MODEL: inputs first, then what each node makes."""
    table = Table("tensor", "type", "made by", "tap", title=model.name, title_justify="left")
    for tensor in list_tensors(model):
        if tensor.tappable or not only_taps:
            table.add_row(tensor.name, tensor.type, tensor.producer, "yes" if tensor.tappable else "")
    Console().print(table)


@click.command(name="diff")
@service
@click.argument("a", type=int)
@click.argument("b", type=int)
@click.option("--top", type=click.IntRange(1), default=TOP, show_default=True, help="How many changes to show.")
@click.option("--id", "ids", multiple=True, metavar="COLUMN=VALUE", help="Show the coefficients of this id alone.")
@as_json
def diff_command(target: str, a: int, b: int, top: int, ids: tuple[str, ...], as_json: bool) -> None:
    """Show the coefficients that changed most from release A to release B, in logits.

    Ids share slots by hashing and cannot be had back: name one with --id user_id=42, or --id name='"42"' where it is text.
    """
    with operating(target) as operator:
        definition = operator.home.definition
        found = diff(definition, operator.home.releases(), a, b, top, parse_ids(ids, definition.schema))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("correction", "table", "feature", "of", "before", "after", "logits"):
        table.add_column(heading, justify="right" if heading in ("before", "after", "logits") else "left")
    for change in found.changes:
        whose = change.id or ("" if change.slot is None else f"slot {change.slot}")
        numbers = (f"{change.before:.4f}", f"{change.after:.4f}", "-" if change.logits is None else f"{change.logits:+.4f}")
        table.add_row(change.correction, change.table, change.feature, whose, *numbers)
    changed = ", ".join(f"{t.correction}/{t.table} {t.changed:,} of {t.coefficients:,}" for t in found.tables)
    console = Console()
    console.print(table)
    console.print(
        f"from release {a} to release {b}, {found.examples:+,} examples; changed: {changed or 'nothing to change'}",
        highlight=False,
    )


@click.command()
@click.argument("impression", metavar="ID.INDEX")
@service
@as_json
def impression(impression: str, target: str, as_json: bool) -> None:
    """Show what the journal has of one scored row: its trace, the state that scored it, what it was made of, its label."""
    found = find(home_of(target), impression)
    if as_json:
        click.echo(json.dumps(found))
        return
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name.replace('_', ' '):{width}}  {_text(name, value)}")


def _text(name: str, value: Any) -> str:
    if value is not None and name in ("time", "shown"):
        return datetime.fromtimestamp(value, UTC).isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, dict):
        return "  ".join(f"{key}={_short(part)}" for key, part in value.items())
    return _short(value)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
