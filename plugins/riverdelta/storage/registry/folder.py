"""FolderRegistry: the default registry, a folder on a local disk."""

from __future__ import annotations

from pathlib import Path

from riverdelta.core.durable import overwrite, write


class FolderRegistry:
    """A registry in the folder `folder`, with a subfolder for each part; folders are created at the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, *pieces: bytes, durable: bool = True) -> None:
        """See `Registry.write`."""
        path = self.path(name)
        if durable:
            write(path, *pieces)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            overwrite(path, b"".join(pieces))

    def read(self, name: str) -> bytes:
        """See `Registry.read`."""
        return self.path(name).read_bytes()

    def names(self, part: str) -> list[str]:
        """See `Registry.names`; a name that begins with a dot is an incomplete file of a killed process."""
        return sorted(f"{part}/{path.name}" for path in (self.folder / part).glob("[!.]*") if path.is_file())

    def size(self, name: str) -> int:
        """See `Registry.size`."""
        path = self.path(name)
        return path.stat().st_size if path.exists() else 0

    def delete(self, name: str) -> None:
        """See `Registry.delete`."""
        self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """See `Registry.path`."""
        return self.folder / name
