"""Values: lists and arrays as clients send them, before they become a column."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput, kind, short

#: The maximum length of a value of a string column, in characters.
MOST_TEXT_LENGTH = 65_536
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


def array_of_texts(name: str, column: str, value: Any) -> npt.NDArray[Any]:
    """Return the values of a column of strings as an array of objects; raises `InvalidInput` if numpy cannot make one."""
    try:
        return np.array(value, object)
    except ValueError as error:
        raise InvalidInput(f"column {name!r} is ragged ({error}); expected {column}") from None


def check_texts(name: str, column: str, array: npt.NDArray[Any], first: int) -> None:
    """Raise `InvalidInput` naming the first row with a value that is not a string, is too long or cannot be encoded."""
    values = array.ravel().tolist()
    if _are_texts(values):
        return
    at = next(at for at, one in enumerate(values) if not _are_texts([one]))
    said = "null" if values[at] is None else f"{short(values[at])} of type {type(values[at]).__name__}"
    raise InvalidInput(
        f"row {first + at // math.prod(array.shape[1:])} has {said} for {name!r}, which is {column}; expected a string of "
        f"UTF-8 of at most {MOST_TEXT_LENGTH} characters"
    )


def _are_texts(values: Sequence[Any]) -> bool:
    if not set(map(type, values)) <= {str} or max(map(len, values), default=0) > MOST_TEXT_LENGTH:
        return False
    try:
        "".join(values).encode()
    except UnicodeEncodeError:  # a surrogate
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


def inside(array: npt.NDArray[Any], want: np.dtype[Any]) -> bool:
    """Whether a type of integers has all values of an array that is not empty."""
    limits = np.iinfo(want)
    return int(array.min()) >= limits.min and int(array.max()) <= limits.max
