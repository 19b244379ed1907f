"""Reference: what is usual, taken from a stretch of examples, and the panel's null hypothesis made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats, Ints
from riverdelta.core.hashing import digest
from riverdelta.evaluation.drift import watch as w
from riverdelta.evaluation.drift.panel import Doubles

#: How far a mean may lie above the reference's: so many standard errors of it, and so much in its own unit.
ERRORS, TOLERANCE = 5.0, 0.02

_SHAPES = {"edges": ((w.DECILES - 1,), "float32"), "usual": ((w.BINS,), "int64"), "bound": ((w.DECILES,), "float64")}


@dataclass(frozen=True)
class Reference:
    """What is usual of each column, by name, and of the losses.

    `edges` float32[9] are the inner deciles of a number (of an id they say nothing), `usual` int64[32] its histogram, `bound`
    float64[10] what the means of its deciles' shares may be at most; `losses` float64[3] is that of the three losses watched.
    """

    edges: Mapping[str, Floats]
    usual: Mapping[str, Ints]
    bound: Mapping[str, Doubles]
    losses: Doubles

    @property
    def rows(self) -> int:
        """How many rows it was taken from."""
        return int(next(iter(self.usual.values())).sum())

    @property
    def digest(self) -> bytes:
        """16 bytes that tell it from any other."""
        return digest(b"".join(name.encode() + array.tobytes() for name, array in sorted(self.arrays().items())))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything by name, as `of_arrays` takes it."""
        parts: dict[str, Mapping[str, npt.NDArray[Any]]] = {"edges": self.edges, "usual": self.usual, "bound": self.bound}
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return named | {"losses": self.losses}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Reference:
        """Return what `arrays` came from; raises `Corrupt` naming what does not fit."""
        parts: dict[str, dict[str, npt.NDArray[Any]]] = {part: {} for part in _SHAPES}
        for name, array in arrays.items():
            part, _, column = name.partition("/")
            shape, dtype = ((w.LOSSES,), "float64") if name == "losses" else _SHAPES.get(part, ((), ""))
            if array.shape != shape or array.dtype != dtype:
                raise Corrupt(f"the reference's {name!r} is {array.dtype}{list(array.shape)}; expected {dtype}{list(shape)}")
            if column:
                parts[part][column] = array
        if "losses" not in arrays or not parts["usual"] or not parts["usual"].keys() == parts["edges"].keys():
            raise Corrupt(f"the reference has {', '.join(sorted(arrays)) or 'nothing'}; expected losses, edges and usual")
        bounds, counts = (
            np.concatenate([arrays["losses"], *parts["bound"].values()]),
            np.concatenate([*parts["usual"].values()]),
        )
        if not ((bounds > 0) & (bounds <= 1)).all() or (counts < 0).any():
            raise Corrupt("the reference has a bound outside 0 to 1, or a count below 0")
        return cls(losses=arrays["losses"], **parts)


def edges(values: Floats) -> Floats:
    """Return the inner deciles of float32[N], float32[9]; NaN counts as 0."""
    return np.quantile(np.nan_to_num(values), np.linspace(0, 1, w.DECILES + 1)[1:-1], method="lower").astype(np.float32)


def counts(bins: npt.NDArray[np.intp], blocks: int) -> Ints:
    """Return how often each bin occurs in each block of examples, int64[blocks, BINS]."""
    flat = bins + w.BINS * (np.arange(len(bins)) // w.BLOCK)
    return np.bincount(flat, minlength=blocks * w.BINS).reshape(blocks, w.BINS)


def bounds(means: Doubles, tolerance: Doubles) -> Doubles:
    """Return m_k of float64[blocks, K] block means: the mean, 5 of its standard errors and the tolerance, at most 1.

    The error is that of means of blocks, so that rows which come in runs widen it as they should.
    """
    error = means.std(0, ddof=1) / np.sqrt(len(means))
    return np.minimum(means.mean(0) + ERRORS * error + tolerance, 1.0)


def stability(reference: Doubles, now: Doubles) -> tuple[float, float]:
    """Return the population stability index Σ (q - p)·ln(q/p), and the Jensen-Shannon distance, 0 to 1, of two histograms.

    Both are of shares p and q with half a row added to each bin, bins that are empty in both left out. Two samples of n rows
    of the same B bins differ by an index of about (B - 1)·2/n. The distance is the root of the divergence in bits.

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
