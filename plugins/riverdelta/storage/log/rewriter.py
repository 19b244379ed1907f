"""Rewriter: replaces records in a copy of a log that no process uses."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from riverdelta.storage.log.base import Entry, Request
from riverdelta.storage.log.segment import Segment


class Rewriter:
    """Replaces records of the log in `folder`; positions, facts and the index of feedback do not change."""

    def __init__(self, folder: Path) -> None:
        self._segments = [Segment(path) for path in sorted(folder.glob("[0-9]*.sqlite"))]
        #: The times of their last writes, which retention reads: they are restored at the end.
        self._written = [segment.written() for segment in self._segments]

    def write(self, entries: Mapping[int, Entry], forgotten: Collection[Request]) -> None:
        """Replace the records at these positions by `entries`, durably.

        The rows of `forgotten`, the first request of each record, can no longer be found by their ids.
        """
        for segment in self._segments:
            mine = {at: entry for at, entry in entries.items() if segment.first <= at <= segment.last()}
            if mine:
                with segment.transaction():
                    for at, entry in mine.items():
                        segment.replace(at, entry)
                    for request in forgotten:
                        segment.forget(*request)

    def close(self) -> None:
        """Merge the write-ahead log into each file and close it; no other process may have it open."""
        for segment, written in zip(self._segments, self._written, strict=True):
            segment.settle()
            segment.close()
            os.utime(segment.path, (written, written))
