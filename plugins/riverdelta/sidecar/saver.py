"""Saver: writes checkpoints in the background, one at a time, and restores a learner from one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from riverdelta.core.arrays import Arrays, part
from riverdelta.core.errors import Corrupt, RiverdeltaError
from riverdelta.learning.learner import Learner
from riverdelta.sidecar.timer import Timer
from riverdelta.storage.checkpoints import Checkpoint, CheckpointStore


class Saver:
    """Copies a state and writes it in a thread: learning pauses only for the copy.

    `timer` says when the next checkpoint is due; a failed one is due again at once.
    """

    def __init__(self, store: CheckpointStore, timer: Timer) -> None:
        self.store, self.timer = store, timer
        self._position = 0
        #: Whether the last checkpoint failed.
        self.failed = False
        self._pool = ThreadPoolExecutor(1, "riverdelta-checkpoint")
        self._writing: Future[Path] | None = None

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is being written, or has been and `finished` or `wait` has not been called since."""
        return self._writing is not None

    def save(self, position: int, state: Callable[[], Arrays]) -> None:
        """Start to write the state at a position, unless the newest checkpoint has it or one is being written."""
        if self.writing:
            return
        if position != self._position or not self.store.oldest():
            # Copies: the learner continues to change its arrays.
            copy = {name: np.array(array) for name, array in state().items()}
            self._writing, self._position = self._pool.submit(self.store.save, position, copy), position
        self.timer.done()

    def finished(self) -> bool:
        """Return whether a checkpoint was completed since the last call; raises the error that it failed with."""
        if self._writing is None or not self._writing.done():
            return False
        self.wait()
        return True

    def wait(self) -> None:
        """Wait until the newest checkpoint is durable; raises the error that it failed with."""
        if (writing := self._writing) is not None:
            self._writing, self.failed = None, False
            try:
                writing.result()
            except BaseException:
                self._position, self.failed = -1, True
                self.timer.hurry()
                raise

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown()


def restore(learner: Learner, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a learner and its observers; raises `Corrupt` naming its file if it does not fit them."""
    try:
        learner.load(checkpoint.arrays)
        for name, observer in learner.observers.items():
            observer.load(part(checkpoint.arrays, name))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, Corrupt) as error:
        reason = str(error) if isinstance(error, RiverdeltaError) else repr(error)
        raise Corrupt(
            f"{checkpoint.path} cannot be used: {reason}; move it away, and the learner starts from an older one"
        ) from error
