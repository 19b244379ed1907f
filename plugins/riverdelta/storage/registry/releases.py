"""ReleaseStore: immutable merged models, their index, and the current champion."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riverdelta.core.arrays import Arrays, pack, unpack
from riverdelta.core.digests import file_digest
from riverdelta.core.durable import write
from riverdelta.core.errors import Corrupt, NotFound
from riverdelta.storage.registry import index
from riverdelta.storage.registry.base import Registry
from riverdelta.storage.registry.index import DIGEST_BYTES, PART

_log = logging.getLogger(__name__)
#: Names of files that an unfinished or deleted release may leave.
_FILES = re.compile(r"releases/\d{6,}(-\d+)?\.(onnx|state)")


@dataclass(frozen=True)
class Release:
    """One merged model: its number, its file, the journal position and examples it contains, and when it was made.

    `shared` are the weight files beside it, by name, with their digests. `state_path` holds the learner's complete state,
    whose first 16 bytes are `state_digest` ("" in an older index).
    """

    number: int
    path: Path
    digest: str
    position: int
    examples: int
    time: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    state_digest: str = ""

    @property
    def state_path(self) -> Path:
        """The file of the learner's state at this release."""
        return self.path.with_suffix(".state")

    def verify(self) -> Path:
        """Return the path; raises `Corrupt` naming the model or weight file that is missing or has changed."""
        for path, expected in ((self.path, self.digest), *((self.path.parent / n, d) for n, d in self.shared.items())):
            try:
                found = file_digest(path)
            except OSError as error:
                raise Corrupt(f"release {self.number} cannot be read: {error}") from error
            if found != expected:
                raise Corrupt(f"release {self.number}: {path} does not match its digest; the release is refused")
        return self.path


