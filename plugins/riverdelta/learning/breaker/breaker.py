"""Breaker: stops learning on evidence of harm, and reports why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, nest, part, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.learning.breaker import evidence as e

Rows = npt.NDArray[np.bool_]
_Doubles = npt.NDArray[np.float64]
#: Of M examples, for each the label, the loss above the base's, chances of another label, and whether it counts.
Facts = tuple[npt.NDArray[np.int64], _Doubles, _Doubles, _Doubles, Rows]
#: By part of the state, its arrays by name.
Fields = dict[str, dict[str, npt.NDArray[Any]]]


class Breaker:
    """Decides which joined examples may be learned: all, until there is evidence that learning from them does harm.

    It decides after every 128 examples, for those that follow. Once tripped it stays so until `reset`.

    **Harm.** By the labels of one sender the corrected scores lose over 0.05 nats a row more than the base, and over 0.05 more
    than they lose by the latest equal labels of other senders. So wrong labels are measured by scores that the others' labels
    have shaped; if those are no more than its own, as with two senders, it can be the honest one that is named. What affects
    all senders, such as late labels, a season, or one label that comes in batches, does not count, and the gate limits what it
    costs. 32 senders are tested one by one, the rest together. Without equal labels from others a sender is not tested, nor by
    examples that the limits do not admit: as they are not learned, they would contradict the scores permanently.

    **Degenerate labels**, of one sender or of all. The last 1,000 or more are the same, more than in any earlier run, and 20 of
    other labels were expected by the base, and also by the usual rate: the share of this label's rows after which another
    came, plus three standard errors. So labels that truly come in long runs do not trip it. Nor does a run of which the
    corrected scores expect less than a sixteenth of what the base does, such as the negatives of one user: they have learned
    it, which with stale labels of many takes them longer. A label is tested once 8 of its runs have ended.

    It cannot detect a stream that is wrong from the first label on, labels that all senders invert at once, or a share of wrong
    labels from which the corrections still gain.

    Labels are 0 and 1, or classes. Other labels are not tested: numbers are hardly ever equal, so that a sender cannot be
    compared with the others by equal labels, and a base that predicts a number does not say how probable an equal one is.

    The result depends only on the examples and their order, bit for bit, not on how they are cut into blocks.

    **Weights** that senders give to labels neither hide harm nor make it: x is by unit of weight, and evidence is kept in three
    ways: every example counts for 1; for its weight, up to 1; and for a hundredth of its weight. So a sender is named if most
    of its labels are wrong, or most of their weight; light right labels among heavy wrong ones do not hide these. Labels of
    weight 0 are not observed.

    Notes
    -----
    With x = clip(weight·(corrected loss - base loss), ±1) of an example less the mean of the others', if that is above 0, each
    sender's evidence is a Shiryaev-Roberts e-detector: R ← (R + 1)·(1 + s·(x - 0.05)), averaged over the stakes s = 1/16 and
    1/4; it trips at R = 10⁷. `weight` is that of sampling alone; with the sender's weight ω, and u = 1, min(ω, 1) or ω/100, it
    is R ← (R + u)·(1 + s·u·(x - 0.05)), and R less the sum of u is a supermartingale: Σu has the bound that follows, for each
    of the three, so where weights differ there are up to 3 times as many false alarms. If E[x | the past] <= 0.05 at every
    example, R - (examples of the sender) is a supermartingale, and so is the sum over senders: the mean number of examples
    before a false alarm is at least 10⁷, whatever the number of senders and however their labels depend on each other. Past
    gains are forgotten, as R is never below 0. Source: Shin, Ramdas, Rinaldo 2022, "E-detectors: a nonparametric framework for
    sequential change detection", arXiv 2203.03532. If ends are independent, a run in which 20 were expected by their true rate
    has a probability of 2·10⁻⁹. The three standard errors are for a base that is right: with 100 ends known, it then trips at
    20 expected by the base in all but 0.1 % of the cases.

    Examples
    --------

    >>> rng = np.random.default_rng(0)
    >>> label = (rng.random(4_000) < 0.3).astype(np.float32)
    >>> rows = Examples.unserved({}, np.full(4_000, -0.8, np.float32), label, np.zeros(4_000))
    >>> breaker = Breaker()
    >>> bool(breaker.update(rows).all()), breaker.reason
    (True, None)
    >>> rows.label[:] = 0
    >>> int(breaker.update(rows).sum()), breaker.reason.partition(";")[0]
    (1120, 'the last 1,120 labels of all senders are 0, where 347 of the other were expected')
    """

    def __init__(self, loss: Loss = LOG_LOSS) -> None:
        self.loss, labels = loss, len(loss.labels or ())
        self._tally = np.zeros(1, e.TALLY)
        self._places, self._runs = np.zeros(e.REST + 1, e.PLACE), np.zeros((e.REST + 1, labels), e.RUNS)
        self._latest = np.zeros(labels, e.LATEST)
        #: `_places` and `_runs` when it tripped.
        self._tripped, self._tripped_runs = self._places.copy(), self._runs.copy()

    @staticmethod
    def watches(loss: Loss) -> bool:
        """Return whether it can test the labels of a loss."""
        return loss.logit or loss.classes is not None

    def update(self, examples: Examples, admitted: Rows | None = None) -> Rows:
        """Observe M examples in order, as they were scored; return bool[M]: those before a trip, which may be learned.

        `admitted` bool[M] are those that the limits admit (default: all); in the others only runs of one label are counted.
        """
        seen = np.ones(len(examples), np.bool_) if admitted is None else np.ascontiguousarray(admitted, np.bool_)
        out = np.empty(len(examples), np.bool_)
        # What sampling weighs a row by; the weight that was sent with its label counts apart.
        sampled = np.where(examples.sent > 0, examples.importance / np.where(examples.sent > 0, examples.sent, 1.0), 1.0)
        which, lost, chance, foreseen, good = self._facts(examples, np.asarray(sampled, np.float32))
        sent, source = np.ascontiguousarray(examples.sent, np.float32), np.ascontiguousarray(examples.source, np.int64)
        given = which, lost, chance, foreseen, sent, source, good, seen
        state = self._tally, self._places, self._runs, self._latest
        was, done = self.open, e.watch(0, *given, *state, out)
        if self.open and not was:
            self._tripped[...], self._tripped_runs[...] = self._places, self._runs
        e.watch(done, *given, *state, out)
        return out

    def reset(self, learned: bool = True) -> None:
        """Reset it on an operator's command: evidence starts over.

        If what came since the trip is `learned` (default), its runs of one label are normal: runs up to 4 times the longest
        new one, of either label, will not trip it. Otherwise it forgets what came.
        """
        p = self._places
        if self.open and learned:
            longest, at = self._runs["longest"].copy(), (np.arange(len(p)), p["label"])
            longest[at] = np.maximum(longest[at], p["run"])
            new = np.where(longest > self._tripped_runs["longest"], longest, 0).max(axis=1, keepdims=True)
            self._runs["longest"] = np.maximum(longest, e.NORMAL * new)
        elif self.open:
            p[...], self._runs[...] = self._tripped, self._tripped_runs
            for name in ("run", "expected", "foreseen"):
                p[name] = 0
        self._tally["open"] = 0
        for name in ("evidence", "weighted", "since", "mass", "excess"):
            p[name] = 0

    @property
    def open(self) -> bool:
        """Whether it is tripped, so that nothing is learned."""
        return bool(self._tally["open"][0])

    @property
    def opened(self) -> int | None:
        """The last example before it tripped, counted from 1; None unless it is tripped."""
        return int(self._tally["opened"][0]) if self.open else None

    @property
    def trips(self) -> int:
        """How often it has tripped."""
        return int(self._tally["trips"][0])

    @property
    def reason(self) -> str | None:
        """Why it tripped: whose labels, the numbers, where, and what to do; None unless it is tripped."""
        return self.explain({})

    def explain(self, names: Mapping[int, str]) -> str | None:
        """Return `reason` with senders by name, where `names` has one for their number."""
        if not self.open:
            return None
        s = self._tally[0]
        p = self._tripped[s["place"]]
        number = int(p["source"])
        who = {e.EVERYBODY: "all senders", e.REST: f"the senders beyond the first {e.SENDERS}"}.get(int(s["place"]))
        who = who or (f"sender {names.get(number, number)}" if number else "silence and unknown senders")
        if s["why"] == e.RUN:
            expected = e.ends_expected(p, self._tripped_runs[s["place"], p["label"]])
            said = f"the last {p['run']:,} labels of {who} are {self.loss.label_of(int(p['label']))!r}, "
            said += f"where {expected:.0f} of the other{'s' * (len(self._latest) > 2)} were expected"
        else:
            more = p["excess"] / (p["mass"] or 1.0) + e.MARGIN
            said = f"the corrected scores lose {more:.2f} nats a row to the base by the last {p['since']:,} labels of {who}"
            said += ", and not by those of others: they contradict each other, and either may be wrong"
        return (
            f"{said}; after example {self.opened:,}. Stop what is wrong; then `riverdelta resume` learns the examples held, "
            "and `riverdelta resume --skip` drops them"
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return nest({part: {name: a.copy() for name, a in fields.items()} for part, fields in self._fields().items()})

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if it does not fit. Of a state of version 0.1 it keeps the trips."""
        if "tallies" in arrays:
            fresh = Breaker(self.loss)
            fresh._tally["trips"] = max(take(arrays, "tallies")[3], 0)
            vars(self).update(vars(fresh))
            return
        mine = self._fields()
        saved = {name: _with_weights(part(arrays, name)) for name in mine}
        found = {name: {field: take(saved[name], field, a) for field, a in fields.items()} for name, fields in mine.items()}
        for where, name, least, most in (
            ("tally", "senders", 0, e.SENDERS),
            ("tally", "why", e.HARM, e.RUN),
            ("tally", "place", e.EVERYBODY, e.REST),
            *((name, "label", 0, len(self._latest) - 1) for name in ("places", "tripped")),
            *((name, field, 0, e.MOST) for name in ("places", "tripped") for field in ("evidence", "weighted")),
            *((name, field, 0, 2**62) for name in ("places", "tripped") for field in e.COUNTS),
            ("latest", "count", 0, 2**62),
            ("latest", "loss", -1, 1),
        ):
            values = found[where][name]
            if not ((values >= least) & (values <= most)).all():
                raise Corrupt(
                    f"the saved breaker's {where}/{name} is {values.tolist()}; expected {least} to {most}: start from an older "
                    "checkpoint"
                )
        for name, fields in found.items():
            for field, values in fields.items():
                mine[name][field][...] = values

    def _facts(self, examples: Examples, weight: npt.NDArray[np.float32]) -> Facts:
        """Return label, loss above the base's, the chances of another label by base and as corrected, and which are finite."""
        count, loss = len(examples), self.loss
        which, good = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        lost, chance, foreseen = np.zeros(count), np.zeros(count), np.zeros(count)
        if loss.logit:
            z, corrected_z = (np.ascontiguousarray(one[:, 0], np.float32) for one in (examples.base, examples.corrected))
            label = np.ascontiguousarray(examples.label, np.float32)
            e.of_logits(z, corrected_z, label, np.ascontiguousarray(weight), which, lost, chance, foreseen, good)
            return which, lost, chance, foreseen, good
        outputs = np.stack([loss.rows(one) for one in (examples.base, examples.corrected)])
        good[:] = np.isfinite(outputs).all(axis=(0, 2)) & np.isfinite(weight) & loss.valid(examples.label)
        which[good] = examples.label[good]
        base, corrected = (loss.value(raw[good], which[good]) for raw in outputs)
        lost[good] = np.clip(weight[good] * (corrected - base), -1.0, 1.0)
        for out, raw in zip((chance, foreseen), outputs, strict=True):
            out[good] = 1.0 - loss.inverse_link(raw[good])[np.arange(int(good.sum())), which[good]]
        return which, lost, chance, foreseen, good

    def _fields(self) -> Fields:
        parts = {
            "tally": (self._tally,), "places": (self._places, self._runs), "latest": (self._latest,),
            "tripped": (self._tripped, self._tripped_runs),
        }  # fmt: skip
        return {part: {name: a[name] for a in arrays for name in a.dtype.names or ()} for part, arrays in parts.items()}


def _with_weights(place: Arrays) -> Arrays:
    """Return a saved part with the fields that it lacks if a version in which every weight was 1 saved it."""
    if "evidence" not in place or "weighted" in place or "mass" in place:
        return place
    evidence = place["evidence"]
    return {**place, "weighted": np.stack([evidence, 0.0 * evidence], axis=1), "mass": place["since"].astype(np.float64)}
