"""`riverdelta rotate-key`: make a new key for impression ids."""

from __future__ import annotations

import time

import click

from riverdelta.cli import operate
from riverdelta.storage.journal.ids import load_key, rotate_key


@click.command(name="rotate-key")
@operate.service
def rotate_key_command(target: str) -> None:
    """Make a new key for impression ids; workers take it up within a second, and ids of the last key stay valid for a while."""
    home = operate.home_of(target)
    path = home.key_path
    load_key(path)
    rotate_key(path, time.time(), home.settings.key_window_seconds)
    days = home.settings.key_window_seconds / 86_400
    click.echo(f"{path} is new; ids of the last key are accepted for {days:g} days (RIVERDELTA_KEY_WINDOW_SECONDS)")
