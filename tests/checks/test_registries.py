"""The laws of a registry hold for both of ours, and bite: each broken one is caught, and the law that catches it is named."""

from functools import cache

import pytest

from riverdelta.checks import LawBroken, MemoryRegistry, check_registry
from riverdelta.core.errors import Corrupt
from riverdelta.storage.registry import FolderRegistry


def opener(kind):
    """What opens a registry: in memory the same one for the same folder."""
    return cache(kind) if issubclass(kind, MemoryRegistry) else kind


@pytest.mark.parametrize("kind", [FolderRegistry, MemoryRegistry])
def test_the_laws_hold(kind):
    check_registry(opener(kind))


class LosesTheChampion(MemoryRegistry):
    def write(self, name, *pieces, durable=True):
        if name == "releases/index.json" and name in self._files and b"0,\n  1" in b"".join(pieces):
            return
        super().write(name, *pieces, durable=durable)


class DamagesDeltas(FolderRegistry):
    def read(self, name):
        data = super().read(name)
        return data[:-1] + b"x" if name.endswith("30.live") else data


class DamagesStates(FolderRegistry):
    def read(self, name):
        return super().read(name)[::-1] if name.endswith(".state") else super().read(name)


class WritesWithoutReplacing(FolderRegistry):
    def write(self, name, *pieces, durable=True):
        before = self.read(name) if self.size(name) else b""
        super().write(name, b"".join(pieces) + before[len(b"".join(pieces)) :], durable=durable)


class KeepsToItself(FolderRegistry):
    """What one hold writes the other does not see."""

    def __init__(self, folder):
        super().__init__(folder / str(id(self)))


class DeletesNothing(MemoryRegistry):
    def delete(self, name):
        pass


class ListsByTime(MemoryRegistry):
    def names(self, part):
        return [name for name in self._files if name.startswith(part)]


class DropsTheOlderCheckpoint(MemoryRegistry):
    def write(self, name, *pieces, durable=True):
        if name.endswith(".checkpoint"):
            for other in self.names("checkpoints"):
                self.delete(other)
        super().write(name, *pieces, durable=durable)


BROKEN = {
    LosesTheChampion: "releases_and_their_champion_stay: the champions",
    DamagesDeltas: "live_tables_follow",
    DamagesStates: "000000.state cannot be used",
    WritesWithoutReplacing: "files_come_back",
    KeepsToItself: "No such file|files_come_back",
    DeletesNothing: "files_come_back",
    ListsByTime: "files_come_back",
    DropsTheOlderCheckpoint: "the_newest_checkpoint",
}


@pytest.mark.parametrize(("broken", "law"), BROKEN.items(), ids=[broken.__name__ for broken in BROKEN])
def test_a_broken_registry_is_named_with_the_law_it_breaks(broken, law):
    with pytest.raises((LawBroken, Corrupt, OSError), match=law):
        check_registry(opener(broken))
