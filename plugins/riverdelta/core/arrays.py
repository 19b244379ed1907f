"""Arrays: saved state as arrays by name, nested by `/`, built and checked in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from riverdelta.core.durable import seal, unseal, write
from riverdelta.core.errors import Corrupt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


class Stateful(Protocol):
    """A part whose state is saved: after `load` of what `state` returned it continues bit for bit."""

    def state(self) -> Arrays:
        """Return every array that the next update depends on, by name."""
        ...

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` naming an array that is missing or does not fit."""
        ...


class _Part(dict[str, Array]):
    """The arrays below `path`, by their names relative to it."""

    def __init__(self, arrays: Mapping[str, Array], path: str) -> None:
        super().__init__(arrays)
        self.path = path


def nest(parts: Mapping[str, Arrays]) -> dict[str, Array]:
    """Return the arrays of several parts as one mapping, with names prefixed by the part.

    >>> list(nest({"gate": {"hedge": np.zeros(1)}, "stack": {"a": np.zeros(1), "b": np.zeros(1)}}))
    ['gate/hedge', 'stack/a', 'stack/b']
    """
    return {f"{name}/{key}": array for name, arrays in parts.items() for key, array in arrays.items()}


def part(arrays: Arrays, name: str) -> Arrays:
    """Return the arrays of one part of what `nest` returned, {} without any.

    >>> list(part({"stack/a": np.zeros(1), "stacked/b": np.zeros(1)}, "stack"))
    ['a']
    """
    prefix = f"{name}/"
    found = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    return _Part(found, f"{getattr(arrays, 'path', '')}{prefix}")


def split(arrays: Arrays) -> dict[str, Arrays]:
    """Return the parts of what `nest` returned, by name; arrays outside of parts are left out.

    >>> zero = np.zeros(1)
    >>> {name: list(arrays) for name, arrays in split({"1/key": zero, "2/key": zero, "tick": zero}).items()}
    {'1': ['key'], '2': ['key']}
    """
    return {name: part(arrays, name) for name in dict.fromkeys(key.partition("/")[0] for key in arrays if "/" in key)}


def take(arrays: Arrays, name: str, like: Array | None = None, any_rows: bool = False) -> Array:
    """Return the array `name`, checked against the dtype and shape of `like` if given; with `any_rows` of any length.

    Raises `Corrupt` that names the array, what it is and what was expected.

    >>> take(part({"gate/hedge": np.zeros(2)}, "gate"), "hedge", np.zeros(3))
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.Corrupt: the saved 'gate/hedge' is float64[2]; expected float64[3]: another version or stack saved
    it
    """
    shown = f"{getattr(arrays, 'path', '')}{name}"
    if name not in arrays:
        raise Corrupt(f"the saved state lacks {shown!r}: another version or stack saved it")
    array, free = arrays[name], int(any_rows)
    if like is not None and (array.dtype != like.dtype or _axes(array, free) != _axes(like, free)):
        found, expected = f"{array.dtype}{list(array.shape)}", f"{like.dtype}{_axes(like, free)}".replace("-1", "any")
        raise Corrupt(f"the saved {shown!r} is {found}; expected {expected}: another version or stack saved it")
    return array


def of_json(value: Any) -> Array:
    """Return a JSON value as an array, for state that is not numeric.

    >>> to_json({"saved": of_json({"a": 1})}, "saved")
    {'a': 1}
    """
    return np.frombuffer(json.dumps(value, sort_keys=True).encode(), np.uint8)


def to_json(arrays: Arrays, name: str) -> Any:
    """Return the value that `of_json` encoded; raises `Corrupt` if it is not valid JSON."""
    try:
        return json.loads(take(arrays, name, np.zeros(0, np.uint8), any_rows=True).tobytes())
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"the saved {getattr(arrays, 'path', '') + name!r} is not JSON: {error}") from None


def pack(arrays: Arrays) -> tuple[bytes, bytes]:
    """Return arrays by name as bytes in two parts: a digest and a safetensors file."""
    return seal(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def unpack(data: bytes, source: Path | str) -> Arrays:
    """Return the arrays that `pack` encoded in `data`; raises `Corrupt` naming `source` if the bytes are damaged."""
    try:
        return load(unseal(data, source))
    except (SafetensorError, ValueError, KeyError) as error:  # a dtype that numpy lacks raises KeyError
        raise Corrupt(f"{source} cannot be used: {error}") from error


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays by name to a file that appears complete and durable, or not at all."""
    write(path, *pack(arrays))


def read_arrays(path: Path) -> Arrays:
    """Return what `write_arrays` wrote; raises `Corrupt` naming the file if it is missing or damaged."""
    try:
        return unpack(path.read_bytes(), path)
    except OSError as error:
        raise Corrupt(f"{path} cannot be used: {error}") from error


def _axes(array: Array, free: int) -> list[int]:
    """Return a shape as text, with -1 for each of the first `free` axes, whose length may be any."""
    return [-1] * free + list(array.shape[free:])
