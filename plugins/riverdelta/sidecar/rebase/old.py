"""Old home: whose it is, and how much of what its journal says the new scorer can use as it is."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

from riverdelta.core.errors import Corrupt, InvalidInput, NotFound, Refused
from riverdelta.core.losses import LOG_LOSS
from riverdelta.graph.files import base_digest, origins
from riverdelta.learning.definition import Definition
from riverdelta.learning.identity import describe
from riverdelta.storage.home import Home, rebase_line, stored_in
from riverdelta.storage.registry import FolderRegistry, Release, ReleaseStore


def check(old: Path, home: Home) -> None:
    """Raise `NotFound` where `old` is not a home, and `InvalidInput` where `home` is there already; both name the next line."""
    new = home.folder
    if not (old / "releases" / "index.json").is_file():
        inside = sorted(str(path.parents[1]) for path in old.glob("*/releases/index.json"))
        which = f"; name one of its folders: --from {' or '.join(inside)}" if inside else "; name the folder that has journal/"
        raise NotFound(f"{old} is not the home of a scorer{which}")
    with suppress(FileNotFoundError, NotADirectoryError):
        if not any(new.iterdir()):  # of a service that was refused during a rebase
            return
    if not os.path.lexists(new):
        return
    aside = shlex.join(["mv", str(new), f"{new}.old"])
    if old.resolve() == new.resolve():
        line = rebase_line(home.definition, new.with_name(f"{new.name}.old"))
        raise InvalidInput(f"{old} is where the new home will be; stop its service, then type: {aside} && {line}")
    raise InvalidInput(f"{new} exists; move it away, or name another folder in RIVERDELTA_HOME: {aside}")


def usable(old: Path, definition: Definition, release: Release) -> tuple[bool, frozenset[str]]:
    """Return whether the journal's base outputs are those of this base, and its columns that mean something else now.

    `release` is one of the definition's. Raises `Refused` where the labels are those of another task.
    """
    was, mine = stored_in(old), describe(definition)
    task = was.task if was else repr(LOG_LOSS)
    if task != mine.task:
        raise Refused(
            f"{old} learned the task {task}, and this scorer has {mine.task}: labels of one say nothing of the other; "
            f"serve it from a home of its own: export RIVERDELTA_HOME=FOLDER"
        )
    if was is None:
        return _read_alike(old, definition, release)
    changed = frozenset(name for name in definition.kept if was.source(name) != mine.source(name))
    return (was.base.digest, was.output) == (mine.base.digest, mine.output), changed


def _read_alike(old: Path, definition: Definition, release: Release) -> tuple[bool, frozenset[str]]:
    """Return the same of a home that stored no definition, as in version 0.1: its releases have what it read of the base."""
    mine, output = origins(release.path), f"base_{definition.loss.raw}"
    with suppress(Corrupt):
        for theirs in reversed(ReleaseStore(FolderRegistry(old)).all()):
            with suppress(Corrupt):
                was, same = origins(theirs.path), base_digest(theirs.path) == definition.signature.digest
                changed = frozenset(name for name in definition.kept if was.get(name) != mine.get(name))
                return same and was.get(output) == mine[output], changed
    return False, frozenset(definition.taps)
