"""`riverdelta rotate-key`: make a new key for impression ids."""

from __future__ import annotations

import time

import click

from riverdelta.definition import load
from riverdelta.home import Home
from riverdelta.journal.ids import load_key, rotate_key
from riverdelta.settings import Settings


@click.command(name="rotate-key")
@click.option("--service", "target", required=True, metavar="MODULE:CLASS", help="The scorer, as in service.py:Ranker.")
def rotate_key_command(target: str) -> None:
    """Make a new key for impression ids; workers take it up within a second, and ids of the last key stay valid for a while."""
    settings = Settings.load()
    path = Home(load(target), settings).key_path
    load_key(path)
    rotate_key(path, time.time(), settings.key_window_seconds)
    days = settings.key_window_seconds / 86_400
    click.echo(f"{path} is new; ids of the last key are accepted for {days:g} days (RIVERDELTA_KEY_WINDOW_SECONDS)")
