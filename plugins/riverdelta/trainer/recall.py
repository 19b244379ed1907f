"""Recall: what a learner needs of the past to go back, and whether it may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from riverdelta.errors import NotFound
from riverdelta.events import SETTINGS, Control, Impressions, Record
from riverdelta.joiner import Nowhere
from riverdelta.journal import Journal
from riverdelta.journal.segments import Segments
from riverdelta.registry import ReleaseStore

if TYPE_CHECKING:
    from riverdelta.trainer.learner import Learner

_READ_ROWS = 65_536


class Recall(Protocol):
    """The states of a learner at releases, by their journal positions, the records since, and what was refused.

    Whether a control can be carried out depends on what is left on disk, which a replay does not have. So a refusal is a record
    itself, `{"action": "refused"}`, and whoever reads the control again refuses it as well.
    """

    def refusal(self, sequence: int) -> str | None:
        """Return why the control at `sequence` was refused when it was read before; None where it was not."""
        ...

    def refuse(self, sequence: int, reason: str) -> None:
        """Record that the control at `sequence` is refused; raises `Unavailable` where that cannot be written now."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Return the first settings on record, which count for the records before them; {} where there are none."""
        ...

    def check(self, control: Control) -> None:
        """Raise `Refused`, `NotFound` or `Corrupt` where the registry cannot do its part of a control."""
        ...

    def keep(self, learner: Learner, position: int) -> int | None:
        """Make a release of the learner at `position`, the record that it is taking; return its number where it has one.

        Raises `ParityError` where the release fails its parity check.
        """
        ...

    def state(self, position: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the state at a release's position; raises `NotFound` or `Corrupt` where it cannot be had."""
        ...

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Return the records between two positions, both excluded; raises `NotFound` or `Corrupt` where one is missing."""
        ...

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the record that holds a request's rows; None where it is gone."""
        ...

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record; raises `Corrupt` where they cannot be read."""
        ...


class Nothing(Nowhere):
    """No past: a rollback is refused."""

    def refusal(self, sequence: int) -> str | None:
        """Return None."""
        return None

    def refuse(self, sequence: int, reason: str) -> None:
        """Record nothing."""

    def settings(self) -> Mapping[str, Any]:
        """Return {}."""
        return {}

    def check(self, control: Control) -> None:
        """Let everything pass."""

    def keep(self, learner: Learner, position: int) -> int | None:
        """Keep nothing, and return None."""
        return None

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

    def settings(self) -> Mapping[str, Any]:
        """Return the first settings on record: version 0.1 wrote none."""
        controls = self._journal.controls(0, self._journal.last() + 1)
        refused = _refusals(controls)
        obeyed = (control for sequence, control in controls if control.action == SETTINGS and sequence not in refused)
        return next((control.arguments for control in obeyed), {})

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Yield the records between two positions, both excluded; raises `NotFound` at the first that is missing."""
        while after + 1 < before:
            records = self._journal.read(after, _READ_ROWS)
            if not records or records[0][0] != after + 1:
                raise NotFound(f"journal record {after + 1} is no longer there")
            for sequence, record in records:
                yield sequence, record
                after = sequence
                if after + 1 == before:
                    return


class Kept(Journalled):
    """The past of a running learner: the releases on disk and the journal."""

    def __init__(
        self,
        store: ReleaseStore,
        journal: Journal,
        keep: Callable[[Learner, int], int],
        check: Callable[[Control], None] = lambda control: None,
        clock: Callable[[], float] = time.time,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(journal)
        self._journal: Journal = journal
        self._store, self._keep, self.check, self._clock = store, keep, check, clock
        self._meanwhile = meanwhile
        #: What processes before this one may have refused lies here, and is looked up once.
        self._before = journal.last()
        self._refused: dict[int, str] | None = None

    def refusal(self, sequence: int) -> str | None:
        """Return what an earlier process recorded."""
        if sequence > self._before:
            return None
        if self._refused is None:
            self._refused = _refusals(self._journal.controls(sequence, self._before + 1))
        return self._refused.get(sequence)

    def refuse(self, sequence: int, reason: str) -> None:
        """Record a refusal that is not recorded yet."""
        if self.refusal(sequence) is None:
            self._journal.write(Control("refused", {"sequence": sequence, "reason": reason}, self._clock()))

    def keep(self, learner: Learner, position: int) -> int | None:
        """Return the number of the release that this record made before, or make it; None where that is gone again."""
        for release in self._store.all():
            if release.position == position:
                return release.number
            if release.position > position:
                return None  # it was made before, and retention has deleted it since
        return self._keep(learner, position)

    def state(self, position: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the state at a release's position."""
        for release in self._store.all():
            if release.position == position:
                return self._store.state(release)
        raise NotFound(f"no release of position {position} is kept any more")

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Yield the records between two positions, and call `meanwhile` before each."""
        for found in super().records(after, before):
            self._meanwhile()
            yield found


class Replayed(Journalled, Nothing):
    """The past of a replay from the beginning of a journal: it keeps just the states that a later record goes back to."""

    def __init__(self, segments: Segments, start: Mapping[str, npt.NDArray[Any]]) -> None:
        super().__init__(segments)
        self._made = 0
        controls = segments.controls(0, segments.last() + 1)
        self._wanted = [control.arguments.get("position") for _, control in controls if control.action == "rollback"]
        self._refused = _refusals(controls)
        # As release 0 has it: no more than the stack.
        self._states = {0: {name: array for name, array in _copied(start).items() if name.startswith("stack/")}}

    def refusal(self, sequence: int) -> str | None:
        """Return what the journal says of it later on."""
        return self._refused.get(sequence)

    def keep(self, learner: Learner, position: int) -> int | None:
        """Copy the state where it will be wanted, and count the release; release 0 is that of a new home."""
        if position in self._wanted:
            self._states[position] = _copied(learner.state(position))
        self._made += 1
        return self._made

    def state(self, position: int) -> Mapping[str, npt.NDArray[Any]]:
        """Return the state at a release's position."""
        if position not in self._states:
            raise NotFound(f"no release was made at position {position}")
        return self._states[position]


def _copied(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name: array.copy() for name, array in arrays.items()}


def _refusals(controls: Iterable[tuple[int, Control]]) -> dict[int, str]:
    """The reason of each refusal by the sequence number of what was refused."""
    refused = [control.arguments for _, control in controls if control.action == "refused"]
    return {int(arguments["sequence"]): str(arguments["reason"]) for arguments in refused}
