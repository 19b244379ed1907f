"""Recall: what a learner needs of the past when it is told to go back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from riverdelta.errors import NotFound
from riverdelta.events import Control, Impressions, Record
from riverdelta.joiner import Nowhere
from riverdelta.journal import Journal
from riverdelta.journal.segments import Segments
from riverdelta.registry import ReleaseStore

if TYPE_CHECKING:
    from riverdelta.trainer.learner import Learner

_READ_ROWS = 65_536


class Recall(Protocol):
    """The states of a learner at releases, by their journal positions, and the records since."""

    def keep(self, learner: Learner, position: int) -> None:
        """Take note of the learner's state at `position`, the record that it is taking."""
        ...

    def state(self, position: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the state at a release's position; raises `NotFound` or `Corrupt` where it cannot be had."""
        ...

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Return the records between two positions, both excluded."""
        ...

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the record that holds a request's rows; None where it is gone."""
        ...

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record; raises `Corrupt` where they cannot be read."""
        ...


class Nothing(Nowhere):
    """No past: a rollback is passed over."""

    def keep(self, learner: Learner, position: int) -> None:
        """Forget it."""

    def state(self, position: int) -> Mapping[str, npt.NDArray[Any]]:
        """Raise `NotFound`."""
        raise NotFound(f"no state was kept at position {position}")

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Return nothing."""
        return ()


class Journalled:
    """What a journal has of the past."""

    def __init__(self, journal: Journal | Segments) -> None:
        self.locate, self.impressions = journal.locate, journal.impressions
        self._journal = journal

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Yield the records between two positions, both excluded."""
        while after + 1 < before and (records := self._journal.read(after, _READ_ROWS)):
            for sequence, record in records:
                if sequence >= before:
                    return
                yield sequence, record
                after = sequence


class Kept(Journalled):
    """The past of a running learner: the releases on disk and the journal."""

    def __init__(self, store: ReleaseStore, journal: Journal | Segments, keep: Callable[[Learner, int], None]) -> None:
        super().__init__(journal)
        self._store, self._keep = store, keep

    def keep(self, learner: Learner, position: int) -> None:
        """Make a release, where this record has not made one before."""
        if all(release.position != position for release in self._store.all()):
            self._keep(learner, position)

    def state(self, position: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the state at a release's position."""
        for release in self._store.all():
            if release.position == position:
                return self._store.state(release)
        raise NotFound(f"no release of position {position} is kept any more")


class Replayed(Journalled):
    """The past of a replay from the beginning of a journal: it keeps just the states that a later record goes back to."""

    def __init__(self, segments: Segments, start: Mapping[str, npt.NDArray[Any]]) -> None:
        super().__init__(segments)
        self._wanted: Collection[int] = {
            int(record.arguments["position"])
            for _, record in self.records(0, segments.last() + 1)
            if isinstance(record, Control) and record.action == "rollback"
        }
        self._states: dict[int, Mapping[str, npt.NDArray[Any]]] = {0: start}

    def keep(self, learner: Learner, position: int) -> None:
        """Copy the state where it will be wanted."""
        if position in self._wanted:
            self._states[position] = {name: array.copy() for name, array in learner.state(position).items()}

    def state(self, position: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the state at a release's position."""
        if position not in self._states:
            raise NotFound(f"no release was made at position {position}")
        return self._states[position]
