"""Old home: whether it can be carried over, and which of its columns and outputs the new scorer can use."""

from __future__ import annotations

import logging
import os
from contextlib import closing, suppress
from pathlib import Path

from riverdelta.core.errors import InvalidInput, NotFound, Refused
from riverdelta.core.losses import LOG_LOSS
from riverdelta.graph.features import RAW
from riverdelta.learning.definition import Definition
from riverdelta.learning.differences import differences
from riverdelta.learning.identity import beyond_reach, describe
from riverdelta.storage.claim import away, move_away, reads_of_base, rebase_line, refuse_another_mode, stored_in
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Reader
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import FolderRegistry, ReleaseStore

_log = logging.getLogger(__name__)


def check(old: Path, home: Home) -> None:
    """Raise an error with the next line to type if `old` cannot be carried over, or if `home` exists or is inside it.

    That is `NotFound` or `Refused` for a folder that is not a home with a journal and a key, `ConfigurationError` for a home
    of version 0.1 that had another label mode, and `InvalidInput` for a wrong place.
    """
    check_place(old, home)
    journal = old / "journal"
    if not any(journal.glob("[0-9]*.sqlite")):
        raise Refused(f"{journal} has no records: there is nothing to carry over; restore it from a backup")
    if not (journal / "key").is_file():
        raise Refused(
            f"{journal / 'key'} is missing, without which the ids that were issued before would be refused; restore it from a "
            f"backup, or start the old service once, which makes another key"
        )
    with closing(Reader(SqliteLog(journal))) as reader:
        if not reader.settings():
            refuse_another_mode(old, reader, home.settings.labels)


def check_place(old: Path, home: Home) -> None:
    """Raise `NotFound` if `old` is not a home, and `InvalidInput` if `home` exists or is inside it."""
    new = home.folder
    if not ReleaseStore(FolderRegistry(old)).all():
        inside = sorted(str(path.parent) for path in old.glob("*/releases") if path.is_dir())
        which = f"; give one of its folders: --from {' or '.join(inside)}" if inside else "; give the folder that has journal/"
        raise NotFound(f"{old} is not the home of a scorer{which}")
    if old.resolve() in new.resolve().parents:
        raise InvalidInput(f"{new} is inside {old}, the home to carry over; set RIVERDELTA_HOME to a folder outside it")
    with suppress(FileNotFoundError, NotADirectoryError):
        if not any(new.iterdir()):  # left by a service that was refused during a rebase
            return
    if not os.path.lexists(new):
        return
    aside = move_away(new)
    if old.resolve() == new.resolve():
        line = rebase_line(home.definition, away(new))
        raise InvalidInput(f"{old} is also the path of the new home; stop its service, then type: {aside} && {line}")
    raise InvalidInput(f"{new} already exists; move it away, or set RIVERDELTA_HOME to another folder: {aside}")


def usable(old: Path, definition: Definition) -> tuple[bool, frozenset[str]]:
    """Return whether the journal's base outputs are those of this base, and its columns that have changed their meaning.

    A column that is sent as before and read in another way has changed, and its name after `RAW` has not.

    Raises `Refused` if the labels belong to another task.
    """
    was, mine = stored_in(old), describe(definition)
    task = was.task if was else repr(LOG_LOSS)
    if task != mine.task:
        raise Refused(
            f"{old} has labels of the task {task}, and this scorer has the task {mine.task}: they cannot be learned; "
            f"give it a home of its own: export RIVERDELTA_HOME=FOLDER"
        )
    if was is None:
        return reads_of_base(old, definition) or (False, frozenset(definition.taps))
    if not differences(was, mine, beyond_reach(definition)):
        _log.warning("nothing that affects learning differs from the definition of %s: it can be served as it is", old)
    changed = {name for name in definition.journal if was.source(name) != mine.source(name)}
    changed |= {RAW + name for name in definition.request_schema if was.sent(name) != mine.sent(name)}
    return was.reads_of_base == mine.reads_of_base, frozenset(changed)
