"""Answer: what a scored request gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from riverdelta.core.features import Floats
from riverdelta.core.losses import Loss
from riverdelta.storage.registry import State


@dataclass(frozen=True)
class ScoreAnswer:
    """The scores of N rows, the base's raw outputs, the request's id (a row is `<id>.<index>`), and the state that scored it.

    Scores are float32[N], or float32[N, K] if the loss has K outputs.
    """

    scores: Floats
    base: Floats
    impressions: str
    state: State
    loss: Loss
    #: The ends of each row's interval by name, float32[N] each, NaN where none is known; {} without intervals.
    bounds: Mapping[str, Floats] = field(default_factory=dict)

    @cached_property
    def labels(self) -> list[Any] | None:
        """The most probable class of each row, None for a row without scores; None for a loss without classes."""
        if self.loss.classes is None:
            return None
        best = np.where(np.isnan(self.scores).any(axis=1), -1, np.argmax(self.scores, axis=1))
        return [None if at < 0 else self.loss.label_of(at) for at in best.tolist()]
