"""Texts: the texts of string ids that a process has hashed and has not noted lately."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.values import is_list, on_one_axis

#: A text is noted again after this many seconds, so that it stays as long as the rows that have it.
NOTED_SECONDS = 3_600.0
#: The longest text that is noted, in characters.
LONGEST = 128
_TEXT = {str, bytes, np.str_, np.bytes_}


class Texts:
    """Finds what is new among the string ids of requests; called from any thread.

    Parameters
    ----------
    columns
        The columns of ids that the journal keeps.
    most
        The number of ids to remember; 0 finds none.
    clock
        Returns the time in seconds.

    >>> texts = Texts(["user"], 10, lambda: 0.0)
    >>> texts.new({"user": ["ann", 7, "ann"]}, {"user": np.array([5, 7, 5])})
    {5: 'ann'}
    >>> texts.new({"user": ["ann"]}, {"user": np.array([5])})
    {}
    """

    def __init__(self, columns: Collection[str], most: int, clock: Callable[[], float]) -> None:
        self._columns, self._most, self._clock = columns if most else (), most, clock
        self._noted, self._since = set[int](), -np.inf

    def new(self, given: Mapping[str, Any], checked: Mapping[str, npt.NDArray[Any]]) -> dict[int, str]:
        """Return the texts of ids in `given` that were not noted lately, by their hashes, which `checked` has."""
        found: dict[int, str] = {}
        for name in self._columns:
            ids, sent = checked.get(name), given.get(name)
            if ids is None or (isinstance(sent, np.ndarray) and sent.dtype.kind in "iub"):
                continue
            values: Any = on_one_axis(sent)
            if not is_list(values) or _TEXT.isdisjoint(map(type, values)):
                continue
            if (now := self._clock()) - self._since > NOTED_SECONDS or len(self._noted) > self._most:
                self._noted, self._since = set(), now
            hashes = ids.tolist()
            if new := set(hashes) - self._noted:
                for own, value in zip(hashes, values, strict=True):
                    if own in new and (text := _text(value)) is not None:
                        found[own] = text
                self._noted |= new
        return found


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    return str(value) if isinstance(value, str) and len(value) <= LONGEST else None
