"""The laws of parts: a part continues from its saved state without a difference, and refuses state that does not fit.

Each law is a function of a `Part`; it raises `LawBroken` with the array or the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from random import Random
from typing import Any

import numpy as np

from riverdelta.checks.law import laws_of, refused, same_arrays
from riverdelta.core.arrays import Array, Arrays, Stateful, part
from riverdelta.core.errors import Corrupt


@dataclass(frozen=True)
class Part:
    """Tells the laws how to make a part whose state is saved, and how to feed it.

    Parameters
    ----------
    make
        Returns a fresh part, the same at each call.
    feed
        `feed(part, start, stop)` feeds rows `start` to `stop` of a stream that is the same at each call. A row is the unit that
        the part takes: an example, a record, an entry.
    rows
        The length of the stream; make it long enough that every array changes.
    cuts
        The number of random ways to cut the stream into blocks. Raise it to search longer for a failure.
    optional
        Patterns of array names, as `drift/*`, without which the part may start over instead of raising `Corrupt`: it has them
        since a later version than some states, as corrections have limits of numbers.
    seed
        The seed of the cuts, so that a failure can be repeated.

    >>> from riverdelta import Calibration, Schema, Stack
    >>> from riverdelta.checks import check
    >>> def make():
    ...     stack = Stack([Calibration()])
    ...     stack.bind(Schema())
    ...     return stack
    >>> rng = np.random.default_rng(0)
    >>> base, label, one = rng.normal(size=(50, 1)).astype("f"), rng.integers(0, 2, 50).astype("f"), np.ones(50, "f")
    >>> check(Part(make, lambda stack, a, b: stack.learn({}, base[a:b], label[a:b], one[a:b]), 50,
    ...            optional=["*/limit", "*/window"]))
    {}
    """

    make: Callable[[], Any]
    feed: Callable[[Any, int, int], None]
    rows: int
    cuts: int = 3
    optional: Sequence[str] = ()
    seed: int = 0

    def fed(self) -> Stateful:
        """Return a part that was fed all rows at once."""
        made: Stateful = self.make()
        self.feed(made, 0, self.rows)
        return made


def it_continues_from_its_state(of: Part) -> None:
    """However the stream is cut, and wherever another part continues from saved state, the state has the same bits: with its
    arrays and its `parts`, if any, loaded in any order, and after the saved arrays have been overwritten."""
    random, expected = Random(of.seed), of.fed().state()
    for _ in range(of.cuts):
        edges = sorted({0, of.rows, *(random.randrange(of.rows + 1) for _ in range(random.randrange(1, 12)))})
        each = of.make()
        for start, stop in zip(edges, edges[1:], strict=False):
            if start and random.random() < 0.7:
                each = _moved(each, of.make(), random)
            of.feed(each, start, stop)
        same_arrays(f"rows cut at {edges}", each.state(), expected)


def it_forgets_its_rows_when_it_loads(of: Part) -> None:
    """A part that has taken rows forgets them when it loads a later state, and continues from that alone."""
    random, expected = Random(of.seed), of.fed().state()
    for stop in (of.rows, random.randrange(1, of.rows)):
        each, used = of.make(), of.make()
        of.feed(each, 0, stop)
        of.feed(used, 0, random.randrange(stop))
        used = _moved(each, used, random)
        of.feed(used, stop, of.rows)
        same_arrays(f"a part that loaded the state at {stop} over rows of its own", used.state(), expected)


def it_refuses_what_is_not_its_own(of: Part) -> None:
    """`load` raises `Corrupt` naming an array that is missing, has another type, or has one more axis.

    Without any arrays it may start over: the part did not exist when the state was saved.
    """
    expected = of.fed().state()
    for name in expected:
        _refuses(of.make, expected, name, optional=any(fnmatch(name, pattern) for pattern in of.optional))


LAWS = laws_of(globals())


def _moved(old: Any, new: Any, random: Random) -> Any:
    """Load the state of `old` into `new`, overwrite the arrays that it was given, and return it."""
    saved = _shuffled(_copied(old.state()), random)
    new.load(saved)
    for name, each in _shuffled(getattr(new, "parts", {}), random).items():
        each.load(part(saved, name))
    for array in saved.values():
        array.fill(1)
    return new


def _refuses(make: Callable[[], Stateful], expected: Arrays, name: str, optional: bool) -> None:
    array, rest = expected[name], {key: one for key, one in expected.items() if key != name}
    other = np.zeros(array.shape, np.int16 if array.dtype.kind == "f" else np.float32)
    for how, arrays in {
        "is missing": rest,
        f"is {other.dtype}": {**rest, name: other},
        "has one more axis": {**rest, name: array[None]},
    }.items():
        law = refused(f"a state whose {name!r} {how}", Corrupt, name.rpartition("/")[2])
        with suppress(Corrupt) if optional or not arrays else law:
            make().load(_copied(arrays))


def _copied(arrays: Arrays) -> dict[str, Array]:
    return {name: np.array(array) for name, array in arrays.items()}


def _shuffled(named: Mapping[str, Any], random: Random) -> dict[str, Any]:
    return dict(random.sample(list(named.items()), len(named)))
