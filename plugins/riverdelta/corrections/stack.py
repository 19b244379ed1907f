"""Stack: corrections in order, each on top of the output of those before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from riverdelta.core.arrays import Array, Arrays, nest, part, take
from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.hashing import digest
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.nodes import PREFIX, Nodes
from riverdelta.corrections.base import Correction
from riverdelta.corrections.growing import INDEX
from riverdelta.corrections.table import Table

#: The representation of a lookup, up to the digest of its contents.
_LOOKUP = re.compile(r"(Lookup\([^\n]*?), [0-9a-f]{16}\)")


class Stack:
    """Applies corrections in order: the raw output of each is the offset of the next, and the last is the corrected output.

    Parameters
    ----------
    corrections
        The corrections, one or a list, in order: coarse ones such as `Calibration` first. Two of one class and key need a name
        (`Correction.named`) if they should keep their state when the order changes.
    loss
        The loss that all of them lower, by default log loss. `@online(task=...)` sets it.

    Notes
    -----
    `learn` passes a block through one correction at a time. Each returns its outputs from before its updates, so the result is
    that of passing the rows one by one through the complete stack.

    Examination. If row i of relevance r_i is examined with probability θ_i and then clicked at the rate r_i, its share of the
    list's clicks is θ_i·r_i / Σ_j θ_j·r_j: a softmax of z + ln θ, if exp(z) is r up to a factor of the list. With C clicks y
    the gradient C·θ_i·exp(z_i) / Σ_j θ_j·exp(z_j) - y_i has the mean 0 at that z, however many rows are clicked, as E[y_i] =
    θ_i·r_i and E[C] = Σ_j θ_j·r_j. So has that of clicks weighted by 1/θ, with steps up to 1/θ times as long. The constant is
    that of a conditional logit on a sample (McFadden 1978, "Modelling the choice of residential location"); a term for the
    position, left out when serving, is from Zhao et al. 2019 ("Recommending what video to watch next", RecSys).

    Examples
    --------
    >>> from riverdelta.corrections.calibration import Calibration
    >>> from riverdelta.corrections.entity import Entity
    >>> stack = Stack([Calibration(), Entity("user_id", slots=8)])
    >>> stack.bind(Schema.of({"user_id": "int64"}))
    >>> stack.predict({"user_id": np.array([3])}, np.array([[0.5]], np.float32)).tolist()
    [[0.5]]
    """

    def __init__(self, corrections: Correction | Iterable[Correction], loss: Loss = LOG_LOSS) -> None:
        self.corrections, self.loss = listed(corrections), loss
        for c in self.corrections:
            c.loss = loss
        self.names = named(self.corrections)
        self.reads = tuple(dict.fromkeys(name for c in self.corrections for name in c.reads))
        self.schema = Schema()

    def bind(self, schema: Schema) -> None:
        """Make fresh tables of every correction; raises `ConfigurationError` naming one whose column does not fit."""
        for c in self.corrections:
            c.bind(schema)
        self.schema = Schema({name: schema[name] for name in self.reads})

    def trace(self, columns: Columns, base: Floats) -> list[Floats]:
        """Return the raw outputs after each correction in order, each float32[N, K]."""
        raw = [base]
        for c in self.corrections:
            raw.append(c.predict(columns, raw[-1]))
        return raw[1:]

    def predict(self, columns: Columns, base: Floats) -> Floats:
        """Return the corrected raw outputs float32[N, K] for the base's raw outputs float32[N, K]."""
        return self.trace(columns, base)[-1] if self.corrections else base

    def learn(
        self,
        columns: Columns,
        base: Floats,
        label: Floats,
        weight: Floats,
        group: Ints | None = None,
        propensity: Floats | None = None,
    ) -> Floats:
        """Learn the rows in order and return the corrected raw outputs float32[N, K] from before each row's own update.

        With a loss of `lists`, `group` int64[N] is the list of each row (default: a single list), and the outputs are from
        before any row of the list was learned. `propensity` float32[N] are the probabilities, above 0, with which its rows were
        examined, by which `weight` was divided (default: all rows were examined alike). A correction that is `additive` learns
        from the undivided weights, and from offsets to which ln(propensity) is added while it learns.

        Raises `InvalidInput` naming a column that does not fit the bound schema, or the row of a label that the loss does not
        have; nothing is learned then.
        """
        self.schema.fits(columns, len(base))
        raw, label = base, self.loss.check_labels(label)
        for c in self.corrections:
            if not self.loss.lists:
                raw = c.learn(columns, raw, label, weight)
            elif propensity is None or not c.additive:
                raw = c.learn(columns, raw, label, weight, group)
            else:
                examined = np.log(propensity)[:, np.newaxis]
                raw = c.learn(columns, raw + examined, label, weight * propensity, group) - examined
        return raw

    def inflate(self, keep: float) -> None:
        """Keep the share `keep` of every correction's certainty, 0 to 1; raw outputs stay as they are."""
        for c in self.corrections:
            c.inflate(keep)

    def forget_id(self, name: str, own: int, rows: Columns) -> int:
        """Reset what belongs to one id in every correction, as `Correction.forget_id` does; return how many rows that is."""
        return sum(c.forget_id(name, own, rows) for c in self.corrections)

    def export(self, nodes: Nodes, columns: dict[str, str], base: str) -> str:
        """Append the stack to a graph and return the corrected raw output's tensor float32[N, K].

        In the graph, the raw output after each correction has the name that the loss gives it, in the correction's scope.
        """
        raw = base
        for name, c in self._synced():
            with nodes.scope(name):
                raw = nodes.named(self.loss.raw, c.export(nodes, columns, raw))
        return raw

    def tables(self) -> dict[str, Table]:
        """Return the served tables under their names in the merged model."""
        return {
            f"{PREFIX}{name}/{key}": table for name, c in self._synced() for key, table in c.served.items() if table.values.size
        }

    def state(self) -> dict[str, Array]:
        """Return every array that learning depends on, by name; some are the live ones."""
        return nest({name: nest(c.saved()) for name, c in self._synced()})

    def _synced(self) -> list[tuple[str, Correction]]:
        """Return the corrections with their names, once each has written its state into its tables."""
        for c in self.corrections:
            c.sync()
        return list(zip(self.names, self.corrections, strict=True))

    def load(self, arrays: Arrays) -> None:
        """Restore the arrays of `state`, or none: raises `Corrupt` naming one that is missing or does not fit."""
        before = {name: array.copy() for name, array in self.state().items()}
        try:
            self._load(arrays)
        except Exception:
            self._load(before)
            raise

    def _load(self, arrays: Arrays) -> None:
        for name, c in zip(self.names, self.corrections, strict=True):
            served, learner = (part(part(arrays, name), kind) for kind in ("served", "learner"))
            for key, table in c.served.items():
                lacks = key in c.since and key not in served
                table.put(table.values if lacks else take(served, key, table.values, any_rows=key in c.grows))
            for key, mine in c.learner.items():
                if key in c.since and key not in learner:
                    mine[...] = 0
                    c.learner[key] = mine[:0] if key in c.grows else mine
                    continue
                theirs = take(learner, key, mine, any_rows=mine.dtype == np.uint8 or key in c.grows)
                if mine.shape == theirs.shape:
                    mine[...] = theirs
                else:
                    c.learner[key] = theirs.copy()
            c._learned = True
            try:
                c.restore()
            except Corrupt as error:
                raise Corrupt(f"{name}: {error}") from error

    def fingerprint_of_0_1(self) -> str:
        """Return version 0.1's digest of the loss (unless it is log loss), the corrections, their options and table shapes.

        The contents of lookups are not part of it.
        """
        parts = [] if repr(self.loss) == repr(LOG_LOSS) else [repr(self.loss)]
        parts += [
            f"{name}={c!r}:{[(key, table.shape) for key, table in c.served.items() if key not in c.since]}"
            for name, c in zip(self.names, self.corrections, strict=True)
        ]
        return digest(_LOOKUP.sub(r"\1)", "\n".join(parts)).encode(), size=8).hex()

    def digest(self) -> str:
        """Return a digest of the complete state; stacks with equal digests serve and learn the same."""
        named = ((f"{name}:{array.dtype}:{array.shape}".encode(), array) for name, array in sorted(self.state().items()))
        return digest(*(part for text, array in named for part in (text, np.ascontiguousarray(array).data))).hex()

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return the bytes of each correction's tables and arrays: now, and with a row for every slot."""
        found = {}
        for name, c in zip(self.names, self.corrections, strict=True):
            arrays = {**c.learner, **{key: table.values for key, table in c.served.items()}}
            slots = max((table.slots for table in c.served.values()), default=0)
            growing = sum(arrays[key][:1].nbytes for key in c.grows)
            fixed = sum(array.nbytes for key, array in arrays.items() if key not in c.grows)
            found[name] = (sum(array.nbytes for array in arrays.values()), fixed + (slots + 1) * growing)
        return found

    def occupancy(self) -> dict[str, float]:
        """Return the used share of each hashed table."""
        parts = zip(self.names, self.corrections, strict=True)
        return {f"{name}/{key}": share for name, c in parts for key, share in c.occupancy().items()}


