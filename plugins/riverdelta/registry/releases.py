"""ReleaseStore: immutable merged models, their index, and the champion among them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riverdelta.errors import Corrupt, NotFound
from riverdelta.graph.whole import whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """One merged model: its number, file, the journal position and number of examples it contains, when it was made.

    `shared` are the files of weights beside it, by name, with their digests.
    """

    number: int
    path: Path
    digest: str
    position: int
    examples: int
    time: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    def verify(self) -> Path:
        """Return the path; raises `Corrupt` naming the file, of it and its weights, that is missing or not what it was."""
        for path, expected in ((self.path, self.digest), *((self.path.parent / n, d) for n, d in self.shared.items())):
            try:
                found = _digest(path)
            except OSError as error:
                raise Corrupt(f"release {self.number} cannot be read: {error}") from error
            if found != expected:
                raise Corrupt(f"release {self.number}: {path} does not match its digest; it is refused")
        return self.path


class ReleaseStore:
    """A folder of `000123.onnx` files, the weights that they share, and `index.json`, which alone makes a file a release."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[Release]:
        """Return the releases, oldest first."""
        index = self._index()
        values = ("number", "digest", "position", "examples", "time", "facts")
        return [
            Release(path=self.folder / entry["file"], shared=index["shared"], **{name: entry[name] for name in values})
            for entry in index["releases"]
        ]

    def latest_good(self) -> Release | None:
        """Return the champion if its file is whole, else the newest release that is; None where there is none."""
        releases, champion = self.all(), self._index()["champion"]
        for release in sorted(releases, key=lambda r: (r.number == champion, r.number), reverse=True):
            try:
                release.verify()
            except Corrupt as error:
                _log.error("%s", error)
                continue
            return release
        return None

    def champion(self) -> Release | None:
        """Return the release that passed its test last."""
        number = self._index()["champion"]
        return self.get(number) if number is not None else None

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

    def add(self, number: int, path: Path, position: int, examples: int, time: float, facts: Mapping[str, Any]) -> Release:
        """Make the file at `path`, already whole on disk, a release and the champion."""
        index = self._index()
        # Nobody overwrites shared weights: each file is read for its digest once.
        for weights in self.folder.glob("*.bin"):
            if weights.name not in index["shared"]:
                index["shared"][weights.name] = _digest(weights)
        entry = {"number": number, "file": path.name, "digest": _digest(path), "position": position}
        index["releases"].append({**entry, "examples": examples, "time": time, "facts": dict(facts)})
        index["champion"] = number
        self._write(index)
        return self.get(number)

    def sweep(self, keep: int) -> None:
        """Delete all but the newest `keep` releases and the champion."""
        index = self._index()
        kept = {e["number"] for e in index["releases"][-keep:]} | {index["champion"]}
        gone = [e for e in index["releases"] if e["number"] not in kept]
        if gone:
            index["releases"] = [e for e in index["releases"] if e["number"] in kept]
            self._write(index)
            for entry in gone:
                (self.folder / entry["file"]).unlink(missing_ok=True)

    def _index(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = json.loads((self.folder / "index.json").read_text())
        except FileNotFoundError:
            return {"releases": [], "champion": None, "shared": {}}
        except ValueError as error:
            raise Corrupt(f"{self.folder / 'index.json'} is no JSON: {error}; restore it, or move the folder away") from error
        return index

    def _write(self, index: dict[str, Any]) -> None:
        with whole(self.folder / "index.json") as file:
            file.write(json.dumps(index, indent=1).encode())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
