"""MemoryRegistry: a registry in the memory of one process, for tests and notebooks."""

from __future__ import annotations

from pathlib import Path

from riverdelta.storage.registry import FolderRegistry


class MemoryRegistry(FolderRegistry):
    """Keeps files in a dict, except models, which ONNX Runtime reads from a folder; all users in the process share one.

    Parameters
    ----------
    folder
        The folder of the models.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files: dict[str, bytes] = {}

    def write(self, name: str, *pieces: bytes, durable: bool = True) -> None:
        """See `Registry.write`."""
        self._files[name] = b"".join(pieces)

    def read(self, name: str) -> bytes:
        """See `Registry.read`."""
        try:
            return self._files[name]
        except KeyError:
            raise FileNotFoundError(f"there is no {name} in this registry") from None

    def names(self, part: str) -> list[str]:
        """See `Registry.names`."""
        return sorted({*(name for name in list(self._files) if name.startswith(f"{part}/")), *super().names(part)})

    def size(self, name: str) -> int:
        """See `Registry.size`."""
        return len(self._files[name]) if name in self._files else super().size(name)

    def delete(self, name: str) -> None:
        """See `Registry.delete`."""
        self._files.pop(name, None)
        super().delete(name)
