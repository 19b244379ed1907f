"""Lookup: a fixed table of features by id, such as the genres of a film, stored in the merged model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from riverdelta.core.checked import column
from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.features import Column, Floats, Ints
from riverdelta.core.hashing import digest
from riverdelta.core.nodes import Nodes
from riverdelta.core.values import is_list
from riverdelta.corrections.hashing import Hash

_PROBES = 8


class Lookup:
    """A feature that is read from a fixed table by the id in a column, for `Linear` and `Entity`.

    Parameters
    ----------
    name
        The name of the feature, in tables and coefficients.
    key
        The id column (int64) whose values are looked up.
    table
        A mapping of each id (an integer, or a string, which `id64` hashes) to a list. Lists of D floats, the same D for every
        id, make a vector; lists of ids, of any length, make a bag, which only `Linear` reads. A pair of arrays, keys int64[R]
        and values float32[R, D] or int64[R, M], does the same. Ids that are not in the table read zeros.

    Raises
    ------
    ConfigurationError
        If the table is empty, has a key twice, or mixes lengths or types.

    Notes
    -----
    Use it for facts about an entity that do not change while the service runs: an impression then stores the key alone. Each of
    a bag's n entries has the value 1/√n. Other contents make another stack; `riverdelta rebase` carries over what was learned.

    Examples
    --------
    >>> genres = Lookup("genres", key="item_id", table={1: [1.0, 0.0], 7: [0.0, 1.0]})
    >>> genres.vector(np.array([7, 2])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, name: str, key: str, table: Mapping[Any, Sequence[Any]] | tuple[Ints, npt.NDArray[Any]]) -> None:
        example = 'Lookup("genres", key="item_id", table={7: [0.0, 1.0]})'
        self.name, self.key = column("name", name, example), column("key", key, example)
        try:
            keys, values, counts = _of_mapping(name, table) if isinstance(table, Mapping) else _of_arrays(*table)
        except InvalidInput as error:
            raise ConfigurationError(f"lookup {name!r} cannot be made: {error}") from None
        if not len(keys):
            raise ConfigurationError(f"lookup {name!r} is empty; expected at least one key")
        self.kind = "vector" if values.dtype.kind == "f" else "bag"
        self.width = values.shape[1]
        order = np.argsort(keys, kind="stable")
        self._keys: Ints = keys[order]
        if (doubles := self._keys[1:][self._keys[1:] == self._keys[:-1]]).size:
            raise ConfigurationError(f"lookup {name!r} has the key {int(doubles[0])} twice; expected each key once")
        # Absent ids read row 0.
        self._values = np.concatenate([np.zeros((1, self.width), values.dtype), values[order]])
        filled = np.arange(self.width) < np.concatenate([[0], counts[order]])[:, None]
        share = 1.0 / np.sqrt(np.maximum(filled.sum(axis=1, keepdims=True), 1))
        self._shares = np.where(filled, share, 0.0).astype(np.float32)

    def __repr__(self) -> str:
        shape = f"{len(self._keys)} keys, {self.kind} of {self.width}"
        return f"Lookup({self.name!r}, key={self.key!r}, {shape}, {self.digest})"

    def identity(self) -> dict[str, Any]:
        """Return what identifies the lookup: its name, key and shape, and a digest of its contents."""
        shape = {"keys": len(self._keys), "kind": self.kind, "width": self.width}
        return {"name": self.name, "key": self.key, **shape, "contents": self.digest}

    @cached_property
    def digest(self) -> str:
        """The digest of its contents, 16 hexadecimal digits."""
        return digest(*(array.tobytes() for array in (self._keys, self._values, self._shares)), size=8).hex()

    def rows(self, ids: npt.NDArray[np.integer]) -> Ints:
        """Return each id's row of the table, or 0 if it is absent."""
        at = np.searchsorted(self._keys, ids)
        found = self._keys[np.minimum(at, len(self._keys) - 1)] == ids
        return np.where(found, at + 1, 0)

    def vector(self, ids: npt.NDArray[np.integer]) -> Floats:
        """Return the vectors float32[N, D]."""
        return self._values[self.rows(ids)]

    def bag(self, ids: npt.NDArray[np.integer]) -> tuple[Ints, Floats]:
        """Return the bags' ids int64[N, M] and values float32[N, M]."""
        rows = self.rows(ids)
        return self._values[rows], self._shares[rows]

    def export_vector(self, nodes: Nodes, ids: str) -> str:
        """Append the nodes of `vector` and return its tensor."""
        return nodes.add("Gather", nodes.constant(self._values), self._export_rows(nodes, ids))

    def export_bag(self, nodes: Nodes, ids: str) -> tuple[str, str]:
        """Append the nodes of `bag` and return its two tensors."""
        rows = self._export_rows(nodes, ids)
        return (
            nodes.add("Gather", nodes.constant(self._values), rows),
            nodes.add("Gather", nodes.constant(self._shares), rows),
        )

    def _export_rows(self, nodes: Nodes, ids: str) -> str:
        """Append a search in an open-addressing hash table, with a fixed number of probes, and return each id's row."""
        keys, rows, hashing = self._probing()
        wide = nodes.column(nodes.cast(ids, TensorProto.INT64))
        start = nodes.column(hashing.export(nodes, ids))
        at = nodes.add("Add", start, nodes.constant(np.arange(_PROBES)[None]))
        match = nodes.add("Equal", nodes.add("Gather", nodes.constant(keys), at), wide)
        hit = nodes.add("Mul", nodes.cast(match, TensorProto.INT64), nodes.add("Gather", nodes.constant(rows), at))
        return nodes.add("ReduceSum", hit, nodes.constant([1], np.int64), keepdims=0)

    def _probing(self) -> tuple[Ints, Ints, Hash]:
        size = 1 << max(4, (2 * len(self._keys) - 1).bit_length())
        while True:
            hashing = Hash.draw(f"lookup/{self.name}", 1, size)
            keys, rows = np.zeros(size + _PROBES, np.int64), np.zeros(size + _PROBES, np.int64)
            for row, (key, slot) in enumerate(zip(self._keys.tolist(), hashing(self._keys).tolist(), strict=True), 1):
                free = np.flatnonzero(rows[slot : slot + _PROBES] == 0)
                if not free.size:
                    break
                keys[slot + free[0]], rows[slot + free[0]] = key, row
            else:
                return keys, rows, hashing
            size *= 2

    def save(self, path: Path) -> None:
        """Write the table as a safetensors file."""
        arrays = {"keys": self._keys, "values": self._values[1:], "counts": (self._shares[1:] > 0).sum(axis=1)}
        save_file(arrays, path, metadata={"name": self.name, "key": self.key})

    @classmethod
    def load(cls, name: str, key: str, path: str | Path) -> Lookup:
        """Read a table from a file of `save`, or from any safetensors file with `keys` and `values`."""
        try:
            arrays = load_file(path)
            values = arrays["values"]
            if values.dtype.kind == "f":
                return cls(name, key, (arrays["keys"], values))
            counts = arrays.get("counts", np.full(len(values), values.shape[1]))
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ConfigurationError(f"lookup {name!r} cannot be read from {path}: {error}") from error
        rows = zip(values.tolist(), counts.tolist(), strict=True)
        return cls(name, key, dict(zip(arrays["keys"].tolist(), (row[:n] for row, n in rows), strict=True)))


