"""`riverdelta export`: the merged model for anyone else."""

from __future__ import annotations

from pathlib import Path

import click

from riverdelta.definition import load
from riverdelta.errors import NotFound
from riverdelta.graph.files import export_single
from riverdelta.home import Home
from riverdelta.settings import Settings


@click.command()
@click.option("--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker.")
@click.option("--release", type=int, help="The release; the newest that is whole by default.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("merged.onnx"), show_default=True)
def export(target: str, release: int | None, output: Path) -> None:
    """Write a release as one self-contained ONNX file that any runtime runs."""
    releases = Home(load(target), Settings.load()).releases()
    found = releases.get(release) if release is not None else releases.newest_good()
    if found is None:
        raise NotFound(f"there is no release in {releases.folder} yet; start the service once, or check RIVERDELTA_HOME")
    export_single(found.verify(), output)
    click.echo(f"{output}: release {found.number}, {found.examples:,} examples learned, {output.stat().st_size:,} bytes")
