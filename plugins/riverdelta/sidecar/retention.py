"""Retention: what may be deleted, of journal and releases, without a restart missing it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from riverdelta.core.settings import Settings
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.journal import Journal
from riverdelta.storage.log.base import Needed
from riverdelta.storage.registry import ReleaseStore


class Retention:
    """Deletes what settings allow, and leaves what a restart from the older checkpoint would go back to or learn again."""

    def __init__(self, journal: Journal, checkpoints: CheckpointStore, releases: ReleaseStore, settings: Settings) -> None:
        self.journal, self.checkpoints, self.releases, self.settings = journal, checkpoints, releases, settings

    def sweep_journal(self, needed: Needed, now: float) -> None:
        """Let the journal go of what is behind both kept checkpoints, unless some of it may be learned again."""
        s = self.settings
        if not any(self._may_return("relearn")):
            self.journal.sweep(self.checkpoints.oldest(), s.journal_max_age_seconds, s.journal_max_bytes, now, needed)

    def sweep_releases(self, in_use: Iterable[int | None]) -> None:
        """Delete the oldest releases, but none in use or gone back to."""
        spare = [number for number in (*in_use, *self._may_return("release")) if isinstance(number, int)]
        self.releases.sweep(self.settings.keep_releases, self.settings.max_release_bytes, spare)

    def _may_return(self, argument: str) -> list[Any]:
        """An argument of the rollbacks and promotions that a restart would read again, and of those not read yet."""
        controls = self.journal.controls(self.checkpoints.oldest(), self.journal.last() + 1)
        return [control.arguments.get(argument) for _, control in controls if control.action in ("rollback", "promote")]
