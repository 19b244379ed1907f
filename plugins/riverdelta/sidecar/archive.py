"""Archive: what releases and journal still allow a command to do."""

from __future__ import annotations

from collections.abc import Callable

from riverdelta.core.errors import NotFound, Refused
from riverdelta.learning.commands import Past
from riverdelta.storage.journal import Reader
from riverdelta.storage.registry import ReleaseStore


class Archive(Past):
    """A home's releases and its journal, under a `guard` (RIVERDELTA_GUARD).

    `champion` returns the one at the command's position, by default the store's, which is ahead of a learner that reads records
    again.
    """

    def __init__(
        self, store: ReleaseStore, journal: Reader, guard: str, champion: Callable[[], int | None] | None = None
    ) -> None:
        self.store, self._journal, self.champions_alone = store, journal, guard == "release"
        self._champion = champion or (lambda: next(reversed(store.champions()), None))

    @property
    def champion(self) -> int | None:
        """The champion at the command's position."""
        return self._champion()

    def require(self, release: int, position: int | None) -> None:
        """Raise `NotFound` or `Corrupt` where a release, of `position` if given, or its state, is not there or not intact."""
        found = self.store.get(release)
        found.verify()
        self.store.state(found)
        if position not in (None, found.position):
            raise NotFound(f"release {release} is of position {found.position}; the one of position {position} is gone")

    def require_examples(self, release: int) -> None:
        """Raise `Refused`, with the oldest release to go back to, where examples since this one cannot be learned again."""
        position, since = self.store.get(release).position, self._journal.complete_after()
        if since <= position:
            return
        first = self._journal.first()
        gone = (
            f"the oldest record that is left is {first}: what came between was deleted"
            if first > position + 1
            else f"the feedback at position {since} is for rows that were deleted"
        )
        later = next((r.number for r in self.store.all() if r.position >= since), None)
        raise Refused(
            f"release {release} is of position {position}, and {gone} and cannot be learned again; roll back without --relearn"
            + ("" if later is None else f", or to release {later} or a later one")
        )
