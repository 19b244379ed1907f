"""`riverdelta impression`: why a row had its score."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from riverdelta.cli import operate
from riverdelta.storage.impression import find


@click.command()
@click.argument("impression", metavar="ID.INDEX")
@operate.service
@operate.as_json
def impression(impression: str, target: str, as_json: bool) -> None:
    """Show what the journal has of one scored row: its trace, the state that scored it, what it was made of, its label."""
    found = find(operate.home_of(target), impression)
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
