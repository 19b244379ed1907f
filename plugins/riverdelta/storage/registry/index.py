"""Index: the list of releases and champions, kept in two files, and rebuilt from the releases themselves if both are lost."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from riverdelta.core.arrays import unpack
from riverdelta.core.digests import file_digest
from riverdelta.core.errors import Corrupt
from riverdelta.graph.files import provenance
from riverdelta.storage.registry.base import Registry
from riverdelta.storage.registry.live import LiveStore

Index = dict[str, Any]

PART, INDEX, COPY = "releases/", "releases/index.json", "releases/index.copy.json"
#: A release that was rewritten has files of another name.
_MODEL = re.compile(r"releases/(\d{6,})(?:-\d+)?\.onnx")
#: The bytes with which a state begins: its digest.
DIGEST_BYTES = 16
#: What the properties of a merged model say about its release.
_COUNTS, _LOSSES = ("position", "examples"), ("loss_base", "loss_served")
#: What version 0.1 called facts.
_SINCE_0_2 = {"log_loss_base": "loss_base", "log_loss_served": "loss_served", "parity_max_logit": "parity_max_error"}
_LISTS = {"releases": list, "champions": list, "shared": dict}
_ENTRY: dict[str, type | tuple[type, ...]] = {
    "number": int, "file": str, "digest": str, "position": int, "examples": int, "time": (int, float), "facts": dict,
}  # fmt: skip


def write(registry: Registry, index: Index) -> None:
    """Replace the index, its copy first, so that the copy is never older; without an index, readers must not see a copy."""
    data = json.dumps(index, indent=1).encode()
    for name in (COPY, INDEX) if registry.size(INDEX) else (INDEX, COPY):
        registry.write(name, data)


def read(registry: Registry) -> tuple[Index, str]:
    """Return the index, and how it was found and what was lost if its file is missing or damaged, otherwise "".

    Raises `Corrupt` if its copy and all releases cannot be read, and `OSError` if its file cannot be read now.
    """
    try:
        return _parsed(registry, INDEX), ""
    except FileNotFoundError:
        fault: Corrupt | None = None
    except Corrupt as error:
        fault = error
    what = str(fault) if fault else f"{registry.path(INDEX)} is missing"
    with suppress(FileNotFoundError, Corrupt):
        return _parsed(registry, COPY), f"{what}; its copy {registry.path(COPY).name} is used, and nothing is lost"
    index, refused = _rebuilt(registry)
    if index["releases"]:
        numbers = ", ".join(str(entry["number"]) for entry in index["releases"])
        lost = "lost are the verdicts, the former champions and the digests by which later damage of these files is found"
        without = f"; {'; '.join(refused)}" if refused else ""
        return index, f"{what}, and so is its copy; releases {numbers} are listed again from their files, " + (
            f"with release {index['champions'][-1]} as the champion; {lost}{without}"
        )
    if fault is not None or any(_number(name) for name in registry.names("releases")):
        raise Corrupt(f"{what}, and no release can be read; restore it from a backup, or move the folder away")
    return index, ""


def _rebuilt(registry: Registry) -> tuple[Index, list[str]]:
    """Return an index of the releases whose model and state can be read, and why each other one cannot."""
    found, refused = dict[int, Index](), []
    # A release that was being rewritten when the index was lost has files of two names: the newer come last.
    for name in sorted(registry.names("releases"), key=lambda name: (len(name), name)):
        if (number := _number(name)) is None:
            continue
        try:
            found[number] = _entry(registry, number, name)
        except (OSError, Corrupt) as error:
            refused.append(f"release {number} is left out: {error}")
    entries = [found[number] for number in sorted(found)]
    champions = [entry["number"] for entry in entries[:1]]
    if (champion := _champion(registry)) in {entry["number"] for entry in entries} - {*champions}:
        champions.append(champion)
    shared = {Path(name).name: file_digest(registry.path(name)) for name in registry.names("releases") if name.endswith(".bin")}
    return {"releases": entries, "champions": champions, "shared": shared}, refused


def _entry(registry: Registry, number: int, name: str) -> Index:
    path, known = registry.path(name), provenance(registry.path(name))
    state = registry.path(name).with_suffix(".state")
    data = registry.read(PART + state.name)
    unpack(data, state)
    facts: Index = {}
    try:
        position, examples = (int(known.get(count, 0)) for count in _COUNTS)
    except ValueError as error:
        raise Corrupt(f"{path} is not a release: {error}") from None
    for loss in _LOSSES:
        with suppress(KeyError, ValueError):
            facts[loss] = float(known.get(loss) or known[f"log_{loss}"])
    if "digest" in known:
        facts["digest"] = known["digest"]
    made = path.stat().st_mtime
    return {"number": number, "file": path.name, "digest": file_digest(path), "state": data[:DIGEST_BYTES].hex()} | {
        "position": position, "examples": examples, "time": made, "facts": facts,
    }  # fmt: skip


def _champion(registry: Registry) -> int | None:
    """Return the champion that the newest intact checkpoint names, or else the release of the live tables."""
    for name in reversed(registry.names("checkpoints")):
        with suppress(OSError, Corrupt, LookupError):
            return int(unpack(registry.read(name), name)["contest/numbers"][2])
    head = LiveStore(registry).head()
    return head.release if head else None


def _number(name: str) -> int | None:
    found = _MODEL.fullmatch(name)
    return int(found[1]) if found else None


def _parsed(registry: Registry, name: str) -> Index:
    path = registry.path(name)
    try:
        index: Index = json.loads(registry.read(name))
    except IsADirectoryError:
        raise Corrupt(f"{path} is a folder; move it away") from None
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path} is not valid JSON: {error}") from error
    if not _is_index(index):
        raise Corrupt(f"{path} is not an index of releases")
    for entry in index["releases"]:
        entry["facts"] = {_SINCE_0_2.get(name, name): fact for name, fact in entry["facts"].items()}
    return index


def _is_index(index: Any) -> bool:
    if not isinstance(index, dict) or not all(isinstance(index.get(name), kind) for name, kind in _LISTS.items()):
        return False
    if not all(isinstance(number, int) for number in index["champions"]):
        return False
    for entry in index["releases"]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kind) for name, kind in _ENTRY.items()):
            return False
    # A bare file name: an index must not lead outside its folder.
    names = [*(entry["file"] for entry in index["releases"]), *index["shared"]]
    return all(name.isprintable() and name == Path(name).name and name not in ("", "..") for name in names)
