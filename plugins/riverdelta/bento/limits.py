"""Limits: how many requests and rows one caller may send to one worker in a second."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from riverdelta.core.errors import RateLimited, TooLarge

#: Whoever was silent longest is forgotten first, and starts afresh: only ever-changing callers gain by that.
_MOST_CALLERS = 10_000


class Limit:
    """`rate` a second for each caller, and as many at once (one at least), for the 10,000 callers heard of last.

    In any t seconds at most max(1, rate) + rate · t is taken of a caller. A look-up is O(1); `clock` counts seconds.

    Notes
    -----
    A token bucket as one number a caller: the time at which it is full again (the generic cell rate algorithm, ITU-T I.371).

    >>> now = [0.0]
    >>> limit = Limit("RIVERDELTA_REQUESTS_PER_SECOND", "requests", 2.0, lambda: now[0])
    >>> limit.take(7), limit.take(7)
    (None, None)
    >>> now[0] = 0.5
    >>> limit.take(7)
    """

    def __init__(self, setting: str, what: str, rate: float, clock: Callable[[], float], most: int = _MOST_CALLERS) -> None:
        self.setting, self.what, self.rate, self.capacity = setting, what, rate, max(1.0, rate)
        self._clock, self._most = clock, most
        self._full: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full)

    def take(self, source: int, size: int = 1) -> None:
        """Take `size` from what `source` has left.

        Raises `RateLimited` with the seconds to wait, and `TooLarge` for a size that never passes at once.
        """
        if size > self.capacity:
            raise TooLarge(
                f"the request has {size} {self.what}; at most {self.capacity:g} a second are taken of one caller "
                f"({self.setting}): send it in parts"
            )
        now = self._clock()
        full = max(now, self._full.get(source, now)) + size / self.rate
        wait = full - now - self.capacity / self.rate
        # A rounding error more than nothing is nothing.
        if wait > 1e-9 * max(1.0, abs(now)):
            self._full.move_to_end(source)
            raise RateLimited(
                f"over {self.rate:g} {self.what} a second came from this caller ({self.setting}); try again in {wait:.3g} s",
                wait,
            )
        self._full[source] = full
        self._full.move_to_end(source)
        if len(self._full) > self._most:
            self._full.popitem(last=False)
