"""`riverdelta releases`: what there is to go back to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from riverdelta.cli import operate


@click.command()
@operate.service
@operate.as_json
def releases(target: str, as_json: bool) -> None:
    """List the releases: their losses, what became of their trials, and which one serves."""
    with operate.operating(target) as operator:
        rows = operator.releases()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    caption = "base, served: log loss in nats a row; gain: on the champion, in the trial"
    table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
    for heading in ("release", "made (UTC)", "examples", "base", "served", "gain", "verdict", "MiB", ""):
        table.add_column(heading, justify="left" if heading in ("made (UTC)", "verdict", "") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["release"]),
            datetime.fromtimestamp(row["time"], UTC).strftime("%m-%d %H:%M"),
            f"{row['examples']:,}",
            *(_number(row[name]) for name in ("log_loss_base", "log_loss_served", "gain_on_champion")),
            row["verdict"] or "-",
            f"{row['bytes'] / 2**20:.1f}",
            ", ".join(name for name in ("champion", "serving") if row[name]),
        )
    Console().print(table)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