def lately(corrections: Sequence[Correction]) -> dict[str, list[str]]:
    """Return the tables, by their names in the merged model, that the graphs of older releases lack.

    With an index of rows come the tables whose rows it gives.
    """
    return {
        f"{PREFIX}{name}/{key}": [f"{PREFIX}{name}/{table}" for table in c.grows if key == INDEX]
        for name, c in zip(named(corrections), corrections, strict=True)
        for key in c.since
    }


def listed(corrections: Correction | Iterable[Correction]) -> tuple[Correction, ...]:
    """Return one correction, or several, as a tuple; raises `ConfigurationError` for anything else."""
    if isinstance(corrections, Correction):
        return (corrections,)
    if not isinstance(corrections, Iterable) or isinstance(corrections, str | Mapping):
        raise ConfigurationError(f"corrections is {corrections!r}; expected a list of corrections, such as [Calibration()]")
    found = tuple(corrections)
    for c in found:
        if not isinstance(c, Correction):
            raise ConfigurationError(f"corrections holds {c!r}; expected corrections such as Calibration()")
    return found


def named(corrections: Sequence[Correction]) -> tuple[str, ...]:
    """Return the names of corrections in their stack: the given one, or class and key, numbered if several have the same."""
    made = [_made(c) for c in corrections if c.own_name is None]
    counted = iter(n if made.count(n) == 1 else f"{n}_{made[: i + 1].count(n)}" for i, n in enumerate(made))
    names = tuple(c.own_name or next(counted) for c in corrections)
    for name in names:
        if names.count(name) > 1:
            alike = " and ".join(" ".join(repr(c).split()) for n, c in zip(names, corrections, strict=True) if n == name)
            raise ConfigurationError(f"{alike} would both be called {name!r}; give one another name: .named('another')")
    return names


def _made(correction: Correction) -> str:
    kind = type(correction).__name__.lower()
    key = getattr(correction, "key", ())
    return "_".join([kind, *((key,) if isinstance(key, str) else key)])
