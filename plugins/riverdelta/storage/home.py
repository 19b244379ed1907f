"""Home: the folder of one scorer, and the paths in it."""

from __future__ import annotations

import json
import logging
import re
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from riverdelta.core.arrays import nest, part
from riverdelta.core.digests import keep, remember
from riverdelta.core.durable import overwrite, write
from riverdelta.core.errors import ConfigurationError, Corrupt, Locked, NotFound, Unavailable
from riverdelta.core.locks import alone
from riverdelta.core.records import SETTINGS, Control
from riverdelta.core.settings import Settings
from riverdelta.graph.files import base_digest, save
from riverdelta.graph.merge import merge
from riverdelta.graph.runtime import check_opens
from riverdelta.learning.definition import Definition
from riverdelta.learning.differences import differences
from riverdelta.learning.identity import Identity, beyond_reach, describe, read, settle
from riverdelta.learning.reference import in_effect
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.journal import PATIENCE_SECONDS, Ids, Journal, Reader
from riverdelta.storage.log import Log, SqliteLog
from riverdelta.storage.registry import FolderRegistry, LiveStore, Registry, Release, ReleaseStore

_log = logging.getLogger(__name__)
#: The file of a home's definition, and that of earlier versions, which had only its fingerprint.
OWNED_BY = ("definition.json", "owner")
#: The format of `Definition.fingerprint_of_0_1`; anything else in `owner` is damage.
_FINGERPRINT = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")


