"""Old home: whether it can be carried over, and which of its columns and outputs the new scorer can use."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from riverdelta.core.errors import Corrupt, InvalidInput, NotFound, Refused
from riverdelta.learning.definition import Definition
from riverdelta.learning.identity import describe, read
from riverdelta.storage.home import OWNED_BY


def check(old: Path, new: Path, definition: Definition) -> None:
    """Raise `NotFound` if `old` is not a home, and `InvalidInput` if `new` exists; both give the next line to type."""
    if not (old / "releases" / "index.json").is_file():
        inside = sorted(str(path.parents[1]) for path in old.glob("*/releases/index.json"))
        which = f"; give one of its folders: --from {' or '.join(inside)}" if inside else "; give the folder that has journal/"
        raise NotFound(f"{old} is not the home of a scorer{which}")
    if not os.path.lexists(new):
        return
    aside = shlex.join(["mv", str(new), f"{new}.old"])
    if old.resolve() == new.resolve():
        line = command(definition, f"{new}.old")
        raise InvalidInput(f"{old} is also the path of the new home; stop its service, then type: {aside} && {line}")
    raise InvalidInput(f"{new} already exists; move it away, or set RIVERDELTA_HOME to another folder: {aside}")


def command(definition: Definition, old: Path | str) -> str:
    """Return the command line that carries a home over."""
    return shlex.join(["riverdelta", "rebase", "--service", definition.service, "--from", str(old)])


def usable(old: Path, definition: Definition) -> tuple[bool, frozenset[str]]:
    """Return whether the journal's base outputs are those of this base, and its columns that have changed their meaning.

    Raises `Refused` if the labels belong to another task.
    """
    path, owner = (old / name for name in OWNED_BY)
    if not path.exists():  # version 0.1 kept only a fingerprint
        kept = owner.read_text(errors="replace") if owner.exists() else ""
        return kept[:16] == definition.signature.digest[:16], frozenset()
    try:
        was, mine = read(path.read_bytes()), describe(definition)
    except Corrupt as error:
        raise Corrupt(f"{path} is damaged: {error}; restore it from a backup") from error
    if was.task != mine.task:
        raise Refused(
            f"{old} has labels of the task {was.task}, and this scorer has the task {mine.task}: they cannot be learned; "
            f"give it a home of its own: export RIVERDELTA_HOME=FOLDER"
        )
    changed = frozenset(name for name in definition.kept if was.source(name) != mine.source(name))
    return (was.base.digest, was.output) == (mine.base.digest, mine.output), changed
