"""The operator's commands: each finds the scorer's folder, and what changes learning is written into its journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from riverdelta.core.errors import Corrupt, Refused, Unavailable
from riverdelta.core.settings import Settings
from riverdelta.graph.files import export_single
from riverdelta.learning.commands import MOST_RELEASE, Command, Freeze, Promote, Resume, Rollback, RotateKey
from riverdelta.learning.definition import load
from riverdelta.sidecar.operator import Operator, outcome_of
from riverdelta.storage.backup import back_up
from riverdelta.storage.home import Home

#: The option that names the scorer; its folder is found by RIVERDELTA_HOME.
service = click.option(
    "--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker."
)
#: The option that asks for what a program reads.
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NUMBER = click.IntRange(0, MOST_RELEASE)


def home_of(target: str) -> Home:
    """Return the folder that a service of the scorer has made; raises `NotFound`, and makes nothing, where there is none."""
    home = Home(load(target), Settings.load())
    home.require()
    return home


@contextmanager
def operating(target: str) -> Iterator[Operator]:
    """Open the scorer's folder, beside a running service or without one; raises `NotFound` where there is none."""
    home = home_of(target)
    home.prepare()
    journal = home.journal()
    try:
        yield Operator(home, journal)
    finally:
        journal.close()


def _tell(target: str, as_json: bool, command: Command, said: Callable[[dict[str, Any], int], str]) -> None:
    """Write a command, wait for the learner, and print what came of it (`said` of its status and the command's position).

    Or that it waits; raises `Refused` where it was refused.
    """
    with operating(target) as operator:
        sequence, status = operator.ask(command), dict[str, Any]()
        waits: Unavailable | None = None
        try:
            status = operator.wait(sequence)
        except Unavailable as error:
            waits = error
        except Refused:
            if as_json:
                click.echo(json.dumps(operator.outcome(sequence), indent=1))
            raise
        if as_json:
            click.echo(json.dumps(operator.outcome(sequence, waits), indent=1))
        else:
            click.echo(said(status, sequence) if waits is None else f"written at position {sequence}; {waits}")


@click.command()
@service
@as_json
def freeze(target: str, as_json: bool) -> None:
    """Stop learning; serving, feedback and measuring go on."""
    _tell(target, as_json, Freeze(), lambda s, _: f"learning is frozen at position {s['position']}, until `resume`")


@click.command()
@service
@as_json
def resume(target: str, as_json: bool) -> None:
    """Learn again after a freeze, and close the breaker."""
    _tell(target, as_json, Resume(), lambda s, _: f"learning goes on from position {s['position']}")


@click.command()
@service
@click.argument("release", type=_NUMBER)
@as_json
def promote(target: str, release: int, as_json: bool) -> None:
    """Make RELEASE the champion, without waiting for its trial."""
    _tell(target, as_json, Promote(release=release), lambda s, _: f"release {s['champion']} is the champion")


@click.command()
@service
@click.argument("release", type=_NUMBER, required=False)
@click.option("--relearn", is_flag=True, help="Learn the examples since that release again.")
@click.option("--freeze", is_flag=True, help="Learn nothing more until `riverdelta resume`.")
@click.option("--promote", is_flag=True, help="Make that release the champion, too.")
@as_json
def rollback(target: str, release: int | None, relearn: bool, freeze: bool, promote: bool, as_json: bool) -> None:
    """Serve RELEASE again (the champion by default) and learn on from it; the examples since are un-learned."""

    def said(status: dict[str, Any], sequence: int) -> str:
        number, state = (outcome_of(status, sequence) or {}).get("release"), f"{status['release']}+{status['swap']}"
        back = f"release {number} serves again as {state}"
        if status["release"] != number:
            back = f"learning went back to release {number}, and {state} serves now"
        then = "learning is frozen, until `resume`" if status["frozen"] else "learning goes on from it"
        return f"{back}; the champion is {status['champion']}; {then}"

    _tell(target, as_json, Rollback(release=release, relearn=relearn, freeze=freeze, promote=promote), said)


@click.command()
@service
@as_json
def releases(target: str, as_json: bool) -> None:
    """List the releases: their losses, what became of their trials, and which one serves."""
    with operating(target) as operator:
        rows = operator.releases()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    caption = "base, served: log loss in nats a row; gain: on the champion, in the trial"
    table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
    for heading in ("release", "made (UTC)", "examples", "base", "served", "gain", "verdict", "MiB", ""):
        table.add_column(heading, justify="left" if heading in ("made (UTC)", "verdict", "") else "right", no_wrap=True)
    for row in rows:
        losses = (row[name] for name in ("log_loss_base", "log_loss_served", "gain_on_champion"))
        table.add_row(
            str(row["release"]),
            datetime.fromtimestamp(row["time"], UTC).strftime("%m-%d %H:%M"),
            f"{row['examples']:,}",
            *("-" if value is None else f"{value:.4f}" for value in losses),
            row["verdict"] or "-",
            f"{row['bytes'] / 2**20:.1f}",
            ", ".join(name for name in ("champion", "serving") if row[name]),
        )
    Console().print(table)


@click.command()
@service
@click.option("--release", type=int, help="The release; the newest that is intact by default.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("merged.onnx"), show_default=True)
def export(target: str, release: int | None, output: Path) -> None:
    """Write a release as one self-contained ONNX file that any runtime runs."""
    home = home_of(target)
    found = home.releases().get(release) if release is not None else home.releases().newest_good()
    if found is None:
        raise Corrupt(f"no release in {home.folder} is intact; restore one from a backup")
    export_single(found.verify(), output)
    click.echo(f"{output}: release {found.number}, {found.examples:,} examples learned, {output.stat().st_size:,} bytes")


@click.command()
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@service
def backup(destination: Path, target: str) -> None:
    """Copy the scorer's folder to DEST, which must not exist, while the service runs; DEST appears complete or not at all."""
    home = home_of(target)
    made = back_up(home, destination)
    here, there = quote(str(home.folder)), quote(str(made.folder))
    click.echo(f"{made.folder}: {made.bytes:,} bytes, the journal up to record {made.last}")
    click.echo(f"to restore it, stop the service, then: mv {here} {here}.old && cp -a {there} {here}")


@click.command()
@service
def rotate_key(target: str) -> None:
    """Make a new key for impression ids; workers take it up within a second, and ids of the last key stay valid for a while."""
    with operating(target) as operator:
        operator.ask(RotateKey())
    home = operator.home
    days = home.settings.key_window_seconds / 86_400
    click.echo(f"{home.key_path} is new; ids of the last key are accepted for {days:g} days (RIVERDELTA_KEY_WINDOW_SECONDS)")
