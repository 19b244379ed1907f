"""Archive: decides from the releases and the journal whether a command can be applied."""

from __future__ import annotations

from collections.abc import Callable

from riverdelta.core.errors import NotFound, Refused
from riverdelta.learning.command import Past
from riverdelta.storage.journal import Reader
from riverdelta.storage.registry import ReleaseStore


class Archive(Past):
    """A home's releases and journal, as the `Past` of commands.

    With the `guard` "release" (RIVERDELTA_GUARD) only champions may serve. `champion` returns the champion at the command's
    position (default: the store's, which may be ahead of a learner that reads records again). Records up to `begins` cannot be
    learned again: a rebased home has learned a log instead.
    """

    def __init__(
        self,
        store: ReleaseStore,
        journal: Reader,
        guard: str,
        champion: Callable[[], int | None] | None = None,
        begins: int = 0,
    ) -> None:
        self._begins = begins
        self.store, self._journal, self.champions_alone = store, journal, guard == "release"
        self._champion = champion or (lambda: next(reversed(store.champions()), None))

    @property
    def champion(self) -> int | None:
        """The champion at the command's position."""
        return self._champion()

    def require(self, release: int, position: int | None) -> None:
        """Raise `NotFound` or `Corrupt` unless a release and its state are intact and, if given, have this `position`."""
        found = self.store.get(release)
        found.verify()
        self.store.state(found)
        if position not in (None, found.position):
            raise NotFound(
                f"release {release} was made at position {found.position}; the one made at position {position} is deleted"
            )

    def require_examples(self, release: int) -> None:
        """Raise `Refused`, naming the oldest usable release, if the examples since this one cannot be learned again."""
        position, since = self.store.get(release).position, max(self._journal.complete_after(), self._begins)
        if since <= position:
            return
        first = self._journal.first()
        gone = (
            f"records {position + 1} to {first - 1} were deleted"
            if first > position + 1
            else f"a log was learned instead of records 1 to {since}"
            if since == self._begins
            else f"the rows of the feedback at position {since} were deleted"
        )
        later = next((r.number for r in self.store.all() if r.position >= since), None)
        raise Refused(
            f"the examples since release {release} (position {position}) cannot be learned again: {gone}; roll back without "
            "--relearn" + ("" if later is None else f", or to release {later} or later")
        )
