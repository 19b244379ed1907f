"""The laws of a registry hold for both of ours, and bite: each broken one is caught, and the law that catches it is named."""

from functools import cache

from mutants import broken_by, each_law_has_its_own, each_of

from riverdelta.checks import MemoryRegistry, parametrize_with_checks
from riverdelta.storage.registry import FolderRegistry


def opener(kind):
    """What opens a registry: in memory the same one for the same folder."""
    return cache(kind) if issubclass(kind, MemoryRegistry) else kind


@parametrize_with_checks([FolderRegistry, opener(MemoryRegistry)])
def test_the_laws_hold(check):
    check()


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


class TakesNoDurable(FolderRegistry):
    def write(self, name, *pieces):
        super().write(name, *pieces)


class PutsModelsElsewhere(FolderRegistry):
    def path(self, name):
        return super().path(name.replace(".onnx", f".{id(self)}.onnx"))


BROKEN = {
    law: [opener(kind) for kind in kinds]
    for law, kinds in {
        "its_methods_are_those_of_the_contract": [TakesNoDurable],
        "files_come_back_as_they_were_written": [WritesWithoutReplacing, KeepsToItself, DeletesNothing, ListsByTime],
        "models_are_files_on_this_machine": [PutsModelsElsewhere],
        "releases_and_their_champion_stay": [LosesTheChampion, DamagesStates],
        "live_tables_follow_each_other": [DamagesDeltas],
        "the_newest_checkpoint_is_loaded": [DropsTheOlderCheckpoint],
    }.items()
}


@each_of(BROKEN)
def test_a_broken_registry_breaks_the_law(law, mutant):
    assert law in broken_by(mutant)


def test_every_law_has_a_mutant_of_its_own():
    each_law_has_its_own(BROKEN, FolderRegistry)
