"""Segments: the files of one journal, in order, as one process sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riverdelta.events import Record
from riverdelta.journal.segment import CARRIED, Fed, Segment


class Segments:
    """All segments; the newest takes writes until it is sealed, and a sealed one never changes again.

    A row's feedback may lie in any segment from its impression's on. Looking into sealed ones is free of races, because the
    transaction on the newest one re-checks that it is not sealed.
    """

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder, self.segment_bytes = folder, segment_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[int, Segment] = {}
        if not self._numbers():
            Segment.create(folder, 1, 1, {})
        self.refresh()

    def refresh(self) -> None:
        """Open segments that others made, and let go of those that retention removed."""
        numbers = self._numbers()
        for gone in self._open.keys() - set(numbers):
            self._open.pop(gone).close()
        for number in numbers:
            if number not in self._open:
                self._open[number] = Segment(self.folder / f"{number:06d}.sqlite")

    @property
    def newest(self) -> Segment:
        """The segment that takes writes."""
        return self._open[max(self._open)]

    @contextmanager
    def transaction(self) -> Iterator[Segment]:
        """Write to the newest segment; one that has been sealed meanwhile gives way to the next."""
        while True:
            segment = self.newest
            with segment.transaction():
                if not segment.sealed:
                    yield segment
                    if segment.size() > self.segment_bytes:
                        segment.put("sealed", 1)
                    return
            self._succeed(segment)

    def _succeed(self, segment: Segment) -> None:
        carried = {key: segment.get(key) for key in CARRIED}
        Segment.create(self.folder, segment.number + 1, segment.last() + 1, carried)
        self.refresh()

    def rows_of(self, incarnation: int, request: int) -> tuple[int, int] | None:
        """Return (segment number, rows) of a request, the newest segment first."""
        for number in sorted(self._open, reverse=True):
            rows = self._open[number].rows_of(incarnation, request)
            if rows is not None:
                return number, rows
        return None

    def fed(self, key: tuple[int, int, int], since: int) -> Fed | None:
        """Return the newest that is known of a row, looking back to segment `since`."""
        for number in sorted((n for n in self._open if n >= since), reverse=True):
            fed = self._open[number].fed(key)
            if fed is not None:
                return fed
        return None

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """Return records after a sequence number, across segments."""
        if self.newest.sealed:
            self.refresh()
        ordered = [self._open[n] for n in sorted(self._open)]
        for segment, following in zip(ordered, [*ordered[1:], None], strict=True):
            if following is not None and after >= following.first - 1:
                continue
            records = segment.read(after, rows)
            if records:
                return records
        return []

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float) -> int:
        """Delete sealed segments wholly behind `behind` while they are too old or all are too large; return bytes freed."""
        freed = 0
        ordered = [self._open[n] for n in sorted(self._open)]
        for segment, following in zip(ordered, ordered[1:], strict=False):
            old = now - segment.path.stat().st_mtime > max_age
            if following.first - 1 > behind or not (old or self.size() > max_bytes):
                break
            freed += segment.size()
            with self.transaction() as newest:
                swept = newest.swept()
                for incarnation, request in segment.last_requests().items():
                    swept[incarnation] = max(swept.get(incarnation, -1), request)
                newest.put("swept", json.dumps(swept))
            self._open.pop(segment.number).delete()
        return freed

    def size(self) -> int:
        """Return the bytes on disk."""
        return sum(segment.size() for segment in self._open.values())

    def close(self) -> None:
        """Let go of every file."""
        for segment in self._open.values():
            segment.close()
        self._open.clear()

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.sqlite"))
