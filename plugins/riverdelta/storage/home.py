"""Home: the folder of one scorer, and the paths in it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from riverdelta.core.arrays import nest
from riverdelta.core.checked import finite
from riverdelta.core.digests import keep, remember
from riverdelta.core.durable import overwrite, write
from riverdelta.core.errors import ConfigurationError, Locked, NotFound, Unavailable
from riverdelta.core.locks import alone
from riverdelta.core.records import SETTINGS, Control
from riverdelta.core.settings import Settings
from riverdelta.graph.files import save
from riverdelta.graph.runtime import check_opens
from riverdelta.learning.definition import Definition
from riverdelta.learning.differences import differences, lacking
from riverdelta.learning.identity import Identity, beyond_reach, describe, settle
from riverdelta.learning.reference import in_effect
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.claim import OWNED_BY, move_away, recognize, refuse_another_mode, stored_in, ways_out
from riverdelta.storage.journal import PATIENCE_SECONDS, Ids, Journal, Reader
from riverdelta.storage.log import Log, SqliteLog
from riverdelta.storage.origin import FILE, REBASED, Origin
from riverdelta.storage.registry import FolderRegistry, LiveStore, Registry, Release, ReleaseStore

_log = logging.getLogger(__name__)


class Home:
    """`<home>/<scorer>/` with `journal/` (and the key of its ids), `live/`, `releases/`, `checkpoints/` and `status.json`.

    Options of `definition` that its code leaves to defaults have the values with which the folder learned. Raises `Corrupt` if
    the folder's `definition.json` cannot be read.

    Parameters
    ----------
    definition
        The scorer's definition.
    settings
        The settings; `home` is the parent folder.
    open_log
        Opens the log for the folder `journal/`. Default: `SqliteLog`.
    registry
        Stores releases, live tables and checkpoints; keys, definition and status are always in the folder. Default: the folder.
    """

    def __init__(
        self,
        definition: Definition,
        settings: Settings,
        open_log: Callable[[Path], Log] | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.settings = settings
        self.folder = settings.home.absolute() / definition.name
        self.registry: Registry = registry or FolderRegistry(self.folder)
        self._open_log = open_log or (lambda folder: SqliteLog(folder, settings.segment_bytes))
        #: The file of the key for impression ids.
        self.key_path = self.folder / "journal" / "key"
        self._path, self._owner = (self.folder / name for name in OWNED_BY)
        #: The folder in which a rebase creates this home; its file `lock` is held meanwhile.
        self.rebasing = self.folder.with_name(f".{self.folder.name}.rebase")
        #: The file with the digests of large files, which are read again only after a change.
        self._digests = self.folder / "digests.json"
        remember(self._digests)
        self.definition, self._settled = definition, list[str]()
        with suppress(OSError):  # `prepare` reports it
            if stored := self.stored():
                self.definition, self._settled = settle(definition, stored)
            elif self._owner.exists():  # of version 0.1, which read no margins
                self.definition = replace(definition, margin=False)

    def stored(self) -> Identity | None:
        """Return the folder's definition; see `stored_in`."""
        return stored_in(self.folder)

    @property
    def begins(self) -> int:
        """The journal position up to which a log was learned instead, 0 unless the home was rebased with one."""
        origin = self.origin
        return origin.position if origin is not None and origin.log else 0

    @property
    def origin(self) -> Origin | None:
        """Where a rebased home begins, None if it was not rebased; if its file is missing, where its rebased release begins."""
        if (found := Origin.of(self.folder)) is None:
            for release in self.releases().all():
                if release.facts.get("verdict") == REBASED:
                    _log.error("%s is missing: the home begins at its release %d", self.folder / FILE, release.number)
                    return Origin(position=release.position, log=True)
        return found

    def require(self) -> None:
        """Raise `NotFound`, with the line that selects another folder, if no service has created this home yet."""
        if not self.releases().all():
            raise NotFound(
                f"{self.folder} is not the home of a scorer; start the service once, or select the folder that it uses: "
                f"export RIVERDELTA_HOME=FOLDER (now {self.folder.parent})"
            )

    def prepare(self) -> Release:
        """Create anything missing, including release 0, and return the release to start from.

        Workers and the sidecar all call this; the first call does the work. Raises `ConfigurationError`, with the differences
        and the lines to type, if the folder learned with another definition or the settings do not fit the task, and
        `Unavailable` if it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._refuse_during_a_rebase()
            self.settings.check_window(self.definition.loss.lists)
            with alone(self.folder / ".prepare", wait=True):
                releases = self.releases()
                self._claim(releases)
                if not releases.all():
                    self._begin(releases)
        except OSError as error:
            raise Unavailable(
                f"the folder {self.folder} cannot be written: {error}; let this user write there, or set RIVERDELTA_HOME to "
                f"another folder"
            ) from error
        good = releases.latest_good()
        if good is None:
            raise ConfigurationError(
                f"no release in {self.folder} is intact; restore one, or start over: {move_away(self.folder)}"
            )
        with suppress(OSError):
            keep(self._digests)
        return good

    def _refuse_during_a_rebase(self) -> None:
        # A rebase takes its lock before it checks the folder, and this checks the lock after creating the folder.
        with suppress(FileNotFoundError), alone(self.rebasing / "lock") as free:
            if not free:
                raise Locked(f"a rebase to {self.folder} is running ({self.rebasing}); start the service when it has ended")

    def reader(self) -> Reader:
        """Open the journal for reading only."""
        return Reader(self._open_log(self.folder / "journal"))

    def journal(self, patience_seconds: float = PATIENCE_SECONDS) -> Journal:
        """Open the journal; feedback waits at most `patience_seconds` for rows from other processes."""
        s = self.settings
        return Journal(
            self._open_log(self.folder / "journal"),
            flush_seconds=s.flush_seconds,
            flush_rows=s.flush_rows,
            on_conflict=s.on_conflict,
            window_seconds=s.window_seconds,
            lists=self.definition.loss.lists,
            patience_seconds=patience_seconds,
            names=s.names,
        )

    def learning(self) -> dict[str, Any]:
        """Return the inputs of learning besides the journal: settings, response to drift, and digest of the reference."""
        return in_effect(self.definition, self.settings)

    def declare(self, journal: Journal, now: float) -> None:
        """Write the settings of learning to the journal, at `now` (Unix seconds), unless they are already in effect."""
        if (known := journal.settings()) != (learning := self.learning()):
            if not known:
                refuse_another_mode(self.folder, journal, self.settings.labels)
            journal.write(Control(SETTINGS, learning, now))

    def ids(self) -> Ids:
        """Return the issuer of impression ids, which reloads the key file when it changes.

        If there is none, a key is made; that is an error in the log if the journal has more than its settings.
        """
        if not self.key_path.exists():
            with closing(self.reader()) as reader:
                if reader.log.last() > 1:
                    _log.error(
                        "%s is missing, so a new key is made: feedback for rows scored until now will be answered bad_id; to "
                        "have it accepted, restore the file from a backup and restart",
                        self.key_path,
                    )
        return Ids.load(self.key_path, time.time())

    def live(self) -> LiveStore:
        """Return the store of the newest tables."""
        return LiveStore(self.registry)

    def releases(self, owner: bool = False) -> ReleaseStore:
        """Return the store of releases; the learner is its `owner`."""
        return ReleaseStore(self.registry, owner)

    def checkpoints(self) -> CheckpointStore:
        """Return the store of checkpoints."""
        return CheckpointStore(self.registry)

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Write the learner's status, which every worker reads."""
        overwrite(self.folder / "status.json", json.dumps(status).encode())

    def read_status(self) -> dict[str, Any]:
        """Return the learner's last status, or {} if there is none."""
        try:
            status = json.loads((self.folder / "status.json").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        return status if isinstance(status, dict) and finite(status.get("time")) else {}

    def _begin(self, releases: ReleaseStore) -> None:
        """Create release 0, whose scores are the base's; raises `ModelError` if ONNX Runtime cannot open it.

        The settings of learning are the journal's first record, before any feedback.
        """
        number, path = releases.next_path()
        definition = self.definition
        stack = definition.new_stack()
        save(definition.merge(stack), definition.signature, path)
        check_opens(path)
        with closing(self.journal()) as journal:
            self.declare(journal, time.time())
        state = nest({"stack": stack.state()})
        releases.add(number, path, position=0, examples=0, time=time.time(), facts={}, state=state)

    def _claim(self, releases: ReleaseStore) -> None:
        """Record that the folder belongs to this definition; raises `ConfigurationError` if it may belong to another."""
        stored, mine = self.stored(), describe(self.definition)
        # A folder without a release and a record belongs to no definition.
        if releases.all() or (self.folder / "journal").exists():
            if stored is None:
                recognize(self.folder, self.definition, releases)
            elif found := differences(stored, mine, beyond_reach(self.definition)):
                lines = (f"{self.folder} learned with another definition of {mine.name!r}:", *(f"  {words}" for words in found))
                raise ConfigurationError("\n".join([*lines, ways_out(self.folder, self.definition, lacking(stored, mine))]))
        if stored != mine:
            write(self._path, mine.model_dump_json(indent=1).encode())
        self._owner.unlink(missing_ok=True)
        for words in self._settled:
            _log.warning("%s: %s", self.folder, words)
