"""Home: the folder of one scorer, and what lies where in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from riverdelta import drift, reference
from riverdelta.checkpoint import CheckpointStore
from riverdelta.definition import Definition
from riverdelta.errors import ConfigurationError, Unavailable
from riverdelta.events import SETTINGS, Control
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.journal import PATIENCE_SECONDS, Ids, SqliteJournal
from riverdelta.registry import LiveStore, Release, ReleaseStore
from riverdelta.settings import Settings


class Home:
    """`<home>/<scorer>/` with `journal/` (and the key of its ids), `live/`, `releases/`, `checkpoints/` and `status.json`."""

    def __init__(self, definition: Definition, settings: Settings) -> None:
        self.definition, self.settings = definition, settings
        self.folder = settings.home / definition.name

    def prepare(self) -> Release:
        """Make what is missing, release 0 among it, and return the release to start from.

        Workers and the sidecar all call this; the first one does the work. Raises `ConfigurationError` when the folder
        belongs to another base model or another stack, and `Unavailable` when it may not be written.
        """
        with self._gate() as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            self._claim()
            releases = self.releases()
            if not releases.all():
                self._begin_journal()
                number, path = releases.next_path()
                definition = self.definition
                stack = definition.new_stack()
                save(merge(definition.signature, stack, definition.taps, definition.columns), definition.signature, path)
                state = {f"stack/{name}": array for name, array in stack.state().items()}
                releases.add(number, path, position=0, examples=0, time=time.time(), facts={}, state=state)
        good = releases.latest_good()
        if good is None:
            raise ConfigurationError(f"no release in {releases.folder} is whole; restore one, or move {self.folder} away")
        return good

    def journal(self, patience_seconds: float = PATIENCE_SECONDS) -> SqliteJournal:
        """Open the journal for this process; feedback may wait so long for rows that another process owes it."""
        s = self.settings
        return SqliteJournal(
            self.folder / "journal",
            flush_seconds=s.flush_seconds,
            flush_rows=s.flush_rows,
            segment_bytes=s.segment_bytes,
            on_conflict=s.on_conflict,
            window_seconds=s.window_seconds,
            patience_seconds=patience_seconds,
        )

    def learning(self) -> dict[str, Any]:
        """Return all that learning reads besides the journal: settings, the response to drift, and the reference's digest."""
        return in_effect(self.definition, self.settings)

    def ids(self) -> Ids:
        """Return the issuer of impression ids, which follows the key file."""
        return Ids.load(self.key_path, time.time())

    @property
    def key_path(self) -> Path:
        """The file of the key that impression ids are made with."""
        return self.folder / "journal" / "key"

    def live(self) -> LiveStore:
        """Return the newest tables."""
        return LiveStore(self.folder / "live")

    def releases(self) -> ReleaseStore:
        """Return the releases."""
        return ReleaseStore(self.folder / "releases")

    def checkpoints(self) -> CheckpointStore:
        """Return the checkpoints."""
        return CheckpointStore(self.folder / "checkpoints")

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Leave the learner's status where every worker finds it."""
        temporary = self.folder / f".status.{os.getpid()}"
        temporary.write_text(json.dumps(status))
        os.replace(temporary, self.folder / "status.json")

    def read_status(self) -> dict[str, Any]:
        """Return the learner's last status, {} before the first."""
        try:
            status: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return status

    def _begin_journal(self) -> None:
        """Make the settings that learning reads the first record: no feedback comes before them."""
        journal = self.journal()
        try:
            if journal.last() == 0:
                journal.write(Control(SETTINGS, self.learning(), time.time()))
        finally:
            journal.close()

    def _gate(self) -> IO[str]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return (self.folder / ".prepare").open("w")
        except OSError as error:
            raise Unavailable(
                f"the folder {self.folder} cannot be written: {error}; let this user write there, or set RIVERDELTA_HOME to "
                f"another folder"
            ) from error

    def _claim(self) -> None:
        path, mine = self.folder / "owner", self.definition.fingerprint()
        if not path.exists():
            path.write_text(mine)
        elif (theirs := path.read_text()) != mine:
            raise ConfigurationError(
                f"{self.folder} belongs to another base model or stack ({theirs}, this one is {mine}); set RIVERDELTA_HOME to "
                f"another folder, or move this one away"
            )


def in_effect(definition: Definition, settings: Settings) -> dict[str, Any]:
    """Return all that learning reads besides the journal, as a settings record has it."""
    given = reference.load(definition)
    response = drift.as_record(definition.on_drift)
    return {**settings.learning(), "on_drift": response, "reference": given and given.digest.hex()}
