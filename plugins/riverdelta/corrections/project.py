"""Project: a wide vector as a shorter one, by a fixed matrix that is stored in the merged model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.checked import column
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Floats, Schema
from riverdelta.core.hashing import digest

_Matrix = types.float32[:, ::1]
_EXAMPLE = 'Project("item_vec", 32)'


class Project:
    """A feature for `Entity` and `Linear`: the vector x of a column or tap as x·M, which has fewer numbers.

    Parameters
    ----------
    key
        The vector column or tap, float32[D].
    width
        The numbers that are left, at least 1 and fewer than D. A row of an `Entity` takes 8 bytes for each of them.
    matrix
        M float32[D, width], or the path of an .npy file that has it: the first principal components, for example. x is not
        centred. Default: a random one, always the same for this key, D and width.
    name
        The name of the feature, in coefficients (default: the key, `_` and the width).

    Raises
    ------
    ConfigurationError
        If the matrix cannot be read, is not finite, or has another width.

    Notes
    -----
    The entries of the random matrix are ±1/√width. It keeps lengths and inner products, and with them what a linear model of x
    can express, up to errors of about √(2/width) of |x|. A learned matrix keeps more if x varies in few directions.

    Sources: Johnson and Lindenstrauss 1984; Achlioptas 2003, "Database-friendly random projections" (the signs).

    Examples
    --------
    >>> short = Project("item_vec", 2, matrix=[[1, 0], [0, 1], [0, 0]])
    >>> project(np.array([[5, 6, 7]], np.float32), short.matrix).tolist()
    [[5.0, 6.0]]
    """

    def __init__(self, key: str, width: int, matrix: npt.ArrayLike | str | Path | None = None, name: str | None = None) -> None:
        self.key = column("key", key, _EXAMPLE)
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ConfigurationError(f"width is {width!r}; expected an integer of at least 1: {_EXAMPLE}")
        self.width = width
        self.name = f"{key}_{width}" if name is None else column("name", name, 'Project("item_vec", 32, name="topic")')
        self.matrix = None if matrix is None else self._read(matrix)

    def __repr__(self) -> str:
        return f"Project({self.key!r}, {self.width}, {self.digest})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Project) and self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash(tuple(self.identity().values()))

    def identity(self) -> dict[str, Any]:
        """Return what identifies the projection: its key, width and name, and the digest of its matrix."""
        return {"key": self.key, "width": self.width, "name": self.name, "matrix": self.digest}

    @cached_property
    def digest(self) -> str:
        """The digest of a given matrix, 16 hexadecimal digits; "random" without one."""
        return "random" if self.matrix is None else digest(self.matrix.tobytes(), size=8).hex()

    def of(self, schema: Schema) -> Floats:
        """Return the matrix float32[D, width] for the column in `schema`; raises `ConfigurationError` if it does not fit."""
        shown = f"Project({self.key!r}, {self.width})"
        wide = schema.need(self.key, shown, "vector").shape[0] or 1
        if self.width >= wide:
            raise ConfigurationError(f"{shown} saves nothing, as {self.key!r} has {wide} numbers; write on=[{self.key!r}]")
        if self.matrix is None:
            return _drawn(self.key, wide, self.width)
        if len(self.matrix) != wide:
            found = f"the matrix of {shown} is float32{list(self.matrix.shape)}, and {self.key!r} has {wide} numbers"
            raise ConfigurationError(f"{found}; expected float32[{wide}, {self.width}]")
        return self.matrix

    def _read(self, given: Any) -> Floats:
        shown = f"the matrix of Project({self.key!r}, {self.width})"
        try:
            found = np.array(np.load(given) if isinstance(given, str | Path) else given, np.float32, order="C")
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{shown} cannot be read: {error}") from error
        if found.ndim != 2 or found.shape[1] != self.width or not np.isfinite(found).all():
            raise ConfigurationError(
                f"{shown} is float32{list(found.shape)}; expected finite numbers float32[D, {self.width}], a row for each of x"
            )
        return found


def project(x: Floats, matrix: Floats) -> Floats:
    """Return x·M float32[N, width]; each row is the same to the last bit whatever the others, as BLAS does not promise."""
    out = np.zeros((len(x), matrix.shape[1]), np.float32)
    _project(x, matrix, out)
    return out


@numba.njit(types.void(_Matrix, _Matrix, _Matrix), cache=True)
def _project(x, matrix, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            for k in range(matrix.shape[1]):
                out[i, k] += x[i, d] * matrix[d, k]


def _drawn(key: str, rows: int, width: int) -> Floats:
    """Return the random matrix of a key, from bits of BLAKE2b: the same on every machine."""
    parts = range(-(-width // 512))
    bits = b"".join(digest(f"project/{key}/{row}/{part}".encode(), size=64) for row in range(rows) for part in parts)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8).reshape(rows, -1), axis=1)[:, :width]
    return np.ascontiguousarray((2.0 * signs - 1.0) / np.sqrt(width), np.float32)
