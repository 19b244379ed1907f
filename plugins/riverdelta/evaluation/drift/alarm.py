"""Drift: distances of every column from what was usual, and one alarm with a stated rate of false ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.evaluation.drift import watch as w
from riverdelta.evaluation.drift.panel import SHARES, Panel
from riverdelta.evaluation.drift.reference import TOLERANCE, Reference, bounds, counts, edges, stability

Arrays = dict[str, npt.NDArray[Any]]
#: The shortest reference: 16 blocks, of which a standard error can be taken.
LEAST = 16 * w.BLOCK
#: So many windows in which the log loss falls are passed over.
_MOST_TRIES = 8
#: What is watched beside the columns.
LOG_LOSS, CALIBRATION, SCORE = "log_loss", "calibration", "score"


class Drift:
    """Watch joined examples against a reference: the first stable window of `reference` of them, and after an alarm the next.

    **Reference.** That of the base's training data, if it is `given`: then everything is watched from the first example on.
    Otherwise the first stable window: a window is stable where the log loss of its second half is not below that of its
    first by more than two standard errors, since a learner that still improves would make anything that comes look usual; after
    8 windows the next one is taken as it is. After an alarm the next stable window says what the alarm allows, as what lasts
    becomes usual; distances from a given reference stay distances from it.

    **Distances.** Every scalar, id and vector (by its length) of `schema`, and the base's logit as `score`, has a histogram of
    the reference and one of the last `reference` examples: deciles of numbers, 32 hashed bins of ids. `report` gives their
    population stability index and Jensen-Shannon distance.

    **Alarm.** A `Panel` takes a step every 64 examples. It bets on the means of the block: of the log loss of what was served
    (at most 4 nats), of score - label either way (calibration), and of the share of each decile of the score and of each
    number. Each quantity has the same part of the panel. A quantity may rise by 0.02 (nats, probability, share) and 5
    standard errors of its reference before a bet gains; while none does, in the mean given the blocks before, alarms come
    once in `run_length` examples at the most: that is the theorem's figure. Ids have no say: users and items come and go in
    every stream.

    It advances example by example; blocks cut in any way leave the same bits.

    >>> drift = Drift(Schema.of({"x": "float32"}), reference=1_024, run_length=1e6)
    >>> rng = np.random.default_rng(0)
    >>> def stream(n, shift=0.0):
    ...     x = rng.normal(shift, 1.0, n).astype(np.float32)
    ...     return {"x": x}, x, x, (rng.random(n) < 1 / (1 + np.exp(-x))).astype(np.float32)
    >>> drift.update(*stream(20_000)), drift.update(*stream(4_000, 1.5))
    ([], ['x'])
    """

    def __init__(self, schema: Schema, reference: int = 8192, run_length: float = 1e7, given: Reference | None = None) -> None:
        if reference < LEAST or reference % w.BLOCK:
            raise ConfigurationError(f"reference is {reference!r}; expected a multiple of {w.BLOCK} of at least {LEAST:,}")
        if not run_length >= w.BLOCK:
            raise ConfigurationError(f"run_length is {run_length!r}; expected a number of examples of at least {w.BLOCK}")
        self.reference, self.run_length = reference, run_length
        self.columns = (*schema, SCORE)
        self._is_id = np.array([*(schema[name].kind == "id" for name in schema), False])
        self._alarmed = np.flatnonzero(~self._is_id)
        self.quantities = (LOG_LOSS, CALIBRATION, *(self.columns[c] for c in self._alarmed))
        blocks, many = reference // w.BLOCK, len(self.columns)
        self._owner = np.array([0, 1, 1, *np.repeat(np.arange(2, len(self.quantities)), w.DECILES)])
        each = 1.0 / len(self.quantities) / np.bincount(self._owner)[self._owner]
        self._panel = Panel(np.ones(len(each)), each / each.sum(), run_length / w.BLOCK)
        self._n = np.zeros(6, np.int64)
        self._kept, self._losses = np.zeros((many, reference), np.float32), np.zeros((blocks, w.LOSSES))
        self._edges = np.zeros((many, w.DECILES - 1), np.float32)
        self._usual, self._now, self._counts = np.zeros((3, many, w.BINS), np.int64)
        self._ring = np.zeros((blocks, many, w.BINS), np.int32)
        self._sums, self._x = np.zeros(w.LOSSES), np.zeros(len(each))
        #: Alarms by quantity, and the example of the last.
        self._alarms, self._last = np.zeros(len(self.quantities), np.int64), np.full(1, -1, np.int64)
        self._given, self._digest = given, np.zeros(16, np.uint8)
        if given is not None:
            self._take(given)

    @classmethod
    def reference_of(cls, schema: Schema, columns: Columns, base: Floats, label: Floats) -> Reference:
        """Return the reference of N rows, 1,024 at least, in the order in which they came; N is cut to a multiple of 64.

        `base` float32[N] is the base's logit of each. Rows that the base was not fitted to show what loss is usual of it.
        """
        rows = len(label) - len(label) % w.BLOCK
        taken = cls(schema, rows)
        # These rows are what is usual, however the loss of them runs.
        taken._n[w.TRIES] = _MOST_TRIES
        taken.update({name: columns[name][:rows] for name in schema}, base[:rows], base[:rows], label[:rows])
        bound = taken._panel.bound
        numbers = [taken.columns[c] for c in taken._alarmed]
        return Reference(
            edges=dict(zip(taken.columns, taken._edges, strict=True)),
            usual=dict(zip(taken.columns, taken._usual, strict=True)),
            bound=dict(zip(numbers, bound[w.LOSSES :].reshape(-1, w.DECILES), strict=True)),
            losses=bound[: w.LOSSES],
        )

    def update(self, columns: Columns, base: Floats, served: Floats, label: Floats) -> list[str]:
        """Take M examples with logits float32[M] as served; return the quantity of each alarm that they raised, in order."""
        rows = len(label)
        values = np.empty((len(self.columns), rows), np.float32)
        for c, name in enumerate(self.columns[:-1]):
            column = columns[name]
            if self._is_id[c]:
                w.bins_of_ids(np.ascontiguousarray(column, np.int64), values[c])
            elif column.ndim == 1:
                values[c] = column
            else:
                w.lengths(np.ascontiguousarray(column, np.float32).reshape(rows, math.prod(column.shape[1:])), values[c])
        values[-1] = base
        served, label = np.ascontiguousarray(served, np.float32), np.ascontiguousarray(label, np.float32)
        alarms, at, panel = [], 0, self._panel
        while at < rows:
            at = w.watch(
                at, values, self._is_id, served, label, panel.run_length, self._n, self._kept, self._losses, self._edges,
                self._alarmed, self._counts, self._now, self._ring, self._sums, self._x, panel.bound, panel.weight,
                panel.wealth, SHARES,
            )  # fmt: skip
            if self._n[w.ALARM]:
                alarms.append(self._alarm())
            elif not self._n[w.WATCHING] and self._n[w.TAKEN] == self.reference:
                self._begin()
        return alarms

    @property
    def examples(self) -> int:
        """How many examples it has seen."""
        return int(self._n[w.EXAMPLES])

    @property
    def alarms(self) -> int:
        """How many alarms it has raised."""
        return int(self._alarms.sum())

    @property
    def last_alarm(self) -> int | None:
        """The example of the last alarm, counted from 1."""
        return int(self._last[0]) if self._last[0] >= 0 else None

    def report(self) -> dict[str, Any]:
        """Return distances by column (None before a full window), evidence (1: alarm) and alarms by quantity."""
        full = bool(self._n[w.WATCHING]) and self._n[w.TAKEN] >= self.reference
        distances = {
            name: stability(usual, now) if full else (None, None)
            for name, usual, now in zip(self.columns, self._usual, self._now, strict=True)
        }
        held = np.bincount(self._owner, self._panel.evidence())
        last = self.last_alarm
        share = np.log1p(held) / math.log1p(self._panel.run_length)
        return {
            "watching": bool(self._n[w.WATCHING]),
            "columns": {name: {"psi": psi, "js": js} for name, (psi, js) in distances.items()},
            "quantities": {
                name: {"evidence": float(e), "alarms": int(a)}
                for name, e, a in zip(self.quantities, share, self._alarms, strict=True)
            },
            "alarms": self.alarms,
            "alarmed": last is not None and self.examples - last <= self.reference,
            "last_alarm": last,
            "reference": (self._given.rows if self._given else self.reference) if self._n[w.WATCHING] else None,
            "given": self._given is not None,
            "run_length": self.run_length,
        }

    def state(self) -> Arrays:
        """Return what a later `load` needs to go on from here, bit for bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what `state` returned of the same columns and reference; raises `Corrupt` at anything else."""
        mine = self._arrays()
        for name, array in mine.items():
            theirs = arrays.get(name)
            if theirs is None or theirs.shape != array.shape or theirs.dtype != array.dtype:
                found = "missing" if theirs is None else f"{theirs.dtype}{list(theirs.shape)}"
                raise Corrupt(f"the saved drift's {name!r} is {found}; expected {array.dtype}{list(array.shape)}")
        taken, watching = arrays["n"][[w.TAKEN, w.WATCHING]].tolist()
        if not (0 <= taken < (self.reference if not watching else 2**63) and watching in (0, 1) and arrays["n"][w.BLOCKS] >= 0):
            raise Corrupt(f"the saved drift's 'n' is {arrays['n'].tolist()}; expected those of {self.reference} examples")
        if (arrays["digest"] != self._digest).any():
            raise Corrupt("the saved drift is of another reference")
        for name, array in mine.items():
            array[...] = arrays[name]

    def _take(self, given: Reference) -> None:
        """Watch against a given reference from the first example on; raises `ConfigurationError` where it lacks a column."""
        for c, name in enumerate(self.columns):
            if name not in given.usual or (name in given.bound) == self._is_id[c]:
                kind = "id" if self._is_id[c] else "number"
                raise ConfigurationError(
                    f"the reference has no {kind} column {name!r}, which a correction reads; it has "
                    f"{', '.join(given.usual)}: make it again with `riverdelta reference`"
                )
            self._edges[c], self._usual[c] = given.edges[name], given.usual[name]
        numbers = [given.bound[self.columns[c]] for c in self._alarmed]
        self._panel.bound[:] = np.concatenate([given.losses, *numbers])
        self._digest[:] = np.frombuffer(given.digest, np.uint8)
        self._n[w.WATCHING] = 1

    def _begin(self) -> None:
        """Make a reference of what was kept, and watch from here on."""
        blocks = len(self._losses)
        if self._n[w.TRIES] < _MOST_TRIES and _falls(self._losses[:, 0]):
            self._n[[w.TAKEN, w.TRIES]] = 0, self._n[w.TRIES] + 1
            return
        means = [self._losses]
        for c, kept in enumerate(self._kept):
            if self._is_id[c]:
                bins = kept.astype(np.intp)
            else:
                if self._given is None:
                    self._edges[c] = edges(kept)
                bins = np.searchsorted(self._edges[c], np.nan_to_num(kept), side="left")
            found = counts(bins, blocks)
            if self._given is None:
                self._usual[c] = found.sum(0)
            if not self._is_id[c]:
                means.append(found[:, : w.DECILES] / w.BLOCK)
        # Each loss is a share of its own range: 4 nats, and the 2 from -1 to 1.
        unit = np.array([w.MOST, 2.0, 2.0, *np.ones(len(self._x) - w.LOSSES)])
        self._panel.bound[:] = bounds(np.concatenate(means, 1), TOLERANCE / unit)
        self._now[:], self._ring[:], self._panel.wealth[:] = 0, 0, 0.0
        self._n[[w.TAKEN, w.WATCHING, w.BLOCKS, w.TRIES]] = 0, 1, 0, 0

    def _alarm(self) -> str:
        """Note what brought the most evidence, and take a new reference from here on: what lasts becomes usual."""
        most = int(np.argmax(np.bincount(self._owner, self._panel.evidence())))
        self._alarms[most] += 1
        self._last[0] = self._n[w.EXAMPLES]
        self._panel.wealth[:] = 0.0
        self._n[[w.TAKEN, w.WATCHING, w.ALARM]] = 0
        return self.quantities[most]

    def _arrays(self) -> Arrays:
        return {
            "n": self._n, "kept": self._kept, "losses": self._losses, "edges": self._edges, "usual": self._usual,
            "now": self._now, "counts": self._counts, "ring": self._ring, "sums": self._sums, "x": self._x,
            "bound": self._panel.bound, "wealth": self._panel.wealth, "alarms": self._alarms, "last": self._last,
            "digest": self._digest,
        }  # fmt: skip


def _falls(losses: npt.NDArray[np.float64]) -> bool:
    """Whether the second half of the blocks' losses is below the first by more than two standard errors."""
    halves = np.array_split(losses, 2)
    error = math.sqrt(sum(half.var(ddof=1) / len(half) for half in halves))
    return bool(halves[0].mean() - halves[1].mean() > 2.0 * error)
