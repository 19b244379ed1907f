"""Rewriter: other records in the places of a log's, in a copy that no process serves."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from riverdelta.storage.log.base import Entry, Request
from riverdelta.storage.log.segment import Segment


class Rewriter:
    """Replaces records of the log in `folder`: positions, facts and the index of feedback stay as they are."""

    def __init__(self, folder: Path) -> None:
        self._segments = [Segment(path) for path in sorted(folder.glob("[0-9]*.sqlite"))]
        #: When each was written to, by which retention goes: it stays.
        self._written = [segment.written() for segment in self._segments]

    def write(self, entries: Mapping[int, Entry], forgotten: Collection[Request]) -> None:
        """Put entries in the places of the records at their positions, durably.

        `forgotten` are the first requests of the records whose rows are no longer to be found, by incarnation.
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
        """Let go of every file, with what was written moved into it; nobody else may have them open any more."""
        for segment, written in zip(self._segments, self._written, strict=True):
            segment.settle()
            segment.close()
            os.utime(segment.path, (written, written))
