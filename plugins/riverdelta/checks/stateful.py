"""The law of parts: one whose state is saved goes on from it as if nothing had happened, and refuses what is not its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from random import Random
from typing import Any, TypeVar

import numpy as np

from riverdelta.checks.law import LawBroken, equal
from riverdelta.core.arrays import Array, Arrays, Stateful, part
from riverdelta.core.errors import Corrupt

P = TypeVar("P", bound=Stateful)


def check_stateful(
    make: Callable[[], P],
    feed: Callable[[P, int, int], None],
    rows: int,
    cuts: int = 3,
    anew: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Check that a part's state says everything that its next update depends on; raises `LawBroken` with the array or the cut.

    Parameters
    ----------
    make
        Returns a fresh part, the same each time.
    feed
        `feed(part, start, stop)` lets a part take rows `start` to `stop` of a stream that is the same at each call. A row is
        what the part takes at once: an example, a record, an entry.
    rows
        The length of the stream; long enough that every array changes.
    cuts
        In how many random ways the stream is cut into blocks.
    anew
        Patterns of array names that the part may do without, as `drift/*`: where one is missing or does not fit it may begin
        anew instead of raising `Corrupt`.
    seed
        Of the cuts; a failure is the same again.

    Notes
    -----
    1. However the stream is cut, and wherever the part is saved and another goes on from it, all state has the same bits: with
       its arrays and its parts (where it has `parts`) in any order, and after what was saved has been overwritten.
    2. A part that has taken other rows forgets them when it loads.
    3. `load` raises `Corrupt` naming the array where one is missing, of another type, or has an axis more. It may begin anew
       where there are none: the part was not there when the state was saved.

    >>> from riverdelta import Calibration, Schema, Stack
    >>> def make():
    ...     stack = Stack([Calibration()])
    ...     stack.bind(Schema())
    ...     return stack
    >>> rng = np.random.default_rng(0)
    >>> base, label, one = rng.normal(size=(50, 1)).astype("f"), rng.integers(0, 2, 50).astype("f"), np.ones(50, "f")
    >>> check_stateful(make, lambda stack, a, b: stack.learn({}, base[a:b], label[a:b], one[a:b]), 50)
    """
    random = Random(seed)
    at_once = make()
    feed(at_once, 0, rows)
    expected = _copied(at_once.state())
    for _ in range(cuts):
        edges = sorted({0, rows, *(random.randrange(rows + 1) for _ in range(random.randrange(1, 12)))})
        each = make()
        for start, stop in zip(edges, edges[1:], strict=False):
            if start and random.random() < 0.7:
                used = make()
                feed(used, 0, random.randrange(start))
                each = _moved(each, random.choice([make(), used]), random)
            feed(each, start, stop)
        _same(f"rows cut at {edges}", each.state(), expected)
    _same("a part that was loaded and fed nothing", _moved(at_once, make(), random).state(), expected)
    for name in expected:
        _refuses(make, expected, name, lenient=any(fnmatch(name, pattern) for pattern in anew))


def _moved(old: P, new: P, random: Random) -> P:
    """Let `new` go on from the state of `old`, and spoil what it was given."""
    saved = _shuffled(_copied(old.state()), random)
    new.load(saved)
    for name, each in _shuffled(getattr(new, "parts", {}), random).items():
        each.load(part(saved, name))
    for array in saved.values():
        array.fill(1)
    return new


def _refuses(make: Callable[[], Stateful], expected: Arrays, name: str, lenient: bool) -> None:
    array, rest = expected[name], {key: one for key, one in expected.items() if key != name}
    other = np.zeros(array.shape, np.int16 if array.dtype.kind == "f" else np.float32)
    for how, arrays in {
        "is missing": rest,
        f"is {other.dtype}": {**rest, name: other},
        "has an axis more": {**rest, name: array[None]},
    }.items():
        try:
            make().load(_copied(arrays))
        except Corrupt as error:
            if name.rpartition("/")[2] not in str(error) and not lenient:
                raise LawBroken(f"where {name!r} {how}, the error does not name it: {error}") from error
        except Exception as error:
            raise LawBroken(f"where {name!r} {how}, load raised {error!r}; expected Corrupt that names it") from error
        else:
            if arrays and not lenient:
                raise LawBroken(f"where {name!r} {how}, load raised nothing; expected Corrupt that names it")


def _same(what: str, got: Arrays, expected: Arrays) -> None:
    equal(f"{what}: the names in its state", sorted(got), sorted(expected))
    for name, array in expected.items():
        found = got[name]
        if (found.dtype, found.shape, found.tobytes()) != (array.dtype, array.shape, array.tobytes()):
            raise LawBroken(f"{what}: {name!r} differs from that of a part which took all rows at once")


def _copied(arrays: Arrays) -> dict[str, Array]:
    return {name: np.array(array) for name, array in arrays.items()}


def _shuffled(named: Mapping[str, Any], random: Random) -> dict[str, Any]:
    return dict(random.sample(list(named.items()), len(named)))
