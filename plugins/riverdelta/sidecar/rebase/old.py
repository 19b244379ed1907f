"""Old home: whose it is, and how much of what its journal says the new scorer can use as it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from riverdelta.core.errors import InvalidInput, NotFound
from riverdelta.learning.definition import Definition


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


def same_base(old: Path, definition: Definition) -> bool:
    """Return whether the journal's base outputs are those of the definition's base."""
    owner = old / "owner"
    return owner.exists() and owner.read_text(errors="replace")[:16] == definition.signature.digest[:16]
