"""`riverdelta inspect`: what a model takes, gives and computes on the way."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from riverdelta.graph.taps import list_tensors


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