def _of_arrays(keys: Any, values: Any) -> tuple[Ints, npt.NDArray[Any], Ints]:
    dtype = "float32" if np.asarray(values).dtype.kind == "f" else "int64"
    keys, values = Column("keys", "int64").check(keys), Column("values", dtype, (None,)).check(values)
    if len(keys) != len(values):
        raise InvalidInput(f"there are {len(keys)} keys and {len(values)} values; expected one row of values for each key")
    return keys, values, np.full(len(keys), values.shape[1])


def _of_mapping(name: str, table: Mapping[Any, Any]) -> tuple[Ints, npt.NDArray[Any], Ints]:
    keys, shown = Column("keys", "int64").of_values(list(table)), list(table)
    for key, row in table.items():
        if not is_list(row):
            raise InvalidInput(f"the key {key!r} has {row!r}; expected a list of floats or of ids, as in {{7: [0.0, 1.0]}}")
    rows = list(table.values())
    counts = np.array([len(row) for row in rows])
    if any(isinstance(value, float | np.floating) for row in rows for value in row):
        vectors = Column(name, "float32", (len(rows[0]),))
        return keys, vectors.of_values(rows, lambda i: f"the key {shown[i]!r}"), counts
    values = np.zeros((len(rows), max(counts, default=1) or 1), np.int64)
    for key, row, into in zip(shown, rows, values, strict=True):
        into[: len(row)] = Column(name, "int64").of_values(row, f"the key {key!r}".format)
    return keys, values, counts
