"""`riverdelta export`: the merged model for anyone else."""

from __future__ import annotations

from pathlib import Path

import click

from riverdelta.cli import operate
from riverdelta.core.errors import Corrupt
from riverdelta.graph.files import export_single


@click.command()
@operate.service
@click.option("--release", type=int, help="The release; the newest that is intact by default.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("merged.onnx"), show_default=True)
def export(target: str, release: int | None, output: Path) -> None:
    """Write a release as one self-contained ONNX file that any runtime runs."""
    releases = operate.home_of(target).releases()
    found = releases.get(release) if release is not None else releases.newest_good()
    if found is None:
        raise Corrupt(f"no release in {operate.home_of(target).folder} is intact; restore one from a backup")
    export_single(found.verify(), output)
    click.echo(f"{output}: release {found.number}, {found.examples:,} examples learned, {output.stat().st_size:,} bytes")
