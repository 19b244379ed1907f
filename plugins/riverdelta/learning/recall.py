"""Recall: what a learner needs of the past to go back, and whether it may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from riverdelta.core.errors import NotFound
from riverdelta.core.records import Control, Impressions, Record
from riverdelta.learning.joiner import Nowhere

if TYPE_CHECKING:
    from riverdelta.learning.learner import Learner


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
