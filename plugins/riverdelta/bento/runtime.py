"""Runtime: the data plane of one worker, from its start to its end."""

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

#: A request expected to take longer is scored in a thread, so that it does not block the event loop.
_INLINE_SECONDS = 1e-3
_MEMORY = 0.9


class Runtime:
    """Holds the data plane from `start` to `stop`; before and after, `plane` raises `Unavailable`."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._plane: DataPlane | None = None
        self._seconds: dict[int, float] = {}

    @property
    def plane(self) -> DataPlane:
        """The data plane; raises `Unavailable` if there is none."""
        if self._plane is None:
            raise Unavailable(f"{self.definition.name} is starting or stopping; try again")
        return self._plane

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self._plane is not None

    def start(self, plane: DataPlane) -> None:
        """Start accepting requests; `stop` closes `plane`."""
        self._plane = plane
        plane.metrics.expect(LABELS)
        # Objects from start-up live as long as the worker: the garbage collector need not scan them.
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        """Close the data plane, which makes its impressions durable."""
        plane, self._plane = self._plane, None
        if plane is not None:
            plane.close()

    async def score(self, columns: Any, propensity: Any, transport: str) -> ScoreAnswer:
        """Score on the event loop if requests of this size are fast, otherwise in a thread."""
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
    """Return the number of rows in a client's items, or in the first of its columns.

    A value without a length counts as 1 and is refused later.
    """
    first = next(iter(brought.values()), ()) if isinstance(brought, Mapping) else brought
    if isinstance(first, np.ndarray) and not first.ndim:  # it is `Sized`, and has no length
        return 1
    return len(first) if isinstance(first, Sized) else 1
