"""Saver: writes checkpoints beside the learning, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from riverdelta.core.arrays import Arrays
from riverdelta.sidecar.timer import Timer
from riverdelta.storage.checkpoints import CheckpointStore


class Saver:
    """Copies a state at once and writes it in a thread: learning stands still for the copy alone.

    `timer` says when the next one is due; one that could not be written is due again.
    """

    def __init__(self, store: CheckpointStore, timer: Timer) -> None:
        self.store, self.timer = store, timer
        self._position = 0
        #: Whether the last checkpoint could not be written.
        self.failed = False
        self._pool = ThreadPoolExecutor(1, "riverdelta-checkpoint")
        self._writing: Future[Path] | None = None

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is being written, or its end has not been noticed yet."""
        return self._writing is not None

    def save(self, position: int, state: Callable[[], Arrays]) -> None:
        """Begin to write the state at a position, unless the newest checkpoint has it or one is being written."""
        if self.writing:
            return
        if position != self._position or not self.store.oldest():
            # A new array each: the learner goes on changing its own.
            copy = {name: np.array(array) for name, array in state().items()}
            self._writing, self._position = self._pool.submit(self.store.save, position, copy), position
        self.timer.done()

    def finished(self) -> bool:
        """Whether a checkpoint has been written since the last call; raises what kept it from being written."""
        if self._writing is None or not self._writing.done():
            return False
        self.wait()
        return True

    def wait(self) -> None:
        """Wait until the newest checkpoint is durable; raises what kept it from being written."""
        if (writing := self._writing) is not None:
            self._writing, self.failed = None, False
            try:
                writing.result()
            except BaseException:
                # What could not be saved is due until it is.
                self._position, self.failed = -1, True
                self.timer.hurry()
                raise

    def close(self) -> None:
        """Let go of the thread."""
        self._pool.shutdown()
