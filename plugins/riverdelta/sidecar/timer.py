"""Timer: tells when a repeated action is due."""

from __future__ import annotations

from collections.abc import Callable


class Timer:
    """Due `seconds` after it was last done, and at once if the clock was set back to before that.

    `last` is when it was last done, by `clock` (default: never).

    >>> now = [100.0]
    >>> timer = Timer(5.0, lambda: now[0], last=100.0)
    >>> now[0] = 104.0
    >>> timer.due()
    False
    >>> now[0] = 90.0
    >>> timer.due()
    True
    """

    def __init__(self, seconds: float, clock: Callable[[], float], last: float = 0.0) -> None:
        self.seconds, self.clock, self.last = seconds, clock, last

    def due(self) -> bool:
        """Return whether it is due now."""
        return not 0.0 <= self.clock() - self.last < self.seconds

    def done(self) -> None:
        """Record that it is done now."""
        self.last = self.clock()

    def hurry(self) -> None:
        """Make it due."""
        self.last = float("-inf")
