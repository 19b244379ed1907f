"""Breaker: stops learning when the joined stream changes abruptly, and reports why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.checked import positive
from riverdelta.core.errors import Corrupt, InvalidInput
from riverdelta.core.features import Columns, Floats, Ints
from riverdelta.learning.breaker import watch as w


class Breaker:
    """Watches joined examples in order and decides for each whether it may be learned.

    **Runs of one label** (a stale or stuck stream). Of r rows of one entity in a run those count as √r: the k-th adds √k - √(k
    - 1), by the entity of the row's `keys` that is most frequent in the run. With ℓ the mean length of this label's runs so
    far, counted this way, each such row adds -ln(1 - 1/ℓ) to the run's surprise, at most ln 2 as for a fair coin; at 20 nats
    the run is too long: a chance of 2 in 10⁹. If longer runs have been normal (labels of silence come in batches) the limit is
    twice the longest less 20. A run is counted over at most 8,192 rows: the absence of a label rarer than 1 in 400 is not
    detected.

    **Four statistics** are measured repeatedly. Each is out of range if x - m > max(6σ, 1.5M, floor), with m its mean, σ its
    deviation and M the largest deviation accepted as normal; twice in a row trips the breaker.

    - Positive rate, of 256 examples or more that hold 32 runs of one label: x = arcsin √rate, above or below; floor 0.25
      (from 0.5 that is 0.26 or 0.74).
    - Feedback per scored row, of 1,024 examples: x = ln((1,024 + ½) / (scored rows + ½)), above or below; floor ln 3.
    - Unknown ids, of 256 examples after the first 2,048 and for each of `keys`: x = share of rows whose id is new, above;
      floor 0.2. Ids are known by two planes of 2²⁰ bits in turn, which hold at least the last 300,000.
    - A single source, of 256 examples with a sender: x = the largest rise of a source's share above its mean, less the share
      of one that has just stopped (a new address for an old backend); floor 0.2. A 0 from source 0 is silence.

    Nothing trips it in the first 2,048 examples, or before 8 runs of a label or 8 values of a statistic are known. With
    `silence` (unanswered rows become negatives) it begins with the first of these: until then there are only positives.

    It resets after `resume_examples` normal examples in a row, without a statistic out of range or a run that is too long.
    Statistics continue to adapt while it is tripped, so that a lasting change becomes normal: a deviation counts for at most
    3σ, over the last 256 measurements, and runs over the last 8,000 rows. So a change is accepted after 10,000 to 30,000
    examples; one that ends earlier is not.

    The result depends only on the examples and their order, bit for bit, not on how they are cut into blocks.

    Parameters
    ----------
    keys
        Id columns whose unknown ids are counted, and by which rows of one entity are discounted.
    resume_examples
        Normal examples after which it resets by itself; None (default): only `reset` does. Raise it if bad feedback comes in
        bursts.
    silence
        Whether unanswered rows become negatives (default False).

    References: Kish 1965 (what rows of one cluster count); Wald 1945 (surprise as a log-likelihood); Anscombe 1948 (arcsine);
    Huber 1964 (clipped deviations).

    >>> breaker = Breaker(["user_id"], resume_examples=1_000)
    >>> user, source = np.arange(4_000) % 500, np.ones(4_000, np.int64)
    >>> coin = (np.random.default_rng(0).random(4_000) < 0.3).astype(np.float32)
    >>> bool(breaker.update({"user_id": user}, coin, source).all()), breaker.reason
    (True, None)
    >>> learned = breaker.update({"user_id": user[:900]}, np.zeros(900, np.float32), source[:900])
    >>> int(learned.sum()), breaker.reason
    (53, 'labels have been 0 for 54 examples in a row, where 3.2 are usual; at example 4,054')
    """

    def __init__(self, keys: Sequence[str], resume_examples: int | None = None, silence: bool = False) -> None:
        if resume_examples is not None:  # None: only an operator resets it
            positive("resume_examples", resume_examples)
        self.keys, self.resume_examples = tuple(keys), resume_examples
        many = len(self.keys)
        self._state = np.zeros(1, w.STATE)
        self._state["begun"] = not silence
        self._series, self._ids = np.zeros(w.UNKNOWN + many, w.SERIES), np.zeros(many, w.FACTS)
        self._runs = np.full((many, w.SLOTS), -1, np.int64)
        self._seen = np.zeros((many, w.WORDS, 2), np.uint64)
        self._sent, self._shares = np.zeros((2, w.SOURCES), np.int64), np.zeros(w.SOURCES)

    def update(self, columns: Columns, label: Floats, source: Ints, impressions: int = 0) -> npt.NDArray[np.bool_]:
        """Observe M examples: id columns int64[M], labels float32[M] (above 0.5: positive), senders int64[M].

        `impressions` is the number of rows scored since the last call. Returns bool[M]: which examples may be learned.
        """
        rows = len(label)
        block = np.empty((len(self.keys), rows), np.int64)
        for k, name in enumerate(self.keys):
            ids = columns.get(name)
            if ids is None or ids.shape != (rows,):
                found = "is missing" if ids is None else f"has shape {list(ids.shape)}"
                raise InvalidInput(f"the breaker's key {name!r} {found}; expected int64[{rows}], an id for each label")
            block[k] = ids
        if len(source) != rows or impressions < 0:
            raise InvalidInput(
                f"source has {len(source)} rows and impressions is {impressions}; expected {rows} rows and at least 0"
            )
        label, source = np.ascontiguousarray(label, np.float32), np.ascontiguousarray(source, np.int64)
        out = np.ones(rows, np.bool_)
        first = 0 if self._state["begun"][0] else self._wait(label, source)
        self._state["scored"] += impressions
        w.watch(
            np.ascontiguousarray(block[:, first:]), label[first:], source[first:], self.resume_examples or 0, self._state,
            self._series, self._ids, self._runs, self._seen, self._sent, self._shares, out[first:],
        )  # fmt: skip
        return out

    def reset(self) -> None:
        """Reset the breaker on an operator's command; statistics that are out of range now count as normal from here on."""
        s, usual = self._state[0], self._series
        beyond = usual["beyond"] > 0
        usual["most"][beyond] = np.maximum(usual["most"], np.abs(usual["value"] - usual["mean"]))[beyond]
        usual["beyond"] = 0.0
        if s["surprise"] > w.limit(s["usual_run"]):
            s["usual_run"] = s["surprise"]
        s["open"] = s["calm"] = s["alarms"] = 0

    @property
    def open(self) -> bool:
        """Whether it is tripped, so that nothing is learned."""
        return bool(self._state["open"][0])

    @property
    def opened(self) -> int | None:
        """The example at which it tripped, counted from 1; None unless it is tripped."""
        return int((self._state["before"] + self._state["opened"])[0]) if self.open else None

    @property
    def trips(self) -> int:
        """How often it has tripped."""
        return int(self._state["trips"][0])

    @property
    def reason(self) -> str | None:
        """Why it tripped: what changed, its value, the normal value, over how many examples, and where; None unless tripped."""
        if not self.open:
            return None
        what, over, who, value, mean, reach = self._state[["why", "over", "who", "value", "usual", "reach"]][0].tolist()
        if what == w.RUN:
            said = f"labels have been {value:.0f} for {over:,} examples in a row, where {mean:.1f} are usual"
            return f"{said}; at example {self.opened:,}"
        now, low, middle, high = (_shown(what, x) for x in (value, mean - reach, mean, mean + reach))
        said = {
            w.RATE: f"{now} of labels are positive",
            w.FEEDBACK: f"{now} labels came for each scored row",
            w.SOURCE: f"the share of labels that source {who} sends rose by {now} of all",
        }.get(what) or f"{now} of the ids of {self.keys[what - w.UNKNOWN]!r} are unknown"
        reaches = f"{low} to {high}" if what in (w.RATE, w.FEEDBACK) else f"up to {high}"
        return f"{said}, usually {middle} ({reaches}), over {over:,} examples; at example {self.opened:,}"

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned for a breaker with the same number of keys; raises `Corrupt` if it does not fit."""
        mine = self._arrays()
        found = {name: take(arrays, name, array) for name, array in mine.items()}
        n = dict(zip(w.TALLIES, found["tallies"].tolist(), strict=True))
        for name, least, most in (
            ("label", 0, 1),
            ("sent", 0, w.WINDOW - 1),
            ("positives", 0, n["labels"] + w.WINDOW - 1),
            ("labels", 0, n["examples"]),
            ("why", w.RUN, len(self._series) - 1),
        ):
            if not least <= n[name] <= most:
                raise Corrupt(
                    f"the saved breaker's {name!r} is {n[name]}; expected {least} to {most}: start from an older checkpoint"
                )
        for name, array in mine.items():
            array[...] = found[name]

    def _wait(self, label: Floats, source: Ints) -> int:
        """Return how many rows come before the first label by silence, and start watching there."""
        silent = (source == 0) & (label <= 0.5)
        first = int(np.argmax(silent)) if silent.any() else len(label)
        self._state["before"] += first
        self._state["begun"], self._state["scored"] = first < len(label), 0
        return first

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state by name, as plain arrays that share its memory."""
        whole, levels = (self._state.view(kind) for kind in (np.int64, np.float64))
        return {
            "tallies": whole[: len(w.TALLIES)],
            "levels": levels[len(w.TALLIES) :],
            "series": self._series.view(np.float64).reshape(len(self._series), -1),
            "ids": self._ids.view(np.int64).reshape(len(self._ids), len(w.FACTS.names or ())),
            "runs": self._runs,
            "seen": self._seen,
            "sent": self._sent,
            "shares": self._shares,
        }


def _shown(what: int, value: float) -> str:
    if what == w.RATE:
        return f"{math.sin(min(max(value, 0.0), math.pi / 2.0)) ** 2:.1%}"
    return f"{math.exp(value):.3g}" if what == w.FEEDBACK else f"{min(value, 1.0):.0%}"
