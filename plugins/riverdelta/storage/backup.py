"""Backup: a consistent copy of a home that is being served."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from riverdelta.core.durable import place
from riverdelta.core.errors import InvalidInput, Unavailable
from riverdelta.core.locks import shared
from riverdelta.storage.claim import OWNED_BY
from riverdelta.storage.home import Home
from riverdelta.storage.journal.ids import copy_keys
from riverdelta.storage.log.segment import Segment
from riverdelta.storage.log.segments import COPYING
from riverdelta.storage.origin import FILE
from riverdelta.storage.registry import FolderRegistry, ReleaseStore


@dataclass(frozen=True)
class Backup:
    """A copy of a home: its folder, the newest record of its journal, and its size in bytes."""

    folder: Path
    last: int
    bytes: int


def back_up(home: Home, destination: Path) -> Backup:
    """Copy a home, in service or not, to the new folder `destination`, which appears complete and durable or not at all.

    Restored, the copy starts as the home would have after a crash at this moment: nothing accepted before is missing. Raises
    `NotFound` if there is no home, `InvalidInput` if the destination exists, and `Unavailable` or `Corrupt`, naming the file,
    if something cannot be copied; nothing is left behind then.

    Notes: each part is copied before the parts it refers to. Checkpoints refer to releases, by the trial that they contain;
    live tables too; all of them refer to the journal, by position. So the journal is copied last and reaches at least as far
    as the rest, which the learner reads again as after a crash; the keys of ids come after it. Retention waits during the
    copy, or the journal might begin too late.
    """
    folder, journal = home.folder, home.key_path.parent
    home.require()
    if folder.resolve() in destination.absolute().resolve().parents:
        raise InvalidInput(f"{destination} is inside {folder}, the home to copy; name a folder elsewhere")
    if os.path.lexists(destination):
        raise InvalidInput(f"{destination} exists; name a folder that does not exist yet")
    try:
        with TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as private, shared(journal / COPYING):
            copy = Path(private) / destination.name
            copy.mkdir(mode=0o700)
            for name in ("checkpoints", "live", "releases"):
                _copy(folder / name, copy / name)
            for name in (*OWNED_BY, FILE):
                with suppress(FileNotFoundError):
                    shutil.copyfile(folder / name, copy / name)
            last = copy_journal(journal, copy / "journal")
            place(copy, destination)
    except OSError as error:
        raise Unavailable(
            f"{folder} cannot be copied to {destination}: {error}; check that this file can be used, that the disk has room, "
            f"and that {destination.parent} exists and is writable"
        ) from error
    return Backup(destination, last, sum(path.stat().st_size for path in destination.rglob("*") if path.is_file()))


def copy_journal(journal: Path, destination: Path) -> int:
    """Copy a journal, served or not, and the keys of its ids to the new folder `destination`; return its newest position.

    Retention waits meanwhile.
    """
    with shared(journal / COPYING):
        last = _copy_log(journal, destination)
        copy_keys(journal / "key", destination / "key")
    return last


def _files(source: Path, copy: Path) -> Iterator[str]:
    """Yield the names of a part's files in copying order: files that refer to others come first."""
    if source.name == "releases":
        yield from ("index.copy.json", "index.json")
        # Without an index, the releases are those that the home's files show, and the copy is rebuilt from them too.
        releases = ReleaseStore(FolderRegistry(copy.parent)).all() or ReleaseStore(FolderRegistry(source.parent)).all()
        yield from {name for release in releases for name in release.shared}
        for release in releases:
            yield from (release.path.name, release.state_path.name)
    else:
        # The files are listed after the head of the live tables is copied: everything it refers to existed before it.
        yield from ("head",) if source.name == "live" else ()
        yield from sorted(path.name for pattern in ("*.live", "*.checkpoint") for path in source.glob(pattern))


def _copy(source: Path, copy: Path) -> None:
    """Copy the files of a folder, and retry if one was deleted meanwhile; a file missing twice is missing in the home too."""
    missing, before = _copied(source, copy), list[str]()
    while missing and missing != before:
        shutil.rmtree(copy)
        missing, before = _copied(source, copy), missing


def _copied(source: Path, copy: Path) -> list[str]:
    copy.mkdir(parents=True)
    missing = []
    for name in _files(source, copy):
        try:
            shutil.copyfile(source / name, copy / name)
        except FileNotFoundError:
            missing.append(name)
    return missing


def _copy_log(folder: Path, destination: Path) -> int:
    """Copy the log in `folder`, which has a segment, to a new folder; return its newest sequence number.

    The copy has every record that existed when this was called, without gaps: segments come oldest first, new ones included,
    each as it is at one moment, and the first that accepts writes at its moment ends the copy.
    """
    destination.mkdir()
    last = 0
    for number in count(min(int(path.stem) for path in folder.glob("[0-9]*.sqlite"))):
        name = f"{number:06d}.sqlite"
        if not (folder / name).exists():
            break
        with closing(Segment(folder / name)) as segment:
            segment.back_up(destination / name)
            written = segment.written()
        with closing(Segment(destination / name)) as copied:
            last, sealed = copied.last(), copied.sealed
        # Retention goes by it: what a copy holds is not kept for longer.
        os.utime(destination / name, (written, written))
        if not sealed:
            break
    return last
