"""Old home: whose it is, and how much of what its journal says the new scorer can use as it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from riverdelta.core.errors import Corrupt, InvalidInput, NotFound, Refused
from riverdelta.learning.definition import Definition
from riverdelta.learning.identity import describe, read
from riverdelta.storage.home import OWNED_BY


def check(old: Path, new: Path, definition: Definition) -> None:
    """Raise `NotFound` where `old` is not a home, and `InvalidInput` where `new` is there already; both name the next line."""
    if not (old / "releases" / "index.json").is_file():
        inside = sorted(str(path.parents[1]) for path in old.glob("*/releases/index.json"))
        which = f"; name one of its folders: --from {' or '.join(inside)}" if inside else "; name the folder that has journal/"
        raise NotFound(f"{old} is not the home of a scorer{which}")
    if not os.path.lexists(new):
        return
    aside = shlex.join(["mv", str(new), f"{new}.old"])
    if old.resolve() == new.resolve():
        line = command(definition, f"{new}.old")
        raise InvalidInput(f"{old} is where the new home will be; stop its service, then type: {aside} && {line}")
    raise InvalidInput(f"{new} exists; move it away, or name another folder in RIVERDELTA_HOME: {aside}")


def command(definition: Definition, old: Path | str) -> str:
    """Return the line that carries a home over."""
    return shlex.join(["riverdelta", "rebase", "--service", definition.service, "--from", str(old)])


def usable(old: Path, definition: Definition) -> tuple[bool, frozenset[str]]:
    """Return whether the journal's base outputs are those of this base, and its columns that mean something else now.

    Raises `Refused` where the labels are those of another task.
    """
    path, owner = (old / name for name in OWNED_BY)
    if not path.exists():  # of an earlier version, which kept a fingerprint alone
        kept = owner.read_text(errors="replace") if owner.exists() else ""
        return kept[:16] == definition.signature.digest[:16], frozenset()
    try:
        was, mine = read(path.read_bytes()), describe(definition)
    except Corrupt as error:
        raise Corrupt(f"{path} is damaged: {error}; restore it from a backup") from error
    if was.task != mine.task:
        raise Refused(
            f"{old} learned the task {was.task}, and this scorer has {mine.task}: labels of one say nothing of the other; "
            f"serve it from a home of its own: export RIVERDELTA_HOME=FOLDER"
        )
    changed = frozenset(name for name in definition.kept if was.source(name) != mine.source(name))
    return (was.base.digest, was.output) == (mine.base.digest, mine.output), changed
