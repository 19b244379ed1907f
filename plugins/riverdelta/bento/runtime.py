"""Runtime: what one worker holds between its start and its end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sized
from time import perf_counter
from typing import Any

import numpy as np

from riverdelta.bento.endpoints import LABELS
from riverdelta.bento.tracing import note, trace_id
from riverdelta.core.errors import Unavailable
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane, ScoreAnswer

#: What is expected to take longer than this is scored in a thread, so that the event loop can go on.
_INLINE_SECONDS = 1e-3
_MEMORY = 0.9


class Runtime:
    """A dataplane that exists from `start` to `stop`; before and after that, asking for it raises `Unavailable`."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._plane: DataPlane | None = None
        self._seconds: dict[int, float] = {}

    @property
    def plane(self) -> DataPlane:
        """The dataplane."""
        if self._plane is None:
            raise Unavailable(f"{self.definition.name} is starting or stopping; try again")
        return self._plane

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._plane is not None

    def start(self, plane: DataPlane) -> None:
        """Take requests; `plane` is closed by `stop`."""
        self._plane = plane
        plane.metrics.expect(LABELS)
        # What start-up made will live as long as the worker: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        """Make what was scored durable."""
        plane, self._plane = self._plane, None
        if plane is not None:
            plane.close()

    async def score(self, columns: Any, propensity: Any, transport: str) -> ScoreAnswer:
        """Score on the event loop where that is quick, in a thread where it is not; what is quick is learned by size."""
        plane, trace = self.plane, trace_id()
        size = rows_of(columns).bit_length()
        expected = self._seconds.get(size, 0.0)
        start = perf_counter()
        if expected <= _INLINE_SECONDS:
            answer = plane.score(columns, propensity, transport, trace)
        else:
            answer = await asyncio.to_thread(plane.score, columns, propensity, transport, trace)
        note(answer.impressions)
        self._seconds[size] = _MEMORY * expected + (1.0 - _MEMORY) * (perf_counter() - start)
        return answer


def rows_of(brought: Any) -> int:
    """Return how many rows a client's columns (the first one counts) or items are.

    What has no length counts as 1, and is refused further on.
    """
    first = next(iter(brought.values()), ()) if isinstance(brought, Mapping) else brought
    if isinstance(first, np.ndarray) and not first.ndim:  # it is `Sized`, and has no length
        return 1
    return len(first) if isinstance(first, Sized) else 1
