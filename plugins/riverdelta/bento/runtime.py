"""Runtime: what one worker holds between its start and its end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from riverdelta.dataplane import DataPlane, ScoreAnswer
from riverdelta.definition import Definition
from riverdelta.errors import Unavailable
from riverdelta.settings import Settings

#: Blocks up to this many rows are scored on the event loop: handing them to a thread costs more than the run.
_INLINE_ROWS = 256


class Runtime:
    """A dataplane that exists from `start` to `stop`; before and after that, asking for it raises `Unavailable`."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._plane: DataPlane | None = None

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

    def start(self) -> None:
        """Open everything and warm it up."""
        self._plane = DataPlane(self.definition, Settings.load())
        # What start-up made will live as long as the worker: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        """Make what was scored durable."""
        plane, self._plane = self._plane, None
        if plane is not None:
            plane.close()

    async def score(self, columns: Any, propensity: Any, transport: str) -> ScoreAnswer:
        """Score on the event loop where that is quick, in a thread where it is not."""
        plane = self.plane
        rows = max((len(c) for c in columns.values() if hasattr(c, "__len__")), default=0) if hasattr(columns, "values") else 0
        if rows <= _INLINE_ROWS:
            return plane.score(columns, propensity, transport)
        return await asyncio.to_thread(plane.score, columns, propensity, transport)
