"""Admission: which of the joined examples may be learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.events import Control
from riverdelta.joiner import Examples
from riverdelta.settings import Settings
from riverdelta.stack import Stack


class Admission:
    """The breaker, which lets nothing pass while it is open, and the limiter, which lets each entity pass so often."""

    def __init__(self) -> None:
        self.breaker: Any = None
        #: The trips of the breaker that a rollback has answered.
        self.rolled_back = 0

    @classmethod
    def of(cls, stack: Stack, settings: Settings) -> Admission:
        """Return what the settings ask for, on the id columns that the stack is keyed by."""
        return cls()

    def scored(self, rows: int) -> None:
        """Note that rows were scored."""

    def admit(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """Return bool[M]: what may be learned."""
        return np.ones(len(examples), np.bool_)

    def resume(self) -> None:
        """Close the breaker: an operator says that all is well."""

    def answered(self, control: Control) -> None:
        """Note a rollback that the breaker asked for."""
        self.rolled_back = max(self.rolled_back, int(control.arguments.get("trip", 0)))

    def report(self) -> dict[str, Any]:
        """Return what is kept back, and why."""
        return {"open": False, "reason": None, "trips": 0, "limited": 0}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        return {"rolled_back": np.array([self.rolled_back], np.int64)}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        self.rolled_back = int(arrays["rolled_back"][0])
