"""Copying: the files of a `SqliteLog` as they were at one moment, while others write to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from riverdelta.storage.log.segment import Segment


def copy_log(folder: Path, destination: Path) -> int:
    """Copy the log in `folder`, which has a segment, to the new folder `destination`; return its newest sequence number.

    The copy has every record that was there when this was called, and no gap: segments come oldest first, each as it is at
    one moment, and the first that takes writes then ends the copy. Who holds the lock on `COPYING` meanwhile keeps
    retention from deleting what is yet to be copied.
    """
    destination.mkdir()
    last = 0
    for path in _segments(folder):
        target = destination / path.name
        with closing(Segment(path)) as segment:
            segment.back_up(target)
        with closing(Segment(target)) as copied:
            last = copied.last()
            if not copied.sealed:
                break
    return last


def _segments(folder: Path) -> Iterator[Path]:
    """Yield the segments in order, also those that are made meanwhile."""
    number = min(int(path.stem) for path in folder.glob("[0-9]*.sqlite"))
    while (path := folder / f"{number:06d}.sqlite").exists():
        yield path
        number += 1
