"""Differences: describes how a definition differs from the one that a home was made with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from riverdelta.graph.features import RAW
from riverdelta.learning.identity import OWN, Corrected, Identity
from riverdelta.learning.options import default


def differences(stored: Identity, mine: Identity, beyond: Mapping[str, Collection[str]] = {}) -> list[str]:
    """Return a sentence for each difference that makes `mine` learn differently from `stored`; [] if both learn the same.

    `beyond` are options of `mine`, by correction, whose changed default is not a change of the code (see `beyond_reach`).
    """
    found = []
    if mine.base.digest != stored.base.digest:
        found.append(
            f"the base file {mine.base.file} differs: its digest is {mine.base.digest[:16]} here, and was "
            f"{stored.base.digest[:16]} (of {stored.base.file})"
        )
    if mine.output.read != stored.output.read:
        here, was = (
            f"{one.output.tensor!r} as a {one.output.kind}{' at its raw margin' if one.output.margin else ''}"
            for one in (mine, stored)
        )
        found.append(f"the corrected output is {here} here, and was {was}")
    if mine.prepare != stored.prepare:
        found.append(f"prepare is {_shown(mine.prepare)} here, and was {_shown(stored.prepare)}")
    if mine.task != stored.task:
        found.append(f"task is {mine.task} here, and was {stored.task}")
    theirs, ours = ({c.name: c for c in one.corrections} for one in (stored, mine))
    both = [name for name in ours if name in theirs]
    for name in dict.fromkeys(column for n in both for column in ours[n].reads if column in theirs[n].reads):
        if (here := mine.source(name)) != (was := stored.source(name)):
            found.append(f"{name!r} is {here} here, and was {was}")
    found += [f"correction {name!r} was removed" for name in theirs if name not in ours]
    found += [f"correction {name!r} was added" for name in ours if name not in theirs]
    if both != (order := [name for name in theirs if name in ours]):
        found.append(f"the order of the corrections is {', '.join(both)} here, and was {', '.join(order)}")
    for name in both:
        found += _of_correction(theirs[name], ours[name], beyond.get(name, ()))
    return found


def lacking(stored: Identity, mine: Identity) -> list[str]:
    """Return the columns that `mine` needs to learn a journal of `stored`, and that this journal does not keep."""
    part_of = {part: name for name, listed in mine.names.items() for part in listed}
    reads = dict.fromkeys(name for c in mine.corrections for name in c.reads)

    def has(name: str) -> bool:
        return name in stored.journal and stored.source(name) == mine.source(name)

    def has_raw(name: str) -> bool:
        kept = (stored.journal.get(RAW + name), stored.journal.get(name))
        return stored.sent(name) == mine.sent(name) and mine.sent(name) in kept

    missing = [name for name in reads if not has(name)]
    # The base runs only where it is another one, or for a tap.
    runs = stored.reads_of_base != mine.reads_of_base or any(n in mine.taps for n in missing)
    inputs = mine.base.inputs if mine.prepare is None else mine.columns
    sent = [part_of.get(name, name) for name in missing if name not in mine.taps]
    needed = dict.fromkeys([*(inputs if runs else ()), *sent])
    return [f"{name!r} ({mine.sent(name)})" for name in needed if not has_raw(name)]


def _of_correction(stored: Corrected, mine: Corrected, beyond: Collection[str]) -> Iterator[str]:
    what = f"{mine.kind} {mine.name!r}"
    # The module of a user's class depends on how its file is imported: it may change.
    if mine.kind != stored.kind or (mine.module == OWN) != (stored.module == OWN):
        yield f"correction {mine.name!r} is a {mine.module}.{mine.kind} here, and was a {stored.module}.{stored.kind}"
        return
    left = {*mine.incidental, *stored.incidental, *({*beyond} - {*stored.chosen})}
    found = [f"{what}: {words}" for words in _of_object(stored.model_dump(), mine.model_dump(), "", left)]
    if not found and mine.tables != stored.tables:
        found = [f"{what}: its tables are {mine.tables} here, and were {stored.tables}"]
    yield from found


def _changes(stored: Any, mine: Any, path: str) -> Iterator[str]:
    """Yield a sentence for each leaf in which two values differ, with its path."""
    if _is_object(stored) and _is_object(mine) and stored["kind"] == mine["kind"]:
        yield from _of_object(stored, mine, f"{path}.")
    elif _is_named(stored) and _is_named(mine) and list(stored) == list(mine):
        for name, was in stored.items():
            yield from _changes(was, mine[name], f"{path}.{name}")
    elif isinstance(stored, list) and isinstance(mine, list) and len(stored) == len(mine):
        for at, (was, here) in enumerate(zip(stored, mine, strict=True)):
            yield from _changes(was, here, f"{path}[{at}]")
    elif stored != mine or _is_named(stored):  # the order of named values matters: they may be steps
        yield f"{path} is {_shown(mine)} here, and was {_shown(stored)}"


def _of_object(stored: Mapping[str, Any], mine: Mapping[str, Any], path: str, left: Collection[str] = ()) -> Iterator[str]:
    """Yield the options that differ; one that only one side has differs if its value is not its default."""
    theirs, ours = stored["parameters"], mine["parameters"]
    for name in dict.fromkeys((*theirs, *ours)):
        if name in left:
            continue
        if name in theirs and name in ours:
            yield from _changes(theirs[name], ours[name], f"{path}{name}")
        elif name in mine["chosen"]:
            yield f"{path}{name} is {_shown(ours[name])} here, and this option did not exist"
        elif name in stored["chosen"]:
            yield f"{path}{name} was {_shown(theirs[name])}, and this option no longer exists"


def _is_object(stored: Any) -> bool:
    return isinstance(stored, dict) and "parameters" in stored


def _is_named(stored: Any) -> bool:
    return isinstance(stored, dict) and not {"kind", "float"} & set(stored)


def _shown(stored: Any) -> str:
    if isinstance(stored, list):
        return f"[{', '.join(map(_shown, stored))}]"
    if not isinstance(stored, dict) or "float" in stored:
        return repr(default(stored))
    named = {name: stored["parameters"][name] for name in stored["chosen"]} if _is_object(stored) else stored
    inner = ", ".join(f"{name}={_shown(one)}" for name, one in named.items())
    return f"{stored['kind']}({stored.get('shown', inner)})" if "kind" in stored else f"({inner})"
