"""Table: the numbers of one ONNX initializer, with marks of the rows that changed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Floats


class Table:
    """A served table: the values of one ONNX initializer, and a mark for each row that changed since the last publication.

    Parameters
    ----------
    values
        The initial values, [rows, width]; copied to `dtype`.
    dtype
        The type of its numbers: float32, or int32 for rows of another table.
    slots
        For a table that grows by need, the slots that may get a row of it; 0 (default) for one that keeps its rows.

    Examples
    --------
    >>> table = Table([[0.5, 1.0], [2.0, 0.0]])
    >>> table.values.dtype.name, table.touched.tolist()
    ('float32', [False, False])
    """

    def __init__(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32, slots: int = 0) -> None:
        self.values: Floats = np.array(values, dtype, order="C", ndmin=2)
        self.touched: npt.NDArray[np.bool_] = np.zeros(len(self.values), np.bool_)
        self.slots = slots

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values; of a table that grows, with a row for each slot."""
        return (self.slots or len(self.values), *self.values.shape[1:])

    def put(self, values: Floats) -> None:
        """Replace the values and mark all rows."""
        if self.values.shape == values.shape:
            self.values[:] = values
        else:
            self.values = values.copy()
        self.touched = np.ones(len(values), np.bool_)
