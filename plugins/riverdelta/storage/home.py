"""Home: the folder of one scorer, and what lies where in it."""

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
from riverdelta.learning.identity import Identity, describe, read, settle
from riverdelta.learning.reference import in_effect
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.journal import PATIENCE_SECONDS, Ids, Journal, Reader
from riverdelta.storage.log import Log, SqliteLog
from riverdelta.storage.registry import FolderRegistry, LiveStore, Registry, Release, ReleaseStore

_log = logging.getLogger(__name__)
#: The file of the definition that a home belongs to, and that of earlier versions, which kept a fingerprint of it alone.
OWNED_BY = ("definition.json", "owner")
#: What `Definition.fingerprint_of_0_1` looks like: anything else in `owner` is damage.
_FINGERPRINT = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")


def stored_in(folder: Path) -> Identity | None:
    """Return the definition that a home's folder belongs to, None where it has none yet.

    Raises `Corrupt` where the file is damaged, and `ConfigurationError` where a later version wrote it.
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
            f"{path} is damaged: {error}; restore it from a backup, or delete it, and the next start writes it again "
            f"where the newest release is this scorer's: {shlex.join(['rm', str(path)])}"
        ) from error


def rebase_line(definition: Definition, old: Path) -> str:
    """Return the line that carries over what the home in `old` has learned."""
    return shlex.join(["riverdelta", "rebase", "--service", definition.service, "--from", str(old)])


class Home:
    """`<home>/<scorer>/` with `journal/` (and the key of its ids), `live/`, `releases/`, `checkpoints/` and `status.json`.

    `open_log` opens another log than the one in `journal/`, named by that folder, and `registry` has the releases, live tables
    and checkpoints elsewhere; keys, definition and status lie in the folder always.

    `definition` is the one given, with the options that its code leaves to defaults as the folder has learned with them. Raises
    `Corrupt` where the folder's `definition.json` cannot be read.
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
        #: The file of the key that impression ids are made with.
        self.key_path = self.folder / "journal" / "key"
        self._path, self._owner = (self.folder / name for name in OWNED_BY)
        #: Where a rebase to this home makes it; `lock` in there is held meanwhile.
        self.rebasing = self.folder.with_name(f".{self.folder.name}.rebase")
        #: The file of the digests of large files, which are read in full again only when they change.
        self._digests = self.folder / "digests.json"
        remember(self._digests)
        self.definition, self._settled = definition, list[str]()
        with suppress(OSError):  # `prepare` says what is wrong with the folder
            if stored := self.stored():
                self.definition, self._settled = settle(definition, stored)

    def stored(self) -> Identity | None:
        """Return the definition that the folder belongs to; see `stored_in`."""
        return stored_in(self.folder)

    def require(self) -> None:
        """Raise `NotFound`, naming the folder and how to name another one, where no service has made this home yet."""
        if not self.registry.size("releases/index.json"):
            raise NotFound(
                f"{self.folder} is not the home of a scorer; start the service once, or say which folder it keeps: "
                f"export RIVERDELTA_HOME=FOLDER (now it is {self.folder.parent})"
            )

    def prepare(self) -> Release:
        """Make what is missing, release 0 among it, and return the release to start from.

        Workers and the sidecar all call this; the first one does the work. Raises `ConfigurationError`, which
        says what differs and the lines to type, when the folder learned with another definition, and `Unavailable` when it may
        not be written.
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
            raise ConfigurationError(f"no release in {self.folder} is intact; restore one, or begin anew: {self._move_away()}")
        with suppress(OSError):
            keep(self._digests)
        return good

    def _refuse_during_a_rebase(self) -> None:
        # It takes the lock before it looks whether the folder is empty, as this looks after the folder is made.
        with suppress(FileNotFoundError), alone(self.rebasing / "lock") as free:
            if not free:
                raise Locked(f"a rebase to {self.folder} is running ({self.rebasing}); start the service when it has ended")

    def reader(self) -> Reader:
        """Open the journal to read it alone."""
        return Reader(self._open_log(self.folder / "journal"))

    def journal(self, patience_seconds: float = PATIENCE_SECONDS) -> Journal:
        """Open the journal for this process; feedback waits at most `patience_seconds` for rows of other processes."""
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
        """Return all that learning reads besides the journal: settings, the response to drift, and the reference's digest."""
        return in_effect(self.definition, self.settings)

    def declare(self, journal: Journal, now: float) -> None:
        """Write the settings that learning reads into the journal, at `now` (Unix seconds), unless they are in effect."""
        if (known := journal.settings()) != (learning := self.learning()):
            if not known:
                self._refuse_another_mode_than_of_0_1(journal)
            journal.write(Control(SETTINGS, learning, now))

    def _refuse_another_mode_than_of_0_1(self, journal: Journal) -> None:
        """Version 0.1 wrote no settings: a tick shows that its learner made negatives of silence."""
        was = "silence" if journal.log.fact("tick") else "explicit" if self.checkpoints().oldest() else self.settings.labels
        if was != self.settings.labels:
            raise ConfigurationError(
                f"{self.folder} was written by version 0.1 with RIVERDELTA_LABELS={was}, and it is {self.settings.labels} now; "
                f"start it once with the labels and window that it had, which are on record from then on, and change them after"
            )

    def ids(self) -> Ids:
        """Return the issuer of impression ids, which follows the key file."""
        return Ids.load(self.key_path, time.time())

    def live(self) -> LiveStore:
        """Return the newest tables."""
        return LiveStore(self.registry)

    def releases(self) -> ReleaseStore:
        """Return the releases."""
        return ReleaseStore(self.registry)

    def checkpoints(self) -> CheckpointStore:
        """Return the checkpoints."""
        return CheckpointStore(self.registry)

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Leave the learner's status where every worker finds it."""
        overwrite(self.folder / "status.json", json.dumps(status).encode())

    def read_status(self) -> dict[str, Any]:
        """Return the learner's last status, {} before the first."""
        try:
            return dict(json.loads((self.folder / "status.json").read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def _begin(self, releases: ReleaseStore) -> None:
        """Make release 0, which scores as the base does; raises `ModelError` where ONNX Runtime cannot open it.

        The settings that learning reads are the journal's first record: no feedback comes before them.
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
        """Record that the folder is this definition's; raises `ConfigurationError` where it is, or may be, another's."""
        stored, mine = self.stored(), describe(self.definition)
        # Before the first release and the first record there is nothing that could be another's.
        if releases.all() or (self.folder / "journal").exists():
            if stored is None:
                self._claim_without_definition(releases)
            elif found := differences(stored, mine):
                lines = (f"{self.folder} learned with another definition of {mine.name!r}:", *(f"  {words}" for words in found))
                raise ConfigurationError("\n".join([*lines, self._carry()]))
        if stored != mine:
            write(self._path, mine.model_dump_json(indent=1).encode())
        self._owner.unlink(missing_ok=True)
        for words in self._settled:
            _log.warning("%s: %s", self.folder, words)

    def _claim_without_definition(self, releases: ReleaseStore) -> None:
        """Recognize the folder of an earlier version, which kept a fingerprint of its definition alone, in `owner`."""
        theirs, mine = self._owner.read_text(errors="replace") if self._owner.exists() else "", self._fingerprint
        if theirs == mine:
            return
        if _FINGERPRINT.fullmatch(theirs):
            same = theirs.partition("-")[0] == mine.partition("-")[0]
            raise ConfigurationError(
                f"{self.folder} learned with {'other corrections' if same else 'another base'}: its file 'owner', of an "
                f"earlier version, has {theirs}, and this definition's is {mine}\n{self._carry()}"
            )
        why = f"{self._path} is missing"
        number = self._recognize(releases, why)
        _log.warning("%s; release %d has this base and tables of this stack, so the file is written again", why, number)

    def _recognize(self, releases: ReleaseStore, why: str) -> int:
        """Return the newest release that can be read, which is this definition's; raises `ConfigurationError` otherwise."""
        for release in reversed(releases.all()):
            try:
                release.verify()
                state = releases.state(release)
            except Corrupt as error:
                _log.error("%s", error)
                continue
            try:
                if base_digest(release.path) != self.definition.signature.digest:
                    raise Corrupt(f"release {release.number} is of another base model")
                self.definition.new_stack().load(part(state, "stack"))
            except Corrupt as error:
                raise ConfigurationError(
                    f"{why}, and {self.folder} does not belong to this scorer: {error}; set RIVERDELTA_HOME to another folder, "
                    f"or begin anew: {self._move_away()}"
                ) from None
            return release.number
        raise ConfigurationError(
            f"{why}, and no release can be read that would show whose {self.folder} is; where it is this scorer's, type: "
            f"printf %s {self._fingerprint} > {shlex.quote(str(self._owner))}"
        )

    def _carry(self) -> str:
        """The lines to type where the definition has changed on purpose."""
        carry = f"{self._move_away()} && {rebase_line(self.definition, self._away)}"
        return f"to carry over what it learned, once no service uses it: {carry}\nto begin anew: {self._move_away()}"

    @property
    def _fingerprint(self) -> str:
        return self.definition.fingerprint_of_0_1()

    def _move_away(self) -> str:
        return shlex.join(["mv", str(self.folder), str(self._away)])

    @property
    def _away(self) -> Path:
        """A free place for the folder beside it."""
        names = (f"{self.folder.name}.old{n}" for n in chain([""], count(2)))
        return next(path for path in map(self.folder.with_name, names) if not path.exists())