def stored_in(folder: Path) -> Identity | None:
    """Return the definition of the home in a folder; None if it has none yet.

    Raises `Corrupt` if the file is damaged, and `ConfigurationError` if a later version wrote it.
    """
    path = folder / OWNED_BY[0]
    try:
        return read(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error
    except Corrupt as error:
        raise Corrupt(
            f"{path} is damaged: {error}; restore it from a backup, or delete it; the next start writes it again "
            f"if the newest release belongs to this scorer: {shlex.join(['rm', str(path)])}"
        ) from error


def rebase_line(definition: Definition, old: Path) -> str:
    """Return the line that carries over what the home in `old` has learned."""
    return shlex.join(["riverdelta", "rebase", "--service", definition.service, "--from", str(old)])


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

    def stored(self) -> Identity | None:
        """Return the folder's definition; see `stored_in`."""
        return stored_in(self.folder)

    def require(self) -> None:
        """Raise `NotFound`, with the line that selects another folder, if no service has created this home yet."""
        if not self.registry.size("releases/index.json"):
            raise NotFound(
                f"{self.folder} is not the home of a scorer; start the service once, or select the folder that it uses: "
                f"export RIVERDELTA_HOME=FOLDER (now {self.folder.parent})"
            )

    def prepare(self) -> Release:
        """Create anything missing, including release 0, and return the release to start from.

        Workers and the sidecar all call this; the first call does the work. Raises `ConfigurationError`, with the differences
        and the lines to type, if the folder learned with another definition, and `Unavailable` if it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._refuse_during_a_rebase()
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
            raise ConfigurationError(f"no release in {self.folder} is intact; restore one, or start over: {self._move_away()}")
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
            patience_seconds=patience_seconds,
        )

    def learning(self) -> dict[str, Any]:
        """Return the inputs of learning besides the journal: settings, response to drift, and digest of the reference."""
        return in_effect(self.definition, self.settings)

    def declare(self, journal: Journal, now: float) -> None:
        """Write the settings of learning to the journal, at `now` (Unix seconds), unless they are already in effect."""
        if (known := journal.settings()) != (learning := self.learning()):
            if not known:
                self._refuse_another_mode_than_of_0_1(journal)
            journal.write(Control(SETTINGS, learning, now))

    def _refuse_another_mode_than_of_0_1(self, journal: Journal) -> None:
        """Infer the label mode of version 0.1, which wrote no settings; only with `silence` did it write ticks."""
        was = "silence" if journal.log.fact("tick") else "explicit" if self.checkpoints().oldest() else self.settings.labels
        if was != self.settings.labels:
            raise ConfigurationError(
                f"{self.folder} was written by version 0.1 with RIVERDELTA_LABELS={was}, now it is {self.settings.labels}; "
                f"start it once with the labels and window that it had, which are then recorded, and change them afterwards"
            )

    def ids(self) -> Ids:
        """Return the issuer of impression ids, which reloads the key file when it changes."""
        return Ids.load(self.key_path, time.time())

    def live(self) -> LiveStore:
        """Return the store of the newest tables."""
        return LiveStore(self.registry)

    def releases(self) -> ReleaseStore:
        """Return the store of releases."""
        return ReleaseStore(self.registry)

    def checkpoints(self) -> CheckpointStore:
        """Return the store of checkpoints."""
        return CheckpointStore(self.registry)

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Write the learner's status, which every worker reads."""
        overwrite(self.folder / "status.json", json.dumps(status).encode())

    def read_status(self) -> dict[str, Any]:
        """Return the learner's last status, or {} if there is none."""
        try:
            return dict(json.loads((self.folder / "status.json").read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def _begin(self, releases: ReleaseStore) -> None:
        """Create release 0, whose scores are the base's; raises `ModelError` if ONNX Runtime cannot open it.

        The settings of learning are the journal's first record, before any feedback.
        """
        number, path = releases.next_path()
        definition = self.definition
        stack = definition.new_stack()
        save(merge(definition.signature, stack, definition.taps, definition.columns), definition.signature, path)
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
                self._claim_without_definition(releases)
            elif found := differences(stored, mine, beyond_reach(self.definition)):
                lines = (f"{self.folder} learned with another definition of {mine.name!r}:", *(f"  {words}" for words in found))
                raise ConfigurationError("\n".join([*lines, self._carry()]))
        if stored != mine:
            write(self._path, mine.model_dump_json(indent=1).encode())
        self._owner.unlink(missing_ok=True)
        for words in self._settled:
            _log.warning("%s: %s", self.folder, words)

    def _claim_without_definition(self, releases: ReleaseStore) -> None:
        """Recognize a folder without `definition.json` by the fingerprint in `owner`, or by its newest release."""
        theirs, mine = self._owner.read_text(errors="replace") if self._owner.exists() else "", self._fingerprint
        if theirs == mine:
            return
        if _FINGERPRINT.fullmatch(theirs):
            same = theirs.partition("-")[0] == mine.partition("-")[0]
            raise ConfigurationError(
                f"{self.folder} learned with {'other corrections' if same else 'another base'}: its file 'owner', from an "
                f"earlier version, has {theirs}; this definition has {mine}\n{self._carry()}"
            )
        why = f"{self._path} is missing"
        number = self._recognize(releases, why)
        _log.warning("%s; release %d has this base and this stack's tables, so the file is written again", why, number)

    def _recognize(self, releases: ReleaseStore, why: str) -> int:
        """Return the number of the newest readable release; raises `ConfigurationError` if it has another definition."""
        for release in reversed(releases.all()):
            try:
                release.verify()
                state = releases.state(release)
            except Corrupt as error:
                _log.error("%s", error)
                continue
            try:
                if base_digest(release.path) != self.definition.signature.digest:
                    raise Corrupt(f"release {release.number} has another base model")
                self.definition.new_stack().load(part(state, "stack"))
            except Corrupt as error:
                raise ConfigurationError(
                    f"{why}, and {self.folder} does not belong to this scorer: {error}; set RIVERDELTA_HOME to another folder, "
                    f"or start over: {self._move_away()}"
                ) from None
            return release.number
        raise ConfigurationError(
            f"{why}, and no release can be read to identify {self.folder}; if it belongs to this scorer, type: "
            f"printf %s {self._fingerprint} > {shlex.quote(str(self._owner))}"
        )

    def _carry(self) -> str:
        """Return the lines to type if the definition was changed on purpose."""
        carry = f"{self._move_away()} && {rebase_line(self.definition, self._away)}"
        return f"to carry over what it learned, once no service uses it: {carry}\nto start over: {self._move_away()}"

    @property
    def _fingerprint(self) -> str:
        return self.definition.fingerprint_of_0_1()

    def _move_away(self) -> str:
        return shlex.join(["mv", str(self.folder), str(self._away)])

    @property
    def _away(self) -> Path:
        """An unused path beside the folder."""
        names = (f"{self.folder.name}.old{n}" for n in chain([""], count(2)))
        return next(path for path in map(self.folder.with_name, names) if not path.exists())
