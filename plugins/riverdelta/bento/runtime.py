"""Runtime: the data plane of one worker, from its start to its end."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

import numpy as np

from riverdelta.bento.endpoints import LABELS
from riverdelta.bento.sizes import Sizes
from riverdelta.bento.tracing import note, trace_id
from riverdelta.core.errors import Unavailable
from riverdelta.learning.definition import Definition
from riverdelta.serving.answer import ScoreAnswer
from riverdelta.serving.dataplane import DataPlane
from riverdelta.serving.feedback import FeedbackAnswer
from riverdelta.serving.naming import Claim

Given = ParamSpec("Given")
Read = TypeVar("Read")
#: A larger body may take longer than 2 ms to read: 4,000 short ids are 12 KiB, and each takes 1 µs.
_INLINE_BYTES = 8 << 10
#: A request expected to take longer is scored in a thread, so that it does not block the event loop.
_INLINE_SECONDS = 1e-3
_MEMORY = 0.9
#: The large bodies that a worker receives and reads at once have as many bytes as this many of the largest.
_BODIES = 8


class Runtime:
    """Holds the data plane from `start` to `stop`; before and after, `plane` raises `Unavailable`."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._plane: DataPlane | None = None
        self._seconds: dict[int, float] = {}
        #: The sizes that a request may have.
        self.sizes = Sizes.of(definition.request_schema, 1)
        self._held = 0
        #: Large bodies are read one after another: reading holds the interpreter, and more threads would take it more often.
        self._reader = ThreadPoolExecutor(1, "riverdelta-reader")

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
        self._plane, self.sizes = plane, Sizes.of(self.definition.request_schema, plane.settings.max_rows)
        plane.metrics.expect(LABELS)
        # Objects from start-up live as long as the worker: the garbage collector need not scan them.
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        """Close the data plane, which makes its impressions durable."""
        plane, self._plane = self._plane, None
        if plane is not None:
            plane.close()

    async def read(self, size: int, act: Callable[Given, Read], *given: Given.args, **more: Given.kwargs) -> Read:
        """Return what `act` reads from a body of `size` bytes: on the event loop if it is small, otherwise in a thread."""
        if size <= _INLINE_BYTES:
            return act(*given, **more)
        held = self.hold(size, size)
        try:
            return await self.apart(act, *given, **more)
        finally:
            self.release(held)

    async def apart(self, act: Callable[Given, Read], *given: Given.args, **more: Given.kwargs) -> Read:
        """Return what `act` reads, in the thread of large bodies."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, partial(act, *given, **more))

    def hold(self, size: int, total: int) -> int:
        """Count `size` more bytes of a body, now of `total` bytes, until `release`; return those counted: none of a small body.

        Raises `Unavailable` if the bodies that are received or wait to be read have too many bytes together.
        """
        if total <= _INLINE_BYTES:
            return 0
        if self._held + size > (most := _BODIES * self.plane.settings.max_bytes):
            raise Unavailable(
                f"the large requests in progress have {self._held} bytes, and this worker holds at most {most} "
                f"({_BODIES} times RIVERDELTA_MAX_BYTES); try again, or send it in parts"
            )
        self._held += size
        return size

    def release(self, held: int) -> None:
        """Count these bytes no longer."""
        self._held -= held

    async def feedback(self, ids: Any, labels: Any, source: int, size: int, **more: Any) -> FeedbackAnswer:
        """Store the feedback of a body of `size` bytes, with `more` of what `DataPlane.read_feedback` takes."""
        plane = self.plane
        return await plane.store(await self.read(size, plane.read_feedback, ids, labels, **more), source)

    async def score(
        self, columns: Any, propensity: Any, transport: str, size: int = 0, request_id: Any = None, row_ids: Any = None
    ) -> ScoreAnswer:
        """Score the columns of a body of `size` bytes: on the event loop if requests of as many rows are fast."""
        plane, trace = self.plane, trace_id()
        block = await self.read(size, plane.read, columns, propensity, request_id, row_ids)
        rows = block.rows.bit_length()
        expected = self._seconds.get(rows, 0.0 if size <= _INLINE_BYTES else math.inf)
        start = perf_counter()
        if expected <= _INLINE_SECONDS:
            scored = plane.score_block(block, transport, trace)
        else:
            scored = await asyncio.to_thread(plane.score_block, block, transport, trace)
        took = perf_counter() - start
        answer = await plane.settle(scored) if isinstance(scored, Claim) else scored
        note(answer.impressions)
        self._seconds[rows] = took if expected == math.inf else _MEMORY * expected + (1.0 - _MEMORY) * took
        return answer


def rows_of(brought: Any) -> int:
    """Return the number of rows in a client's items, or in the first of its columns.

    A value without a length counts as 1 and is refused later.
    """
    first = next(iter(brought.values()), ()) if isinstance(brought, Mapping) else brought
    if isinstance(first, np.ndarray) and not first.ndim:  # it is `Sized`, and has no length
        return 1
    return len(first) if isinstance(first, Sized) else 1