class ReleaseStore:
    """`releases/` of a registry: `000123.onnx` and `000123.state`, the weights that the models share, and `index.json`.

    Only a file in the index is a release. The first release is the champion until `promote` names another. An index that is
    missing or damaged is rebuilt and logged at every read; the `owner` of the releases, their only writer, also writes it.
    """

    def __init__(self, registry: Registry, owner: bool = False) -> None:
        self.registry, self._owner, self._noticed = registry, owner, ""

    def all(self) -> list[Release]:
        """Return the releases, oldest first."""
        known = self._index()
        values = ("number", "digest", "position", "examples", "time", "facts")
        return [
            Release(
                path=self.registry.path(PART + entry["file"]),
                shared=known["shared"],
                state_digest=entry.get("state", ""),
                **{name: entry[name] for name in values},
            )
            for entry in known["releases"]
        ]

    def latest_good(self) -> Release | None:
        """Return the champion if it is intact, else the newest intact former champion, else the newest intact release."""
        rank = {number: place for place, number in enumerate(self.champions())}
        return _first_intact(sorted(self.all(), key=lambda r: (rank.get(r.number, -1), r.number), reverse=True))

    def intact(self, number: int | None = None) -> Release:
        """Return a release, by default the newest intact one; raises `NotFound` or `Corrupt` if there is none, naming why."""
        if number is not None:
            found = self.get(number)
            found.verify()
            return found
        newest = _first_intact(reversed(self.all()))
        if newest is None:
            raise Corrupt(f"no release in {self.registry.path(PART)} is intact; restore one from a backup")
        return newest

    def restorable(self) -> Release | None:
        """Return the newest release whose model and state are intact, None if there is none."""
        return _first_intact(reversed(self.all()), lambda release: (release.verify(), self.state(release)))

    def champion(self) -> Release | None:
        """Return the release that was promoted last; None in an empty store."""
        champions = self.champions()
        return self.get(champions[-1]) if champions else None

    def champions(self) -> list[int]:
        """Return the numbers of all champions that still exist, in order; the last one is the current."""
        known = self._index()
        kept = {entry["number"] for entry in known["releases"]}
        return [number for number in known["champions"] if number in kept]

    def promote(self, number: int) -> None:
        """Make a release the champion; raises `NotFound` if it does not exist."""
        self.get(number)
        known = self._index()
        if known["champions"][-1:] != [number]:
            known["champions"] = [*(n for n in known["champions"] if n != number), number]
            index.write(self.registry, known)

    def judge(self, number: int, facts: Mapping[str, Any]) -> None:
        """Add facts to a release, such as its verdict; a release that no longer exists is skipped."""
        known = self._index()
        for entry in known["releases"]:
            if entry["number"] == number and entry["facts"] != {**entry["facts"], **facts}:
                entry["facts"] |= facts
                index.write(self.registry, known)

    def state(self, release: Release) -> Arrays:
        """Return the learner's state at a release; raises `Corrupt` if it is missing, damaged or belongs to another release."""
        path = release.state_path
        try:
            data = self.registry.read(PART + path.name)
        except OSError as error:
            raise Corrupt(f"{path} cannot be used: {error}") from error
        arrays = unpack(data, path)
        # The file matches its own digest; the index shows whether it is this release's.
        if release.state_digest not in ("", data[:DIGEST_BYTES].hex()):
            raise Corrupt(f"{path} cannot be used: it does not belong to release {release.number}")
        return arrays

    def get(self, number: int) -> Release:
        """Return a release by number; raises `NotFound` with the numbers that exist."""
        for release in self.all():
            if release.number == number:
                return release
        listed = ", ".join(str(r.number) for r in self.all())
        raise NotFound(f"there is no release {number}; there are: {listed or 'none'}")

    def next_path(self) -> tuple[int, Path]:
        """Return the number and the path of the next release."""
        number = max((r.number for r in self.all()), default=-1) + 1
        return number, self.registry.path(f"{PART}{number:06d}.onnx")

    def add(
        self, number: int, path: Path, position: int, examples: int, time: float, facts: Mapping[str, Any], state: Arrays
    ) -> Release:
        """Add the complete file at `path` as a release with the learner's `state`; the first is the champion.

        If that fails, nothing is left behind.
        """
        try:
            known = self._index()  # before the state: without an index, this would be one of the releases found
            digest, body = pack(state)
            self.registry.write(PART + path.with_suffix(".state").name, digest, body)
            # Shared weights are never overwritten, so each file is read for its digest once.
            for name in self.registry.names("releases"):
                if name.endswith(".bin") and Path(name).name not in known["shared"]:
                    known["shared"][Path(name).name] = file_digest(self.registry.path(name))
            entry = {"number": number, "file": path.name, "digest": file_digest(path), "state": digest.hex()}
            entry |= {"position": position, "examples": examples, "time": time, "facts": dict(facts)}
            known["releases"].append(entry)
            known["champions"] = known["champions"] or [number]
            index.write(self.registry, known)
        except BaseException:
            self._tidy()
            raise
        return self.get(number)

    def rewrite(self, release: Release, model: bytes, state: Arrays, facts: Mapping[str, Any]) -> None:
        """Replace the model and the state of a release, in files of new names, and some facts; readers see all or nothing."""
        known, times = self._index(), int(release.path.stem.partition("-")[2] or 0) + 1
        path = self.registry.path(f"{PART}{release.number:06d}-{times}.onnx")
        write(path, model)
        digest, body = pack(state)
        self.registry.write(PART + path.with_suffix(".state").name, digest, body)
        for entry in known["releases"]:
            if entry["number"] == release.number:
                entry |= {"file": path.name, "digest": file_digest(path), "state": digest.hex()}
                entry["facts"] |= facts
        index.write(self.registry, known)
        self._tidy()

    def sweep(self, keep: int, max_bytes: int, spare: Collection[int] = ()) -> None:
        """Delete the oldest releases beyond `keep` or while all exceed `max_bytes`, and files that failed releases left.

        The champion, the newest and those in `spare` always stay.
        """
        releases = self.all()
        spared = {*spare, *self.champions()[-1:], *(r.number for r in releases[-1:])}
        size, gone = self.bytes(), set()
        for place, release in enumerate(releases):
            if release.number not in spared and (place < len(releases) - keep or size > max_bytes):
                size -= self.size(release)
                gone.add(release.number)
        if gone:
            known = self._index()
            known["releases"] = [entry for entry in known["releases"] if entry["number"] not in gone]
            index.write(self.registry, known)
        self._tidy()

    def _tidy(self) -> None:
        """Delete models and states that are not in the index."""
        kept = {name for release in self.all() for name in self._names(release)}
        for name in self.registry.names("releases"):
            if _FILES.fullmatch(name) and name not in kept:
                self.registry.delete(name)

    def size(self, release: Release) -> int:
        """Return the size of a release in bytes, without shared weights."""
        return sum(map(self.registry.size, self._names(release)))

    def bytes(self) -> int:
        """Return the size of all releases in bytes."""
        return sum(map(self.registry.size, self.registry.names("releases")))

    def _names(self, release: Release) -> tuple[str, str]:
        return PART + release.path.name, PART + release.state_path.name

    def _index(self) -> index.Index:
        found, notice = index.read(self.registry)
        if notice != self._noticed:
            self._noticed = notice
            if notice:
                _log.error("%s", notice)
        if notice and self._owner:
            index.write(self.registry, found)
        return found


def _first_intact(releases: Iterable[Release], check: Callable[[Release], object] = Release.verify) -> Release | None:
    for release in releases:
        try:
            check(release)
        except Corrupt as error:
            _log.error("%s", error)
            continue
        return release
    return None
