"""`riverdelta impression`: why a row had its score."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from riverdelta.definition import load
from riverdelta.home import Home
from riverdelta.impression import find
from riverdelta.settings import Settings


@click.command()
@click.argument("impression", metavar="ID.INDEX")
@click.option("--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def impression(impression: str, target: str, as_json: bool) -> None:
    """Show what the journal has of one scored row: its trace, the state that scored it, what it was made of, its label."""
    found = find(Home(load(target), Settings.load()), impression)
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
