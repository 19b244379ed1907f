"""Alarm: reports that the stream has changed, and in which columns, at a stated false alarm rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, nest, part, take
from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.drift.distances import BLOCK, DECILES, Distances
from riverdelta.evaluation.drift.limits import ERRORS, TOLERANCE, largest
from riverdelta.evaluation.drift.panel import Panel
from riverdelta.evaluation.drift.reference import Reference
from riverdelta.evaluation.drift.watched import Watched

#: The shortest reference: 16 blocks, enough for a standard error.
LEAST = 16 * BLOCK
#: The most windows skipped because the loss still falls in them.
_MOST_TRIES = 8
#: The base's raw output among the columns.
SCORE = "score"


class Drift:
    """A drift detector for joined examples, with a bound on its rate of false alarms.

    **Reference.** The profile that is `given`, if any: then everything is watched from the first example on.
    Otherwise the first stable window of `reference` examples: a window is stable if the loss of its second half is not below
    that of its first by more than two standard errors, since while a learner still improves any later stream would look
    normal; after 8 unstable windows the next one is taken as it is. After an alarm the alarm's reference is the next stable
    window, so that a lasting change becomes the norm; distances are still measured from the given reference.

    **Distances.** Every scalar, id and vector (by its length) of `schema`, and the base's logit as `score`, has a histogram of
    the reference and one of the last `reference` examples: deciles of numbers, with a bin of its own for a value that is
    several deciles, and 32 hashed bins of ids. `report` gives their population stability index and Jensen-Shannon distance.

    **Alarm.** A `Panel` takes a step every 64 examples. It bets on the block's means of the served loss (at most 4), with two
    labels of score - label in both directions (calibration), with classes of the share of each as a label and as the base's
    prediction, and of the share of each decile of the score and of each number. A loss in the label's unit is divided by the
    base's typical loss (`Unit`) when the reference began; before the first, 64 examples show it. Every quantity has the same
    weight. A quantity may rise by 0.02 (nats, probability, share) plus 5 standard errors of its
    reference before a bet gains, and a share below 0.08 by a quarter plus Wilson's interval, so that a rare value counts too;
    while none does, in the mean given the blocks before, alarms come at most once in `run_length` examples by theorem. Ids
    raise no alarm: users and items come and go in every stream.

    The state does not depend on how examples are cut into blocks, to the last bit.

    Parameters
    ----------
    schema
        The columns to watch.
    reference
        Examples in a reference window, a multiple of 64 of at least 1,024 (default 8,192). More makes small shifts detectable
        and starts watching later.
    run_length
        Mean number of examples between false alarms, at least (default 10 million). Lower it to detect changes earlier.
    given
        Reference profile (`riverdelta reference`); None learns the reference from the stream.
    loss
        The loss of the task.

    >>> drift = Drift(Schema.of({"x": "float32"}), reference=1_024, run_length=1e6)
    >>> rng = np.random.default_rng(0)
    >>> def stream(n, shift=0.0):
    ...     x = rng.normal(shift, 1.0, n).astype(np.float32)
    ...     return {"x": x}, x, x, (rng.random(n) < 1 / (1 + np.exp(-x))).astype(np.float32)
    >>> drift.update(*stream(20_000)), drift.update(*stream(4_000, 1.5))
    ([], ['x'])
    """

    def __init__(
        self,
        schema: Schema,
        reference: int = 8192,
        run_length: float = 1e7,
        given: Reference | None = None,
        loss: Loss = LOG_LOSS,
    ) -> None:
        if reference < LEAST or reference % BLOCK:
            raise ConfigurationError(f"reference is {reference!r}; expected a multiple of {BLOCK} of at least {LEAST:,}")
        self.reference, self.run_length, self.loss = reference, run_length, loss
        names, blocks = (*schema, SCORE), reference // BLOCK
        self.distances = Distances(names, [*(column.kind == "id" for column in schema.values()), False], blocks)
        numbers = [name for name, is_id in zip(names, self.distances.is_id, strict=True) if not is_id]
        self._watched = Watched(loss)
        self.quantities = (*self._watched.quantities, *numbers)
        first = len(self._watched.quantities)
        self._owner = np.concatenate([self._watched.owner, np.repeat(np.arange(first, len(self.quantities)), DECILES)])
        each = 1.0 / len(self.quantities) / np.bincount(self._owner)[self._owner]
        self._panel = Panel(np.ones(len(each)), each / each.sum(), run_length / BLOCK)
        #: Examples, those of the current reference or watch, blocks watched, and windows skipped for a reference.
        self.examples = self._taken = self._blocks = self._tries = 0
        self._watching = False
        self._kept, self._losses = np.zeros((len(names), reference), np.float32), np.zeros((blocks, len(self._watched)))
        self._sums = np.zeros(len(self._watched))
        #: Alarms by quantity, and the example of the last one.
        self._alarms, self._last = np.zeros(len(self.quantities), np.int64), np.full(1, -1, np.int64)
        #: What the last alarm was about, of all that is bet on.
        self._about = np.full(1, -1, np.int64)
        self._given, self._digest = given, np.zeros(16, np.uint8)
        if given is not None:
            self._take(given)

    @classmethod
    def reference_of(
        cls, schema: Schema, columns: Columns, base: Floats, label: Floats, loss: Loss = LOG_LOSS, group: Group = None
    ) -> Reference:
        """Return the reference profile of at least 1,024 rows in their original order; N is cut to a multiple of 64.

        `base` float32[N, K] is the base's raw output. Use rows that the base was not fitted to, so that its loss is
        representative.
        """
        rows = len(label) - len(label) % BLOCK
        taken = cls(schema, rows, loss=loss)
        # These rows are the reference, whatever the trend of their loss.
        taken._tries = _MOST_TRIES
        given = base[:rows], base[:rows], label[:rows], None if group is None else group[:rows]
        taken._watched.of(*given)  # these rows show what a typical loss is, too
        taken.update({name: columns[name][:rows] for name in schema}, *given)
        if not taken._watching:
            raise InvalidInput(f"the base has no loss on the {rows:,} rows of the reference; expected rows not known to it")
        d, first = taken.distances, len(taken._watched)
        numbers = [name for name, is_id in zip(d.names, d.is_id, strict=True) if not is_id]
        return Reference(
            edges=dict(zip(d.names, d.edges, strict=True)),
            usual=dict(zip(d.names, d.usual, strict=True)),
            bound=dict(zip(numbers, taken._panel.bound[first:].reshape(-1, DECILES), strict=True)),
            losses=taken._panel.bound[:first],
            scale=None if taken._watched.unit.constant else taken._watched.scale,
        )

    def update(self, columns: Columns, base: Floats, served: Floats, label: Floats, group: Group = None) -> list[str]:
        """Observe M examples with raw outputs float32[M, K] as served; return the quantity of each alarm raised.

        `group` int64[M] is the list of each row, for a loss of lists; none is cut.
        """
        score = self.loss.rows(base)
        values = self.distances.values({**columns, SCORE: score[:, 0] if score.shape[1] == 1 else score})
        (losses, scales), bins = self._watched.of(base, served, label, group), self.distances.bins(values)
        alarms, at = [], 0
        while at < len(label):
            part = slice(at, at + BLOCK - self._taken % BLOCK)
            if not self._taken and not self._watching:
                self._watched.scale[0] = scales[at]
            at += len(losses[part])
            self._sums = np.add.accumulate(np.concatenate([self._sums[None], self._watched.scaled(losses[part])]))[-1]
            if self._watching:
                self.distances.add(bins[:, part])
            else:
                self._kept[:, self._taken : self._taken + len(losses[part])] = values[:, part]
            self._taken += len(losses[part])
            self.examples += len(losses[part])
            if self._taken % BLOCK:
                break
            means, self._sums = self._sums / BLOCK, np.zeros_like(self._sums)
            if not self._watched.scale[0]:
                self._taken = 0  # these rows only showed what a typical loss is
            elif self._watching and self._step(means):
                alarms.append(self._alarm())
            elif not self._watching:
                self._losses[self._taken // BLOCK - 1] = means
                if self._taken == self.reference and self._begin():
                    bins = self.distances.bins(values)
        return alarms

    @property
    def alarms(self) -> int:
        """The number of alarms raised."""
        return int(self._alarms.sum())

    @property
    def last_alarm(self) -> int | None:
        """The example at which the last alarm was raised, counted from 1."""
        return int(self._last[0]) if self._last[0] >= 0 else None

    @property
    def cause(self) -> str | None:
        """The quantity of the last alarm, for the share of a class with its name; None if unknown."""
        about = int(self._about[0])
        if about < 0:
            return None
        return self._watched.named(about) if about < len(self._watched) else self.quantities[self._owner[about]]

    def report(self) -> dict[str, Any]:
        """Return distances by column (None before a full window), and evidence (1 raises an alarm) and alarms by quantity."""
        held = np.bincount(self._owner, self._panel.evidence())
        last = self.last_alarm
        share = np.log1p(held) / math.log1p(self._panel.run_length)
        return {
            "watching": self._watching,
            "columns": self.distances.report(self._watching and self._taken >= self.reference),
            "quantities": {
                name: {"evidence": float(e), "alarms": int(a)}
                for name, e, a in zip(self.quantities, share, self._alarms, strict=True)
            },
            "alarms": self.alarms,
            "alarmed": last is not None and self.examples - last <= self.reference,
            "last_alarm": last,
            "reference": (self._given.rows if self._given else self.reference) if self._watching else None,
            "given": self._given is not None,
            "run_length": self.run_length,
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {name: array.copy() for name, array in self._arrays().items()} | nest({"unit": self._watched.unit.state()})

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned for the same columns and reference; raises `Corrupt` if it does not fit."""
        mine = self._arrays()
        found = {name: take(arrays, name, array) for name, array in mine.items()}
        examples, taken, watching, blocks, _, tries = n = found["n"].tolist()
        if not (0 <= taken < (self.reference if not watching else 2**63) and watching in (0, 1) and blocks >= 0):
            raise Corrupt(f"the saved drift's 'n' is {n}; expected counts for a reference of {self.reference} examples")
        if (found["digest"] != self._digest).any():
            raise Corrupt("the saved drift belongs to another reference")
        self._watched.unit.load(part(arrays, "unit"))
        for name, array in mine.items():
            array[...] = found[name]
        self.examples, self._taken, self._watching, self._blocks, self._tries = examples, taken, bool(watching), blocks, tries

    def _step(self, means: Doubles) -> bool:
        """Bet on a block; return whether it raises an alarm."""
        shares = self.distances.close(self._blocks)
        self._blocks += 1
        return self._panel.update(np.concatenate([means, shares.ravel()]))

    def _take(self, given: Reference) -> None:
        """Watch against a given reference from the first example on; raises `ConfigurationError` if it lacks a column."""
        d, numbers = self.distances, []
        for c, name in enumerate(d.names):
            if name not in given.usual or (name in given.bound) == d.is_id[c]:
                kind = "id" if d.is_id[c] else "number"
                raise ConfigurationError(
                    f"the reference has no {kind} column {name!r}, which a correction reads; it has "
                    f"{', '.join(given.usual)}: make it again with `riverdelta reference`"
                )
            d.edges[c], d.usual[c] = given.edges[name], given.usual[name]
            numbers += [] if d.is_id[c] else [given.bound[name]]
        if len(given.losses) != len(self._watched) or (given.scale is None) != self._watched.unit.constant:
            raise ConfigurationError("the reference belongs to another task: make it again with `riverdelta reference`")
        if given.scale is not None:
            self._watched.scale[:] = given.scale
        self._panel.bound[:] = np.concatenate([given.losses, *numbers])
        self._digest[:] = np.frombuffer(given.digest, np.uint8)
        self._watching = True

    def _begin(self) -> bool:
        """Turn the collected examples into the reference unless their loss still falls; return whether watching begins."""
        if self._tries < _MOST_TRIES and _falls(self._losses[:, 0]):
            self._taken, self._tries = 0, self._tries + 1
            return False
        if self._given is None:
            self.distances.take(self._kept)
        shares = self.distances.by_block(self._kept)[:, ~self.distances.is_id, :DECILES] / BLOCK
        means = np.concatenate([self._losses, shares.reshape(len(shares), -1)], 1)
        # The error is that of block means, so that correlated rows raise it as they should.
        mean, error, first = means.mean(0), means.std(0, ddof=1) / np.sqrt(len(means)), len(self._watched.ranges)
        losses = np.minimum(mean[:first] + ERRORS * error[:first] + TOLERANCE / self._watched.ranges, 1.0)
        self._panel.bound[:] = np.concatenate([losses, largest(mean[first:], error[first:], self.reference)])
        self._panel.wealth[:] = 0.0
        self.distances.begin()
        self._taken = self._blocks = self._tries = 0
        self._watching = True
        return True

    def _alarm(self) -> str:
        """Record the quantity with the most evidence, and collect a new reference: a lasting change becomes the norm."""
        evidence = self._panel.evidence()
        most = int(np.argmax(np.bincount(self._owner, evidence)))
        self._about[0] = np.argmax(np.where(self._owner == most, evidence, -1.0))
        self._alarms[most] += 1
        self._last[0] = self.examples
        self._panel.wealth[:] = 0.0
        self._taken, self._watching = 0, False
        return self.quantities[most]

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state; the fifth number of `n` is kept for version 0.1."""
        n = np.array([self.examples, self._taken, self._watching, self._blocks, 0, self._tries], np.int64)
        return {
            "n": n, "kept": self._kept, "losses": self._losses, "sums": self._sums, **self.distances.arrays(),
            "bound": self._panel.bound, "wealth": self._panel.wealth, "alarms": self._alarms, "last": self._last,
            "digest": self._digest, **({"about": self._about} if self.loss.classes else {}),
            **({} if self._watched.unit.constant else {"scale": self._watched.scale}),
        }  # fmt: skip


def _falls(losses: Doubles) -> bool:
    """Whether the second half of the blocks' losses is below the first by more than two standard errors."""
    halves = np.array_split(losses, 2)
    error = math.sqrt(sum(half.var(ddof=1) / len(half) for half in halves))
    return bool(halves[0].mean() - halves[1].mean() > 2.0 * error)
