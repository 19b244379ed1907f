"""Retention: which parts of a log accept no more feedback, and which are deleted; the same for every backend."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate, pairwise

from riverdelta.storage.log.base import Needed, Request

_NOW = -1


@dataclass
class Part:
    """A run of a log's records that are deleted together; only the newest part grows.

    `spans` are each incarnation's first and last request in a retired part, `size` its bytes, and `written` when it was last
    written to (Unix seconds).
    """

    number: int
    first: int
    spans: dict[int, Request] = field(default_factory=dict)
    size: int = 0
    written: float = 0.0


@dataclass(frozen=True)
class Retention:
    """The decisions so far: the newest record at the moment when each part was retired, and when it was released.

    `swept` has the newest deleted request of each incarnation.
    """

    swept: Mapping[int, int]
    retired: Mapping[int, int]
    released: Mapping[int, int]

    def step(
        self,
        parts: Sequence[Part],
        behind: int,
        max_age: float,
        max_bytes: int,
        now: float,
        needed: Needed,
        locked: bool = False,
    ) -> tuple[Retention, list[Part]]:
        """Return the new decisions, without a position yet, and the parts to delete; none while the log is `locked`.

        `behind` is the position up to which records may be deleted, `max_age` is in seconds, `now` in Unix seconds; `needed`
        returns whether a row of some requests is still needed for what has been learned so far.

        1. A part that ends at or before `behind` is retired when it is older than `max_age`, or all parts exceed `max_bytes`:
           its rows accept no feedback from then on. A part was last written to no later than those after it and `now`,
           whatever a clock that was wrong has dated it.
        2. Once `behind` reaches the newest record of that moment, and none of its rows is `needed`, it is released.
        3. Once `behind` reaches the newest record of that moment, it is deleted: all feedback for its rows is learned and
           saved, whichever checkpoint a restart begins with.
        """
        there = {part.number: part for part in parts}
        gone = [] if locked else [there[n] for n, at in sorted(self.released.items()) if n in there and at <= behind]
        swept, deleted = dict(self.swept), {part.number for part in gone}
        for part in gone:
            for incarnation, (_, request) in part.spans.items():
                swept[incarnation] = max(swept.get(incarnation, -1), request)
        retired, released = ({n: at for n, at in of.items() if n not in deleted} for of in (self.retired, self.released))
        for number, at in sorted(retired.items()):
            if number not in released and number in there:
                if at > behind or needed(there[number].spans):
                    break
                released[number] = _NOW
        left = [part for part in parts if part.number not in self.retired]
        size = sum(part.size for part in left)
        ages = [*accumulate((now - part.written for part in reversed(left)), max, initial=0.0)][:0:-1]
        for (part, following), age in zip(pairwise(left), ages, strict=False):
            if following.first - 1 > behind or not (age > max_age or size > max_bytes):
                break
            size -= part.size
            retired[part.number] = _NOW
        return Retention(swept, retired, released), gone

    def at(self, last: int) -> Retention:
        """Return it with the new decisions at the newest record, `last`: rows accepted feedback until then."""
        retired, released = ({n: last if at == _NOW else at for n, at in of.items()} for of in (self.retired, self.released))
        return Retention(self.swept, retired, released)

    def facts(self) -> dict[str, str]:
        """Return it as strings by name."""
        return {each.name: json.dumps(getattr(self, each.name)) for each in fields(self)}
