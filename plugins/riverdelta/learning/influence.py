"""Influence: limits how much one entity may update the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.checked import positive
from riverdelta.core.features import Columns
from riverdelta.core.hashing import GOLDEN

#: Counters per key, a power of 2.
_SLOTS = 2**16


@numba.njit("void(int64[:, ::1], float64[::1], float64[::1], int64, float64, float64[:, :, ::1], boolean[::1])", cache=True)
def _admit(ids, received, weight, limit, window, slots, out):  # type: ignore[no-untyped-def]
    mask = np.uint64(slots.shape[1] - 1)
    at = np.empty(ids.shape[0], np.int64)
    for i in range(received.shape[0]):
        number = np.floor(received[i] / window)
        fits = True
        for k in range(ids.shape[0]):
            h = np.uint64(ids[k, i]) * GOLDEN
            slot = at[k] = np.int64((h >> np.uint64(40)) & mask)
            # Time that steps back stays in the newest window: it must not reopen an old one.
            if number > slots[k, slot, 0]:
                slots[k, slot, 0], slots[k, slot, 1] = number, 0.0
            fits = fits and slots[k, slot, 1] + weight[i] <= limit
        if fits:
            for k in range(ids.shape[0]):
                slots[k, at[k], 1] += weight[i]
        out[i] = fits


class Limiter:
    """Admits examples of one entity up to a weight of `limit` in a window, for each of the id columns `keys`.

    Windows are numbered by floor(received / window_seconds), the time at which labels were received, so that a replay agrees.
    An example is admitted, and its weight counts, if that takes none of its entities beyond the limit. Entities are hashed into
    65,536 counters: two that share one are limited earlier, never later.

    Parameters
    ----------
    keys
        Id columns whose values are entities.
    limit
        Admitted weight of an entity in a window; that of an example is 1 unless `admit` is given another. Lower it if single
        users or bots move the tables too much.
    window_seconds
        Length of a window in seconds.

    >>> limiter = Limiter(["user"], limit=2, window_seconds=60.0)
    >>> limiter.admit({"user": np.array([7, 7, 7, 8])}, np.array([0.0, 1.0, 2.0, 3.0])).tolist()
    [True, True, False, True]
    >>> limiter.admit({"user": np.array([7])}, np.array([61.0])).tolist(), limiter.refused
    ([True], 1)
    """

    def __init__(self, keys: Sequence[str], limit: int, window_seconds: float) -> None:
        self.keys, self.limit = tuple(keys), positive("limit", limit)
        self.window = float(positive("window_seconds", window_seconds))
        #: Examples that were not admitted.
        self.refused = 0
        self._slots = np.full((len(self.keys), _SLOTS, 2), -np.inf)
        self._slots[:, :, 1] = 0.0

    def admit(self, columns: Columns, received: npt.NDArray[np.float64], weight: npt.ArrayLike = 1.0) -> npt.NDArray[np.bool_]:
        """Return bool[M]: which examples, in order, are admitted; `received` float64[M] is in Unix seconds.

        `weight` float64[M] is what each counts for (default 1).
        """
        out = np.empty(len(received), np.bool_)
        ids = np.empty((len(self.keys), len(received)), np.int64)
        for k, name in enumerate(self.keys):
            ids[k] = columns[name]
        counts = np.array(np.broadcast_to(weight, len(received)), np.float64)
        _admit(ids, np.ascontiguousarray(received, np.float64), counts, self.limit, self.window, self._slots, out)
        self.refused += int(len(out) - out.sum())
        return out

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {"slots": self._slots.copy(), "refused": np.array([self.refused], np.int64)}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if its keys or sizes differ."""
        self._slots[...] = take(arrays, "slots", self._slots)
        self.refused = int(take(arrays, "refused", np.zeros(1, np.int64))[0])
