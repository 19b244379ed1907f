"""The command line: `riverdelta …`, and the same commands as `bentoml riverdelta …`."""

from __future__ import annotations

import importlib
from typing import Any

import click

from riverdelta.core.errors import RiverdeltaError

#: Each command's module, which is imported when it is asked for, and what it does.
_COMMANDS = {
    "backup": ("operate", "Copy a service's folder while it runs."),
    "demo": ("demo", "Show the whole loop on MovieLens, or on the simulator."),
    "diff": ("show", "Show which coefficients changed between two releases."),
    "export": ("operate", "Write the merged model as one self-contained ONNX file."),
    "freeze": ("operate", "Stop learning."),
    "impression": ("show", "Show what the journal has of one scored row."),
    "inspect": ("show", "List an ONNX model's inputs, outputs and inner tensors."),
    "promote": ("operate", "Make a release the champion."),
    "rebase": ("rebase", "Carry what was learned to another stack or base."),
    "reference": ("reference", "Save what is usual in the base's training data."),
    "releases": ("operate", "List the releases, and what became of their trials."),
    "replay": ("replay", "Learn a data set, or a service's journal, without a server."),
    "resume": ("operate", "Learn again, and close the breaker."),
    "rollback": ("operate", "Serve an earlier release again."),
    "rotate-key": ("operate", "Make a new key for impression ids."),
    "sidecar": ("sidecar", "Run the learner of a service."),
}


class Commands(click.Group):
    """Loads a command on demand, and shows our own errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's file."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"riverdelta.cli.{_COMMANDS[cmd_name][0]}")
        return next(v for v in vars(module).values() if isinstance(v, click.Command) and v.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn an error that we raise on purpose into a message and exit code 1."""
        try:
            return super().invoke(ctx)
        except RiverdeltaError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "onnxscript"):
                raise
            raise click.ClickException(
                f"{error.name} is not installed; it trains and exports the base here: pip install 'riverdelta[train]'"
            ) from error


@click.group(name="riverdelta", cls=Commands)
@click.version_option(package_name="riverdelta")
def main() -> None:
    """Keep a frozen ONNX scorer learning from its users' feedback."""
