"""Age: the time since a moment that was written down by another clock, or by this one before it was set."""

from __future__ import annotations

#: How far apart the clocks of two hosts may be, in seconds; NTP keeps them within a tenth of one.
SKEW_SECONDS = 5.0


def age(written: float, now: float) -> float | None:
    """Return the seconds from `written` to `now`, both in Unix seconds; None if `written` cannot be compared with `now`.

    A moment up to `SKEW_SECONDS` in the future is 0 seconds ago. The age of one further ahead is unknown: a clock is wrong, or
    was set back.

    >>> age(90.0, now=100.0), age(102.0, now=100.0), age(3_700.0, now=100.0), age(float("nan"), now=100.0)
    (10.0, 0.0, None, None)
    """
    return max(now - written, 0.0) if written - now <= SKEW_SECONDS else None
