"""ReleaseStore: immutable merged models, their index, and the champion among them."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riverdelta.core.arrays import Arrays, read_arrays, write_arrays
from riverdelta.core.digests import file_digest
from riverdelta.core.durable import atomic
from riverdelta.core.errors import Corrupt, NotFound

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 16
_LISTS = {"releases": list, "champions": list, "shared": dict}
_ENTRY: dict[str, type | tuple[type, ...]] = {
    "number": int, "file": str, "digest": str, "position": int, "examples": int, "time": (int, float), "facts": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Release:
    """One merged model: its number, file, the journal position and number of examples it contains, when it was made.

    `shared` are the files of weights beside it, by name, with their digests. `state_path` holds the learner's whole state,
    of which the first 16 bytes are `state_digest` ("" in an index of before it was kept).
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

    @property
    def bytes(self) -> int:
        """The bytes that it alone takes on disk."""
        return sum(path.stat().st_size for path in (self.path, self.state_path) if path.exists())

    def verify(self) -> Path:
        """Return the path; raises `Corrupt` naming the file, of it and its weights, that is missing or not what it was."""
        for path, expected in ((self.path, self.digest), *((self.path.parent / n, d) for n, d in self.shared.items())):
            try:
                found = file_digest(path)
            except OSError as error:
                raise Corrupt(f"release {self.number} cannot be read: {error}") from error
            if found != expected:
                raise Corrupt(f"release {self.number}: {path} does not match its digest; it is refused")
        return self.path


class ReleaseStore:
    """A folder of `000123.onnx` and `000123.state` files, the weights that the models share, and `index.json`.

    The index alone makes a file a release. The first release is the champion until `promote` names another.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[Release]:
        """Return the releases, oldest first."""
        index = self._index()
        values = ("number", "digest", "position", "examples", "time", "facts")
        return [
            Release(
                path=self.folder / entry["file"],
                shared=index["shared"],
                state_digest=entry.get("state", ""),
                **{name: entry[name] for name in values},
            )
            for entry in index["releases"]
        ]

    def latest_good(self) -> Release | None:
        """Return the champion if its file is whole, else the newest former one, else the newest release that is whole."""
        rank = {number: place for place, number in enumerate(self.champions())}
        return _first_whole(sorted(self.all(), key=lambda r: (rank.get(r.number, -1), r.number), reverse=True))

    def newest_good(self) -> Release | None:
        """Return the newest release that is whole, champion or not."""
        return _first_whole(reversed(self.all()))

    def champion(self) -> Release | None:
        """Return the release that was promoted last; None in an empty store."""
        champions = self.champions()
        return self.get(champions[-1]) if champions else None

    def champions(self) -> list[int]:
        """Return the numbers of all that were champion and still exist, in order; the last one is the champion."""
        index = self._index()
        kept = {entry["number"] for entry in index["releases"]}
        return [number for number in index["champions"] if number in kept]

    def promote(self, number: int) -> None:
        """Make a release the champion; raises `NotFound` where there is none of that number."""
        self.get(number)
        index = self._index()
        if index["champions"][-1:] != [number]:
            index["champions"] = [*(n for n in index["champions"] if n != number), number]
            self._write(index)

    def judge(self, number: int, facts: Mapping[str, Any]) -> None:
        """Add facts to a release, such as the verdict on it; one that is gone meanwhile is passed over."""
        index = self._index()
        for entry in index["releases"]:
            if entry["number"] == number and entry["facts"] != {**entry["facts"], **facts}:
                entry["facts"] |= facts
                self._write(index)

    def state(self, release: Release) -> Arrays:
        """Return the learner's state at a release; raises `Corrupt` where it is missing, damaged or another release's."""
        arrays = read_arrays(release.state_path)
        # The file matches its own digest by now: whether it is ours, the index knows.
        if release.state_digest not in ("", _head(release.state_path)):
            raise Corrupt(f"{release.state_path} cannot be used: it is not what release {release.number} was made with")
        return arrays

    def get(self, number: int) -> Release:
        """Return a release by number; raises `NotFound` listing those that exist."""
        for release in self.all():
            if release.number == number:
                return release
        listed = ", ".join(str(r.number) for r in self.all())
        raise NotFound(f"there is no release {number}; there are: {listed or 'none'}")

    def next_path(self) -> tuple[int, Path]:
        """Return the next release's number and where its file belongs."""
        number = max((r.number for r in self.all()), default=-1) + 1
        return number, self.folder / f"{number:06d}.onnx"

    def add(
        self, number: int, path: Path, position: int, examples: int, time: float, facts: Mapping[str, Any], state: Arrays
    ) -> Release:
        """Make the file at `path`, already whole on disk, a release with the learner's `state`; the first is the champion."""
        write_arrays(path.with_suffix(".state"), state)
        index = self._index()
        # Nobody overwrites shared weights: each file is read for its digest once.
        for weights in self.folder.glob("*.bin"):
            if weights.name not in index["shared"]:
                index["shared"][weights.name] = file_digest(weights)
        entry = {"number": number, "file": path.name, "digest": file_digest(path), "position": position}
        entry["state"] = _head(path.with_suffix(".state"))
        index["releases"].append({**entry, "examples": examples, "time": time, "facts": dict(facts)})
        index["champions"] = index["champions"] or [number]
        self._write(index)
        return self.get(number)

    def sweep(self, keep: int, max_bytes: int, spare: Collection[int] = ()) -> None:
        """Delete the oldest releases beyond the newest `keep`, and while all take over `max_bytes`.

        The champion, the newest and those in `spare` always stay.
        """
        releases = self.all()
        spared = {*spare, *self.champions()[-1:], *(r.number for r in releases[-1:])}
        size, gone = self.bytes(), []
        for place, release in enumerate(releases):
            if release.number not in spared and (place < len(releases) - keep or size > max_bytes):
                size -= release.bytes
                gone.append(release)
        if gone:
            index = self._index()
            index["releases"] = [e for e in index["releases"] if e["number"] not in {r.number for r in gone}]
            self._write(index)
            for release in gone:
                for path in (release.path, release.state_path):
                    path.unlink(missing_ok=True)

    def bytes(self) -> int:
        """Return what the folder takes on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def _index(self) -> dict[str, Any]:
        path = self.folder / "index.json"
        try:
            index: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {"releases": [], "champions": [], "shared": {}}
        except (ValueError, RecursionError) as error:
            raise Corrupt(f"{path} is no JSON: {error}; restore it, or move the folder away") from error
        if not _is_index(index):
            raise Corrupt(f"{path} is no index of releases; restore it, or move the folder away")
        return index

    def _write(self, index: dict[str, Any]) -> None:
        with atomic(self.folder / "index.json") as file:
            file.write(json.dumps(index, indent=1).encode())


def _first_whole(releases: Iterable[Release]) -> Release | None:
    for release in releases:
        try:
            release.verify()
        except Corrupt as error:
            _log.error("%s", error)
            continue
        return release
    return None


def _is_index(index: Any) -> bool:
    if not isinstance(index, dict) or not all(isinstance(index.get(name), kind) for name, kind in _LISTS.items()):
        return False
    if not all(isinstance(number, int) for number in index["champions"]):
        return False
    for entry in index["releases"]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kind) for name, kind in _ENTRY.items()):
            return False
    # A bare name: an index leads nowhere outside its folder.
    names = [*(entry["file"] for entry in index["releases"]), *index["shared"]]
    return all(name.isprintable() and name == Path(name).name and name not in ("", "..") for name in names)


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_DIGEST_BYTES).hex()
