"""Examples: rows that have their label, ready to be learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.features import Floats


@dataclass(frozen=True)
class Examples:
    """M joined rows in the order in which their labels came.

    `base`, `corrected`, `served` float32[M] are the logits as logged at serving, `weight` float32[M] is the importance,
    `received` float64[M] says when the label was received and `scored` when the row was scored (Unix seconds).
    """

    columns: Mapping[str, npt.NDArray[Any]]
    base: Floats
    corrected: Floats
    served: Floats
    label: Floats
    weight: Floats
    received: npt.NDArray[np.float64]
    scored: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)
