"""Rehearsal: what a scorer would have done on a stream, by the joiner and the learner of a service, at a stated delay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riverdelta.core.features import Columns, Floats
from riverdelta.core.records import by_output
from riverdelta.core.settings import Settings
from riverdelta.corrections.interval import LOWER, UPPER
from riverdelta.evaluation.prequential import SCORERS, Prequential
from riverdelta.lab.coverage import by_month
from riverdelta.lab.stream import Stream
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import Learner, new_learner
from riverdelta.learning.replay import Replayed, first_served_with, replay
from riverdelta.serving.frozen import score_with_base

Measures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Rehearsal:
    """The measures of base, served and baselines: prequential; those of base and served on rows that are only scored, by name.

    `known` is the share of labels that were known before the last row, or list, was scored, and `repeats` the share of labels
    that equal the one before them, None for lists.
    """

    stream: Measures
    held_out: Mapping[str, Measures]
    known: float
    repeats: float | None
    seconds: float
    #: What the gate did over the stream: `Gate.report`.
    gate: Mapping[str, Any]
    #: The intervals by month, as `coverage.by_month` describes them; [] without any.
    intervals: list[dict[str, Any]]


def rehearse(
    definition: Definition,
    stream: Stream,
    lag_rows: int = 0,
    lag_seconds: float = 0.0,
    held_out: Mapping[str, Stream] | None = None,
    after: Sequence[int] = (),
    settings: Settings | None = None,
) -> Rehearsal:
    """Score a stream by a fresh learner, each row with what it learned from the labels known by then, and measure it.

    Parameters
    ----------
    definition
        The scorer.
    stream
        The rows, with the columns of requests.
    lag_rows, lag_seconds
        A label is known that many rows (lists, for a loss of lists) or seconds after its row is scored. One of them may be
        above 0; with neither, before the next row is scored.
    held_out
        Rows to score before the stream and after it, by name.
    after
        Numbers of labels. With each a fresh learner learns that many, then scores all later rows without learning.
    settings
        The settings of learning (default: those of the environment).
    """
    settings = settings or Settings.load()
    learner = new_learner(definition, settings)
    base, columns = score_with_base(definition, stream.columns, learner.stack.reads)
    time = _order(stream).astype(np.float64) if lag_rows else stream.time
    known = time + (lag_rows or lag_seconds) if lag_rows or lag_seconds else None
    rows: dict[str, Any] = {"propensity": stream.propensity, "group": stream.group}
    done = replay(learner, columns, base, stream.label, time, label_time=known, **rows)
    measured = dict[str, Measures]()
    for count in after:
        fresh = new_learner(definition, settings)
        first, later = slice(0, count), slice(count, None)
        replay(fresh, _cut(columns, first), base[first], stream.label[first], time[first])
        measured[f"all later rows, after {count} labels"] = _measure(fresh, stream[later], base[later], _cut(columns, later))
    for name, one in (held_out or {}).items():
        raw, read = score_with_base(definition, one.columns, learner.stack.reads)
        measured[f"{name}, after the stream"] = _measure(learner, one, raw, read)
    return Rehearsal(
        stream=learner.prequential.report()["all"],
        held_out=measured,
        known=1.0 if known is None else float((first_served_with(time, known, 1) < len(time)).mean()),
        repeats=None if stream.group is not None else float((stream.label[1:] == stream.label[:-1]).mean()),
        seconds=done.seconds,
        gate=learner.gate.report(),
        intervals=_intervals(definition, stream, base, done),
    )


def _intervals(definition: Definition, stream: Stream, base: Floats, done: Replayed) -> list[dict[str, Any]]:
    if definition.interval is None or not done.bounds:
        return []
    values = np.asarray(stream.loss.inverse_link(base)[:, 0], np.float32)
    coverage = definition.interval.coverage
    return by_month(stream.label, values, done.bounds[LOWER], done.bounds[UPPER], stream.time, coverage)


def _order(stream: Stream) -> Any:
    """Return the number of each row, or of each row's list, from 0."""
    if stream.group is None:
        return np.arange(len(stream))
    return np.cumsum(np.diff(stream.group, prepend=stream.group[:1]) != 0)


def _measure(learner: Learner, rows: Stream, base: Floats, columns: Columns) -> Measures:
    """Return the measures of rows that nothing is learned from."""
    base = by_output(base)
    _, served = learner.serve(columns, base, rows.group)
    measures = Prequential(loss=rows.loss)
    measures.update(base, served, rows.label, None, rows.group)
    found = measures.report()["all"]
    return {who: found[who] for who in SCORERS}


def _cut(columns: Columns, rows: slice) -> dict[str, Any]:
    return {name: column[rows] for name, column in columns.items()}
