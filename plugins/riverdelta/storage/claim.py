"""Claim: decides whether a folder that has learned belongs to a definition, and prints the ways out if it does not."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from riverdelta.core.arrays import part
from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.graph.files import origins, provenance
from riverdelta.learning.definition import Definition
from riverdelta.learning.identity import Identity, read
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.journal import Reader
from riverdelta.storage.registry import FolderRegistry, ReleaseStore

_log = logging.getLogger(__name__)
#: The file of a home's definition, and that of earlier versions, which had only its fingerprint.
OWNED_BY = ("definition.json", "owner")
#: The format of `Definition.fingerprint_of_0_1`; anything else in `owner` is damage.
_FINGERPRINT = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")


def stored_in(folder: Path) -> Identity | None:
    """Return the definition of the home in a folder; None if it has none yet.

    Raises `Corrupt` if the file is damaged, and `ConfigurationError` if a later version wrote it.
    """
    path = folder / OWNED_BY[0]
    try:
        return read(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error
    except Corrupt as error:
        raise Corrupt(
            f"{path} is damaged: {error}; restore it from a backup, or delete it; the next start writes it again "
            f"if the newest release belongs to this scorer: {shlex.join(['rm', str(path)])}"
        ) from error


def rebase_line(definition: Definition, old: Path) -> str:
    """Return the line that carries over what the home in `old` has learned."""
    return shlex.join(["riverdelta", "rebase", "--service", definition.service, "--from", str(old)])


def ways_out(folder: Path, definition: Definition, lacks: Sequence[str] = ()) -> str:
    """Return the lines to type if the definition of the home in a folder was changed on purpose.

    `lacks` are the columns that it needs and that the journal does not keep.
    """
    aside = move_away(folder)
    carry = f"{aside} && {rebase_line(definition, away(folder))}"
    if lacks:
        carry += " --log rows.parquet --label clicked"
    why = f"the journal does not keep {', '.join(lacks)}, which this definition needs: a log must have it\n" if lacks else ""
    return f"{why}to carry over what it learned, once no service uses it: {carry}\nto start over: {aside}"


def move_away(folder: Path) -> str:
    """Return the line that moves a folder to an unused path beside it."""
    return shlex.join(["mv", str(folder), str(away(folder))])


def recognize(folder: Path, definition: Definition, releases: ReleaseStore) -> None:
    """Raise `ConfigurationError` unless a folder without `definition.json` can be this definition's.

    Its file `owner` shows that, or its newest release; outputs and taps are in the releases alone.
    """
    owner, mine = folder / OWNED_BY[1], definition.fingerprint_of_0_1()
    theirs = owner.read_text(errors="replace") if owner.exists() else ""
    if theirs != mine and _FINGERPRINT.fullmatch(theirs):
        same = theirs.partition("-")[0] == mine.partition("-")[0]
        raise ConfigurationError(
            f"{folder} learned with {'other corrections' if same else 'another base'}: its file 'owner', from an "
            f"earlier version, has {theirs}; this definition has {mine}\n{ways_out(folder, definition)}"
        )
    if theirs != mine:
        _recognize_release(folder, definition, releases)
    same_output, changed = reads_of_base(folder, definition) or (True, frozenset())
    moved = sorted(changed & {*definition.new_stack().reads})
    if not same_output or moved:
        what = f"the tap {moved[0]!r}" if moved else "the corrected output"
        raise ConfigurationError(
            f"{folder} learned with another definition: {what} comes from another tensor of the base in its newest release\n"
            f"{ways_out(folder, definition)}"
        )


def reads_of_base(folder: Path, definition: Definition) -> tuple[bool, frozenset[str]] | None:
    """Return whether the newest readable release has this base and output, and the columns that come from another tensor.

    None if no release can be read.
    """
    mine = origins(definition.merge(definition.new_stack()))
    output = f"base_{definition.loss.raw}"
    for release in reversed(ReleaseStore(FolderRegistry(folder)).all()):
        try:
            was, same = origins(release.path), provenance(release.path)["base_digest"] == definition.signature.digest
        except Corrupt:
            continue
        changed = frozenset(name for name in definition.journal if was.get(name) != mine.get(name))
        return same and was.get(output) == mine[output], changed
    return None


def refuse_another_mode(folder: Path, journal: Reader, labels: str) -> None:
    """Raise `ConfigurationError` if a home of version 0.1 was served with another label mode.

    It wrote no settings; only with `silence` did it write ticks.
    """
    saved = CheckpointStore(FolderRegistry(folder)).oldest()
    was = "silence" if journal.log.fact("tick") else "explicit" if saved else labels
    if was != labels:
        raise ConfigurationError(
            f"{folder} was written by version 0.1 with RIVERDELTA_LABELS={was}, now it is {labels}; "
            f"start it once with the labels and window that it had, which are then recorded, and change them afterwards"
        )


def _recognize_release(folder: Path, definition: Definition, releases: ReleaseStore) -> None:
    why = f"{folder / OWNED_BY[0]} is missing"
    found = releases.restorable()
    if found is None:
        raise ConfigurationError(
            f"{why}, and no release can be read to identify {folder}; if it belongs to this scorer, type: "
            f"printf %s {definition.fingerprint_of_0_1()} > {shlex.quote(str(folder / OWNED_BY[1]))}"
        )
    try:
        if provenance(found.path)["base_digest"] != definition.signature.digest:
            raise Corrupt(f"release {found.number} has another base model")
        definition.new_stack().load(part(releases.state(found), "stack"))
    except Corrupt as error:
        raise ConfigurationError(
            f"{why}, and {folder} does not belong to this scorer: {error}; set RIVERDELTA_HOME to another folder, "
            f"or start over: {move_away(folder)}"
        ) from None
    _log.warning(
        "%s; release %d has this base and this stack's tables, so the file is written again; options that tables do not show, "
        "such as a rate, cannot be checked: if one was changed, restore the file from a backup",
        why,
        found.number,
    )


def away(folder: Path) -> Path:
    """Return an unused path beside a folder, to which it can be moved."""
    names = (f"{folder.name}.old{n}" for n in chain([""], count(2)))
    return next(path for path in map(folder.with_name, names) if not os.path.lexists(path))
