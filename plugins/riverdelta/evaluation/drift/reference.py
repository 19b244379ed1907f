"""Reference profile: histograms of every column and the usual losses, measured once and kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, nest, part, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats, Ints
from riverdelta.core.hashing import digest
from riverdelta.core.losses.base import Doubles
from riverdelta.evaluation.drift.distances import BINS, DECILES

_SHAPES: dict[str, npt.NDArray[Any]] = {
    "edges": np.zeros(DECILES - 1, np.float32),
    "usual": np.zeros(BINS, np.int64),
    "bound": np.zeros(DECILES),
}


@dataclass(frozen=True)
class Reference:
    """Histograms by column and the means of the losses, as measured on reference data.

    `edges` float32[9] are the inner deciles of a number (unused for an id), `usual` int64[32] its histogram, `bound`
    float64[10] the upper bounds of its deciles' mean shares; `losses` float64[R] are the bounds of the numbers `Watched`, and
    `scale` float64[1] is the scale of a loss whose unit is not constant.
    """

    edges: Mapping[str, Floats]
    usual: Mapping[str, Ints]
    bound: Mapping[str, Doubles]
    losses: Doubles
    scale: Doubles | None = None

    @property
    def rows(self) -> int:
        """The number of rows it was measured on."""
        return int(next(iter(self.usual.values())).sum())

    @property
    def digest(self) -> bytes:
        """A digest of 16 bytes that identifies it."""
        return digest(b"".join(name.encode() + array.tobytes() for name, array in sorted(self.arrays().items())))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return its arrays by name, for `of_arrays`."""
        more = {} if self.scale is None else {"scale": self.scale}
        return nest({name: getattr(self, name) for name in _SHAPES}) | {"losses": self.losses} | more

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Reference:
        """Return the reference with these arrays; raises `Corrupt` naming an array that does not fit."""
        parts = {name: part(arrays, name) for name in _SHAPES}
        if "losses" not in arrays or not parts["usual"] or not parts["usual"].keys() == parts["edges"].keys():
            raise Corrupt(f"the reference has {', '.join(sorted(arrays)) or 'nothing'}; expected losses, edges and usual")
        for name, like in _SHAPES.items():
            for column in parts[name]:
                take(parts[name], column, like)
        # The loss alone, or also pairs of numbers.
        losses = take(arrays, "losses", np.zeros(arrays["losses"].size // 2 * 2 + 1))
        scale = take(arrays, "scale", np.zeros(1)) if "scale" in arrays else None
        limits, counts = np.concatenate([losses, *parts["bound"].values()]), np.concatenate([*parts["usual"].values()])
        if not ((limits > 0) & (limits <= 1)).all() or (counts < 0).any():
            raise Corrupt("the reference has a bound outside 0 to 1, or a negative count")
        if scale is not None and not 0.0 < scale[0] < np.inf:
            raise Corrupt(f"the reference has the scale {scale[0]}; expected a finite number above 0")
        made = cls(losses=losses, scale=scale, **{name: dict(found) for name, found in parts.items()})
        if other := sorted(arrays.keys() - made.arrays().keys()):
            raise Corrupt(f"the reference has {other[0]!r}; expected losses, edges, usual and bound")
        return made
