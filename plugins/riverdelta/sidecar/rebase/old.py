"""Old home: whether it can be carried over, and which of its columns and outputs the new scorer can use."""

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
    """Raise `NotFound` if `old` is not a home, and `InvalidInput` if `home` exists; both give the next line to type."""
    new = home.folder
    if not (old / "releases" / "index.json").is_file():
        inside = sorted(str(path.parents[1]) for path in old.glob("*/releases/index.json"))
        which = f"; give one of its folders: --from {' or '.join(inside)}" if inside else "; give the folder that has journal/"
        raise NotFound(f"{old} is not the home of a scorer{which}")
    with suppress(FileNotFoundError, NotADirectoryError):
        if not any(new.iterdir()):  # left by a service that was refused during a rebase
            return
    if not os.path.lexists(new):
        return
    aside = shlex.join(["mv", str(new), f"{new}.old"])
    if old.resolve() == new.resolve():
        line = rebase_line(home.definition, new.with_name(f"{new.name}.old"))
        raise InvalidInput(f"{old} is also the path of the new home; stop its service, then type: {aside} && {line}")
    raise InvalidInput(f"{new} already exists; move it away, or set RIVERDELTA_HOME to another folder: {aside}")


def usable(old: Path, definition: Definition, release: Release) -> tuple[bool, frozenset[str]]:
    """Return whether the journal's base outputs are those of this base, and its columns that have changed their meaning.

    `release` is one of the definition's. Raises `Refused` if the labels belong to another task.
    """
    was, mine = stored_in(old), describe(definition)
    task = was.task if was else repr(LOG_LOSS)
    if task != mine.task:
        raise Refused(
            f"{old} has labels of the task {task}, and this scorer has the task {mine.task}: they cannot be learned; "
            f"give it a home of its own: export RIVERDELTA_HOME=FOLDER"
        )
    if was is None:
        return _read_alike(old, definition, release)
    changed = frozenset(name for name in definition.kept if was.source(name) != mine.source(name))
    return (was.base.digest, was.output) == (mine.base.digest, mine.output), changed


def _read_alike(old: Path, definition: Definition, release: Release) -> tuple[bool, frozenset[str]]:
    """Return the same for a home without a stored definition, as of version 0.1: its releases show what it read of the base."""
    mine, output = origins(release.path), f"base_{definition.loss.raw}"
    with suppress(Corrupt):
        for theirs in reversed(ReleaseStore(FolderRegistry(old)).all()):
            with suppress(Corrupt):
                was, same = origins(theirs.path), base_digest(theirs.path) == definition.signature.digest
                changed = frozenset(name for name in definition.kept if was.get(name) != mine.get(name))
                return same and was.get(output) == mine[output], changed
    return False, frozenset(definition.taps)
