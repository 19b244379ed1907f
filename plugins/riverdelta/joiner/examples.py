"""Examples: rows that have their label, ready to be learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.features import Floats, Ints


@dataclass(frozen=True)
class Examples:
    """M joined rows in the order in which their labels came.

    `base`, `corrected`, `served` float32[M] are the logits as logged at serving, by tables that contained the journal up to
    `position` int64[M]. `weight` float32[M] is that with which a row is learned, `importance` float32[M] that with which it
    counts in measures. `received` float64[M] says when the label was received and `scored` when the row was scored (Unix
    seconds); `source` int64[M] who sent the label, 0 for a negative made of silence.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    base: Floats
    corrected: Floats
    served: Floats
    label: Floats
    weight: Floats
    received: npt.NDArray[np.float64]
    scored: npt.NDArray[np.float64]
    importance: Floats
    position: Ints
    source: Ints

    def __len__(self) -> int:
        return len(self.label)
