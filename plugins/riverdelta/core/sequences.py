"""Sequences: rows of different lengths, padded with zeros so that they make one array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from riverdelta.core.errors import InvalidInput, TooLarge
from riverdelta.core.values import is_list

#: The values of a row whose length no column declares, for the limits of a request.
OPEN_ROW = 256


def padded(name: str, value: Any, shape: tuple[int | None, ...], max_rows: int | None = None) -> Any:
    """Return the lists of a column with each open axis (None in `shape`, which is that of a row) padded to its longest.

    A value that is not nested lists of that depth is returned as it is, and so is a row that differs on a fixed axis: the
    column's own check names both. Raises `TooLarge` if the result has more values than `max_rows` open rows.

    >>> padded("input_ids", [[101, 7592, 102], [101]], (None,))
    [[101, 7592, 102], [101, 0, 0]]
    """
    if None not in shape or not _is_nested(value):
        return value
    longest, ragged = list(shape), False
    level: Sequence[Any] = value
    for axis, length in enumerate(shape):
        if not all(map(is_list, level)):
            return value
        lengths = set(map(len, level))
        ragged = ragged or len(lengths) > 1
        if length is None:
            longest[axis] = max(lengths, default=0)
        level = list(chain.from_iterable(level))
    if not ragged:
        return value
    size = int(np.prod([len(value), *(n or 0 for n in longest)], dtype=np.float64))
    if max_rows is not None and size > (most := OPEN_ROW * max_rows):
        raise TooLarge(
            f"column {name!r} has {len(value)} rows, padded to {' × '.join(map(str, longest))} values each; at most {most} "
            f"values are accepted: send rows of similar length together, or in parts"
        )
    return [_padded(row, longest) for row in value]


def lengths_of(value: Any) -> list[int] | None:
    """Return the length of each row if they differ, None if all are the same or there are none.

    >>> lengths_of([[1, 2], [3]]), lengths_of([[1], [2]]), lengths_of([1, 2])
    ([2, 1], None, None)
    """
    if not _is_nested(value) or not all(map(is_list, value)):
        return None
    found = list(map(len, value))
    return found if len(set(found)) > 1 else None


def check_lengths(arrays: Mapping[str, Any], axes: Mapping[str, Sequence[str]], given: Mapping[str, list[int] | None]) -> None:
    """Raise `InvalidInput` naming two columns that differ in the length of an axis of the same name.

    `axes` are the names of a column's axes after the first, "" for one without; `given` the lengths of its rows as `lengths_of`
    returned them.
    """
    seen: dict[str, tuple[str, int]] = {}
    for name, label, length in _named(arrays, axes):
        other, expected = seen.setdefault(label, (name, length))
        if length != expected:
            raise InvalidInput(
                f"column {name!r} has {length} values along {label!r} and {other!r} has {expected}; expected equal lengths"
            )
        mine, theirs = given.get(name), given.get(other)
        if axes[name][0] == axes[other][0] == label and mine and theirs and mine != theirs:
            row = next(at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
            raise InvalidInput(
                f"row {row} has {mine[row]} values for {name!r} and {theirs[row]} for {other!r} along {label!r}; expected "
                f"equal lengths"
            )


def _named(arrays: Mapping[str, Any], axes: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, int]]:
    for name, labels in axes.items():
        for axis, label in enumerate(labels, 1):
            if label:
                yield name, label, arrays[name].shape[axis]


def _is_nested(value: Any) -> bool:
    """Whether a value is rows of any length: other arrays have rows of one length."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.hasobject)


def _padded(rows: Any, shape: Sequence[int | None]) -> list[Any]:
    inner: Sequence[int | None] = shape[1:]
    blank: Any = 0
    for length in reversed(inner):
        blank = [blank] * (length or 0)
    made = [_padded(row, inner) for row in rows] if inner else list(rows)
    return made + [blank] * ((shape[0] or 0) - len(made))
