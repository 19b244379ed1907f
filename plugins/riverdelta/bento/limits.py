"""Limits: how many requests and rows one caller may send to one worker in a second."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from riverdelta.core.errors import RateLimited, TooLarge

#: Whoever was silent longest is forgotten first, and starts afresh: only ever-changing callers gain by that.
_MOST_CALLERS = 10_000


class Bucket:
    """A token bucket (Turner 1986): it fills at `rate` a second up to `capacity`, and a request takes its size out of it.

    level ← min(capacity, level + rate · (now − then)). With `now` from one clock that never goes back, at most
    capacity + rate · t is taken in any t seconds.

    >>> bucket = Bucket(2.0, 2.0, now=0.0)
    >>> [bucket.take(1, 0.0), bucket.take(1, 0.0), bucket.take(1, 0.0), bucket.take(1, 0.5)]
    [0.0, 0.0, 0.5, 0.0]
    """

    __slots__ = ("_level", "_then", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate, self.capacity = rate, capacity
        self._level, self._then = capacity, now

    def take(self, size: float, now: float) -> float:
        """Take `size` and return 0.0, or take nothing and return the seconds until it is there (inf where it never is)."""
        level = min(self.capacity, self._level + self.rate * max(0.0, now - self._then))
        self._then = max(now, self._then)
        if size <= level:
            self._level = level - size
            return 0.0
        self._level = level
        return (size - level) / self.rate if size <= self.capacity else float("inf")


class Limit:
    """One bucket a caller, `rate` a second and as many at once (one at least), for the 10,000 callers heard of last.

    A look-up is O(1); `clock` counts seconds and never goes back.
    """

    def __init__(self, setting: str, what: str, rate: float, clock: Callable[[], float], most: int = _MOST_CALLERS) -> None:
        self.setting, self.what, self.rate = setting, what, rate
        self._clock, self._most = clock, most
        self._buckets: OrderedDict[int, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: int, size: int = 1) -> None:
        """Take `size` from the bucket of `source`.

        Raises `RateLimited` with the seconds to wait, and `TooLarge` for a size that no bucket ever holds.
        """
        now = self._clock()
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self.rate, max(1.0, self.rate), now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        wait = bucket.take(size, now)
        if wait == float("inf"):
            raise TooLarge(
                f"the request has {size} {self.what}; at most {bucket.capacity:g} a second are taken of one caller "
                f"({self.setting}): send it in parts"
            )
        if wait:
            raise RateLimited(
                f"over {self.rate:g} {self.what} a second came from this caller ({self.setting}); try again in {wait:.3g} s",
                wait,
            )
