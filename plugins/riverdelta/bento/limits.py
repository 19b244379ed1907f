"""Limits: the rate of requests and of rows from one caller to one worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from riverdelta.core.errors import RateLimited, TooLarge

#: The caller that was idle longest is forgotten first and starts again with a full allowance.
_MOST_CALLERS = 10_000


class Limit:
    """Admits `rate` a second from each caller, and max(1, rate) in one burst; keeps the 10,000 most recent callers.

    In any t seconds at most max(1, rate) + rate · t are admitted from a caller. `take` is O(1); `clock` returns seconds.

    Notes
    -----
    A token bucket stored as one number per caller: the time at which it is full again (the generic cell rate algorithm, ITU-T
    I.371).

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
        """Take `size` from the allowance of `source`.

        Raises `RateLimited` with the seconds to wait, and `TooLarge` for a size above the burst.
        """
        if size > self.capacity:
            raise TooLarge(
                f"the request has {size} {self.what}; at most {self.capacity:g} a second are accepted from one caller "
                f"({self.setting}): send it in parts"
            )
        now = self._clock()
        full = max(now, self._full.get(source, now)) + size / self.rate
        wait = full - now - self.capacity / self.rate
        # A shorter wait is a rounding error.
        if wait > 1e-9 * max(1.0, abs(now)):
            self._full.move_to_end(source)
            raise RateLimited(
                f"this caller exceeds {self.rate:g} {self.what} a second ({self.setting}); try again in {wait:.3g} s",
                wait,
            )
        self._full[source] = full
        self._full.move_to_end(source)
        if len(self._full) > self._most:
            self._full.popitem(last=False)
