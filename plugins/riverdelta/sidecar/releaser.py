"""Releases: makes complete merged models, each checked for parity with the stack."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import onnx

from riverdelta.core.arrays import Arrays
from riverdelta.core.errors import Corrupt, ParityError
from riverdelta.core.examples import Examples
from riverdelta.corrections.stack import Stack
from riverdelta.graph import parity
from riverdelta.graph.files import save
from riverdelta.graph.runtime import open_session
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import Learner
from riverdelta.learning.observers import Observer
from riverdelta.storage.registry import Release, ReleaseStore

_PARITY_ROWS = 1024


class Releases(Observer):
    """Makes releases, and refuses one that differs from the Python stack by over 1e-4 logits on the latest joined rows."""

    def __init__(self, definition: Definition, store: ReleaseStore) -> None:
        self.definition, self.store = definition, store
        self.refused = 0
        self.reason: str | None = None
        self.parity: float | None = None
        self._recent: deque[Examples] = deque()
        self._rows = 0

    def on_examples(self, position: int, examples: Examples) -> None:
        """Keep the latest rows for the parity check of the next release."""
        self._recent.append(examples)
        self._rows += len(examples)
        while self._rows - len(self._recent[0]) >= _PARITY_ROWS:
            self._rows -= len(self._recent.popleft())

    def report(self) -> dict[str, Any]:
        """Return the releases kept, how many failed parity since the start, why the last one did, and the last parity."""
        champion = self.store.champion()
        return {
            "champion": champion.number if champion else None,
            "releases": len(self.store.all()),
            "release_bytes": self.store.bytes(),
            "releases_refused": self.refused,
            "refused_because": self.reason,
            "parity_max_error": self.parity,
        }

    def state_after(self, position: int) -> Arrays | None:
        """Return the state of the newest release at or after a position that can be read, None without one."""
        for release in reversed(self.store.all()):
            with suppress(Corrupt):
                if release.position >= position:
                    return self.store.state(release)
        return None

    def make(self, learner: Learner, position: int, now: float) -> Release:
        """Merge the tables, check parity, and add the release; raises `ParityError` if the check fails.

        `position` is that of the record being applied, which requests the release; `now` is in Unix seconds.
        """
        d, stack, examples = self.definition, learner.stack, learner.examples
        report = learner.prequential.report()["all"]
        facts: dict[str, Any] = {f"loss_{scorer}": report[scorer]["loss"] for scorer in ("base", "served")}
        facts["digest"] = stack.digest()
        provenance = {"position": str(position), "examples": str(examples), **{k: str(v) for k, v in facts.items()}}
        merged = d.merge(stack, learner.gate.weight, provenance, learner.intervals)
        try:
            self.parity = self._test(merged, stack)
        except ParityError as error:
            self.refused += 1
            self.reason = str(error)
            raise
        number, path = self.store.next_path()
        save(merged, d.signature, path)
        facts["parity_max_error"] = self.parity
        return self.store.add(number, path, position, examples, now, facts, learner.state(position))

    def _test(self, merged: onnx.ModelProto, stack: Stack) -> float:
        if not stack.corrections:
            return 0.0  # ONNX Runtime opens no model without an output
        part = parity.corrections_of(merged, stack, self.definition.schema, self.definition.taps)
        converting = parity.conversions_of(merged, self.definition.features, stack.reads)
        if converting is not None:
            parity.compare_conversions(_running(converting), self.definition.features, stack.reads)
        run = _running(part)
        found = [parity.compare(run, stack, each.columns, np.ascontiguousarray(each.base)) for each in self._recent]
        for outcome in found:
            outcome.check()
        return max((outcome.gap for outcome in found), default=0.0)


def _running(model: onnx.ModelProto) -> parity.Run:
    """Return a function that runs a model on named arrays."""
    session = open_session(model.SerializeToString(), ("CPUExecutionProvider",))
    names = [o.name for o in session.get_outputs()]

    def run(feeds: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return run
