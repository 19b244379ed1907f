"""Values: lists and arrays as clients send them, before they become a column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import kind

#: The types of lists.
LISTS = {list, tuple}


def described(value: Any) -> str:
    """Return the type and shape of an array, for an error message.

    >>> described(np.zeros((2, 1))), described([0.5])
    ('float64[2, 1]', 'a list')
    """
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else kind(value)


def is_list(value: Any) -> bool:
    """Whether a value is a list, a tuple or an array with an axis."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def size_of(array: npt.NDArray[Any]) -> int:
    """Return the number of bytes of an array, for one of strings that of their characters.

    >>> size_of(np.zeros(2)), size_of(np.array(["ann", "bo"], object))
    (16, 5)
    """
    return sum(map(len, array.ravel().tolist())) if array.dtype.kind == "O" else array.nbytes


def on_one_axis(value: Any) -> Any:
    """Return values [N, 1] as [N], and any others as they are.

    >>> on_one_axis([[1], [2]]), on_one_axis([1, 2]), on_one_axis([[1, 2]])
    ([1, 2], [1, 2], [[1, 2]])
    """
    if isinstance(value, np.ndarray):
        return value.reshape(-1) if value.ndim == 2 and value.shape[1] == 1 else value
    if type(value) not in LISTS or not value or type(value[0]) not in LISTS:
        return value
    return [row[0] for row in value] if all(type(row) in LISTS and len(row) == 1 for row in value) else value


def is_utf8(values: Sequence[str]) -> bool:
    """Whether strings can be encoded: a surrogate cannot."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def leaves(value: Any, axes: int) -> set[type]:
    """Return the types of the values in lists nested up to `axes` deep, without an array: numpy would make them one type.

    >>> [sorted(kind.__name__ for kind in leaves(value, 2)) for value in ([1, "a"], [[1], [2.5]], [[1], 2.5], [[[1]]], "a")]
    [['int', 'str'], ['float', 'int'], ['float', 'list'], ['list'], []]
    """
    kinds: set[type] = {type(value)} & LISTS
    depth = 0
    while kinds and kinds <= LISTS and depth < axes:
        level: Iterable[Any] = value
        for _ in range(depth):
            level = chain.from_iterable(level)
        kinds = set(map(type, level))
        depth += 1
    return kinds
