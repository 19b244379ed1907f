"""Keys: one integer for each row of an incarnation, made of its request and its index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Ints

_INDEX_BITS = 20
#: The most rows of one request.
MOST_ROWS = 1 << _INDEX_BITS


def keys(request: Ints, index: npt.NDArray[np.integer]) -> Ints:
    """Return the keys int64[N] of rows within their incarnation; they ascend with the request, then with the index.

    >>> key = keys(np.array([1, 1]), np.array([0, 2]))
    >>> key.tolist(), requests(key).tolist(), indices(key).tolist()
    ([1048576, 1048578], [1, 1], [0, 2])
    """
    return (request << _INDEX_BITS) | index


def requests(key: Ints) -> Ints:
    """Return the requests int64[N] of keys."""
    return key >> _INDEX_BITS


def indices(key: Ints) -> npt.NDArray[np.int32]:
    """Return the indices int32[N] of keys."""
    return (key & (MOST_ROWS - 1)).astype(np.int32)
