"""ReleaseStore: immutable merged models, their index, and the champion among them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riverdelta.errors import Corrupt, NotFound


@dataclass(frozen=True)
class Release:
    """One merged model: its number, file, the journal position and number of examples it contains, when it was made."""

    number: int
    path: Path
    digest: str
    position: int
    examples: int
    time: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def verify(self) -> Path:
        """Return the path of the file; raises `Corrupt` naming it where it is missing or does not match its digest."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise Corrupt(f"release {self.number} cannot be read: {error}") from error
        if _digest(data) != self.digest:
            raise Corrupt(f"release {self.number} ({self.path}) does not match its digest; it is refused")
        return self.path


class ReleaseStore:
    """A folder of `000123.onnx` files, the weights that they share, and `index.json`, which alone makes a file a release."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[Release]:
        """Return the releases, oldest first."""
        return [self._release(entry) for entry in self._index()["releases"]]

    def latest_good(self) -> Release | None:
        """Return the champion if its file is whole, else the newest release that is; None where there is none."""
        releases, champion = self.all(), self._index()["champion"]
        for release in sorted(releases, key=lambda r: (r.number == champion, r.number), reverse=True):
            try:
                release.verify()
            except Corrupt:
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
        release = Release(number, path, _digest(path.read_bytes()), position, examples, time, facts)
        index = self._index()
        entry = {"number": number, "file": path.name, "digest": release.digest, "position": position}
        index["releases"].append({**entry, "examples": examples, "time": time, "facts": dict(facts)})
        index["champion"] = number
        self._write(index)
        return release

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

    def _release(self, entry: dict[str, Any]) -> Release:
        values = {key: entry[key] for key in ("number", "digest", "position", "examples", "time", "facts")}
        return Release(path=self.folder / entry["file"], **values)

    def _index(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = json.loads((self.folder / "index.json").read_text())
        except FileNotFoundError:
            return {"releases": [], "champion": None}
        except ValueError as error:
            raise Corrupt(f"{self.folder / 'index.json'} is no JSON: {error}") from error
        return index

    def _write(self, index: dict[str, Any]) -> None:
        temporary = self.folder / f"index.{os.getpid()}.tmp"
        with temporary.open("w") as file:
            json.dump(index, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / "index.json")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
