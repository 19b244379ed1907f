"""Delays: a service in simulated time, whose clicks come long after what they are about was scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats, Ints
from riverdelta.core.link import log_loss, sigmoid
from riverdelta.core.log_loss import bounded
from riverdelta.core.records import Feedback, Impressions, Record, Tick
from riverdelta.corrections.stack import Stack
from riverdelta.lab.simulator import Doubles, Log
from riverdelta.learning.joiner import Joiner


@dataclass(frozen=True, eq=False)
class Delayed:
    """What a run served and learned: logits float32[N], true probabilities and labels of its rows, examples and seconds."""

    logit: Floats
    truth: Doubles
    label: Floats
    examples: int
    seconds: float

    def calibration_ratio(self, since: float = 0.75) -> float:
        """Return Σ score / Σ true label over the rows after the share `since` of the stream."""
        last = slice(int(since * len(self.logit)), None)
        return float(sigmoid(self.logit[last]).sum() / self.label[last].sum())

    def bias(self, since: float = 0.75) -> float:
        """Return Σ score / Σ true probability - 1 over the same rows: the calibration ratio without the labels' noise."""
        last = slice(int(since * len(self.logit)), None)
        return float(sigmoid(self.logit[last]).sum() / self.truth[last].sum()) - 1.0

    def log_loss(self, since: float = 0.75) -> float:
        """Return the mean log loss expected under the true probability, in nats a row, over the same rows."""
        last = slice(int(since * len(self.logit)), None)
        return float(log_loss(bounded(self.logit[last]), self.truth[last]).mean())


@dataclass(frozen=True, eq=False)
class DelayedService:
    """Serves a simulated log, `rows` impressions a request, and learns from what has been heard when each is scored.

    With `labels="silence"` in the joiner every row is reported as shown when it is scored, only clicks are sent, each at its
    label's time, and the clock ticks before each request. With explicit labels each label is sent at its time. `base`
    float32[N] is what the frozen scorer says. `weigh`, if given, replaces the joiner's weights by its own of (examples).

    >>> from riverdelta.corrections.calibration import Calibration
    >>> from riverdelta.core.features import Schema
    >>> from riverdelta.lab.simulator import Simulation
    >>> stack = Stack([Calibration()])
    >>> stack.bind(Schema())
    >>> service = DelayedService(Simulation(rows=2000).generate(), np.zeros(2000, np.float32), rows=100)
    >>> service.run(stack, Joiner("silence", 30.0)).examples > 1500
    True
    """

    log: Log
    base: Floats
    rows: int = 64
    weigh: Callable[[Examples], Floats] | None = None

    def run(self, stack: Stack, joiner: Joiner) -> Delayed:
        """Serve the whole log once; the stack must be fresh."""
        served = np.empty(len(self.base), np.float32)
        examples, started = 0, time.thread_time()
        for sequence, record in enumerate(self._records(stack, joiner.window, served), 1):
            made = joiner.push(sequence, record)
            if made is not None:
                weight = made.weight if self.weigh is None else self.weigh(made)
                stack.learn(made.columns, made.base.reshape(-1, 1), made.label, weight)
                examples += len(made)
        return Delayed(served, self.log.truth, self.log.stream.label, examples, time.thread_time() - started)

    def _records(self, stack: Stack, window: float | None, served: Floats) -> Iterator[Record]:
        stream = self.log.stream
        sent = np.flatnonzero(stream.label == 1) if window is not None else np.arange(len(stream))
        sent = sent[np.argsort(self.log.label_time[sent], kind="stable")]
        due = np.searchsorted(self.log.label_time[sent], stream.time[:: self.rows], side="right")
        heard = position = 0
        tick = 0.0
        for request, known in enumerate(due.tolist()):
            part = slice(request * self.rows, min((request + 1) * self.rows, len(stream)))
            now = float(stream.time[part.start])
            if known > heard:
                rows = sent[heard:known]
                late = np.zeros(len(rows), np.bool_) if window is None else stream.time[rows] + window <= tick
                yield self._feedback(rows, stream.label[rows], self.log.label_time[rows], late)
                heard, position = known, position + 1
            if window is not None:
                tick, position = now, position + 1
                yield Tick(now)
            columns = {name: stream.columns[name][part] for name in stack.reads}
            served[part] = stack.predict(columns, self.base[part].reshape(-1, 1))[:, 0]
            yield self._impressions(request, part, columns, served[part], position)
            position += 1
            if window is not None:
                shown = np.arange(part.start, part.stop)
                nothing = np.full(len(shown), np.nan, np.float32)
                yield self._feedback(shown, nothing, stream.time[part], np.zeros(len(shown), np.bool_))
                position += 1

    def _impressions(
        self, request: int, part: slice, columns: dict[str, npt.NDArray[Any]], logit: Floats, position: int
    ) -> Impressions:
        count = len(logit)
        zeros = np.zeros(count, np.int64)
        return Impressions(
            incarnation=1,
            request=zeros + request,
            index=np.arange(count, dtype=np.int32),
            time=self.log.stream.time[part],
            release=zeros,
            swap=zeros,
            position=zeros + position,
            base=self.base[part],
            corrected=logit,
            served=logit,
            propensity=np.full(count, np.nan, np.float32),
            columns=columns,
        )

    def _feedback(self, rows: Ints, label: Floats, received: Doubles, late: npt.NDArray[np.bool_]) -> Feedback:
        request, index = np.divmod(rows, self.rows)
        ones = np.ones(len(rows), np.int64)
        return Feedback(ones, request, index.astype(np.int32), label, received, late, ones)
