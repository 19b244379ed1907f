"""The command line: `riverdelta …`, and the same commands as `bentoml riverdelta …`."""

from __future__ import annotations

import importlib
from typing import Any

import click

from riverdelta.core.errors import RiverdeltaError

#: Each command lies in the file of its name; it is imported when it is asked for.
_COMMANDS = {
    "backup": "Copy a service's folder while it runs.",
    "demo": "Show the whole loop on MovieLens, or on the simulator.",
    "diff": "Show which coefficients changed between two releases.",
    "export": "Write the merged model as one self-contained ONNX file.",
    "freeze": "Stop learning.",
    "impression": "Show what the journal has of one scored row.",
    "inspect": "List an ONNX model's inputs, outputs and inner tensors.",
    "promote": "Make a release the champion.",
    "reference": "Save what is usual in the base's training data.",
    "releases": "List the releases, and what became of their trials.",
    "replay": "Learn a data set, or a service's journal, without a server.",
    "resume": "Learn again, and close the breaker.",
    "rollback": "Serve an earlier release again.",
    "rotate-key": "Make a new key for impression ids.",
    "sidecar": "Run the learner of a service.",
}


class Commands(click.Group):
    """Loads a command on demand, and shows our own errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's file."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"riverdelta.cli.{cmd_name.replace('-', '_')}")
        found = [value for value in vars(module).values() if isinstance(value, click.Command) and value.name == cmd_name]
        return found[0]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))

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
