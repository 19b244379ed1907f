"""Distances: how far each column's histogram of recent examples is from the reference's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Columns, Floats, Ints
from riverdelta.core.hashing import mixed
from riverdelta.core.losses.base import Doubles

#: Examples of a block; bins of a histogram, of which numbers use the first `DECILES`.
BLOCK, BINS, DECILES = 64, 32, 10


class Distances:
    """Histograms of columns, reference and current: deciles of numbers (for a vector, of its length), 32 hashed bins of ids.

    `usual` holds the reference's, `now` those of the last `blocks` blocks of 64 examples, one by one in a ring.
    """

    def __init__(self, names: Sequence[str], is_id: Sequence[bool], blocks: int) -> None:
        self.names, self.is_id = tuple(names), np.array(is_id, bool)
        many = len(self.names)
        self.edges = np.zeros((many, DECILES - 1), np.float32)
        self.usual, self.now, self.counts = np.zeros((3, many, BINS), np.int64)
        self._ring = np.zeros((blocks, many, BINS), np.int32)

    def values(self, columns: Columns) -> Floats:
        """Return the values to count of M rows, float32[columns, M]: numbers, lengths of vectors, and bins of ids."""
        rows = len(columns[self.names[0]])
        out = np.empty((len(self.names), rows), np.float32)
        for c, name in enumerate(self.names):
            column = columns[name]
            if self.is_id[c]:
                out[c] = mixed(column) >> np.uint64(59)  # a count sketch of the ids, with one row
            elif column.ndim == 1:
                out[c] = column
            else:
                # Each row's squares are added in order.
                out[c] = np.sqrt(np.add.accumulate(np.square(column.reshape(rows, math.prod(column.shape[1:]))), axis=1)[:, -1])
        return out

    def bins(self, values: Floats) -> Ints:
        """Return each value's bin, int64[columns, M]: an id's own, or how many edges a number is above (NaN counts as 0)."""
        numbers = np.where(np.isnan(values), np.float32(0.0), values)
        found = np.add.reduce(numbers[:, :, None] > self.edges[:, None, :], axis=2)
        found[self.is_id] = values[self.is_id]
        return found

    def add(self, bins: Ints) -> None:
        """Count rows into the current block."""
        flat = bins + BINS * np.arange(len(bins))[:, None]
        self.counts += np.bincount(flat.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def close(self, block: int) -> Doubles:
        """Close block number `block`, and return the shares of its numbers' deciles, float64[columns, 10]."""
        place = block % len(self._ring)
        self.now += self.counts - self._ring[place]
        self._ring[place] = self.counts
        shares = self.counts[~self.is_id, :DECILES] / BLOCK
        self.counts[:] = 0
        return shares

    def begin(self) -> None:
        """Clear the recent blocks."""
        self.now[:], self._ring[:] = 0, 0

    def take(self, values: Floats) -> None:
        """Compute edges and reference histograms from the values float32[columns, N] of a reference.

        A value that is several deciles, such as the 0 of a sparse feature, gets a bin between those below and above it.
        """
        for c in np.flatnonzero(~self.is_id):
            inner = np.linspace(0, 1, DECILES + 1)[1:-1]
            edges = np.quantile(np.nan_to_num(values[c]), inner, method="lower")
            again = edges[1:] == edges[:-1]
            first = np.flatnonzero(again & ~np.concatenate([[False], again[:-1]]))
            edges[first] = _below(edges[first])
            self.edges[c] = edges
        self.usual[:] = self.by_block(values).sum(0)

    def by_block(self, values: Floats) -> Ints:
        """Return the histogram of each block of float32[columns, N], int64[blocks, columns, bins]."""
        bins = self.bins(values)
        columns, rows = bins.shape
        flat = bins + BINS * (np.arange(columns)[:, None] + columns * (np.arange(rows) // BLOCK))
        return np.bincount(flat.ravel(), minlength=columns * BINS * rows // BLOCK).reshape(-1, columns, BINS)

    def report(self, full: bool) -> dict[str, dict[str, float | None]]:
        """Return psi and js by column, or None until there are as many examples as the reference has."""
        found = [stability(*pair) if full else (None, None) for pair in zip(self.usual, self.now, strict=True)]
        return {name: {"psi": psi, "js": js} for name, (psi, js) in zip(self.names, found, strict=True)}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state by name, without copies."""
        return {"edges": self.edges, "usual": self.usual, "now": self.now, "counts": self.counts, "ring": self._ring}


def _below(values: Floats) -> Floats:
    """Return the next smaller float32, without those that are too small to be normal."""
    found, tiny = np.nextafter(values, np.float32(-np.inf)), np.finfo(np.float32).tiny
    return np.where(np.abs(found) < tiny, -tiny, found)


def stability(reference: npt.NDArray[Any], now: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the population stability index Σ (q - p)·ln(q/p), and the Jensen-Shannon distance, 0 to 1, of two histograms.

    Shares p and q have half a row added to each bin; bins that are empty in both are left out. The index of two samples of n
    rows from one distribution over B bins is about (B - 1)·2/n. The distance is the root of the divergence in bits.

    References: Yurdakul 2018 (the index and its distribution); Endres, Schindelin 2003 (the distance is a metric).

    >>> stability(np.array([10.0, 10.0]), np.array([10.0, 10.0]))
    (0.0, 0.0)
    >>> [round(x, 3) for x in stability(np.array([900.0, 100.0]), np.array([100.0, 900.0]))]
    [3.505, 0.728]
    """
    used = (reference + now) > 0
    p, q = reference[used] + 0.5, now[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    half = (p + q) / 2
    divergence = (p @ np.log2(p / half) + q @ np.log2(q / half)) / 2
    return float((q - p) @ np.log(q / p)), float(np.sqrt(max(divergence, 0.0)))
