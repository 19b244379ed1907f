"""Gate: a weight between two experts, base and corrected, whose cost is bounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats, Ints
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.gate import bounds, hedge
from riverdelta.evaluation.gate.delays import Delays
from riverdelta.evaluation.gate.older import of_older
from riverdelta.evaluation.unit import Unit, by_list

_NOWHERE = np.empty(0, np.int64)
#: Of what mixing costs on one example of weight 1, the rate is tuned to at most this many typical losses of the base.
_CAP = 10.0


class Gate:
    """The weight of the corrected prediction in the served mixture, learned from the losses of served examples.

    `update` takes joined examples as they were served, `weight` is what to serve next, and `report` returns what the mixture
    has cost and the most it can have cost. The result depends only on the examples and their order, bit for bit, not on how
    they are cut into blocks.

    Parameters
    ----------
    loss
        The loss of the task; its `mix` is the mixture served. There is nothing else to set.

    >>> gate = Gate()
    >>> base, corrected = np.zeros(500, np.float32), np.full(500, 2, np.float32)
    >>> served = gate.serve(base, corrected, np.ones(500, np.float32))
    >>> [round(float(z), 1) for z in served[[0, -1]]], gate.weight > 0.99, gate.report()["excess"] < gate.report()["bound"]
    ([0.8, 2.0], True, True)

    Notes
    -----
    Example t has a weight ω, the losses b and c of the base and corrected outputs as logged at serving, times ω,
    and r = b - c. v (v₁ = 1/2) takes a step of exponential weights at rate η_t and then mixes with the uniform weight, so that
    it can recover from any mistake: u = v·exp(ηr) / (1 - v + v·exp(ηr)), then v ← (1 - α)u + α/2 with α = 1/(t + 1) (fixed
    share, Herbster and Warmuth 1998, with a share that falls as in Shamir and Merhav 1999). The served weight is w = v, kept
    10⁻⁶ away from 0 and 1, the resolution of a float32 near 1. With the mixed loss m = b - ln(1 - v + v·exp(ηr)) / η, the
    excess over an expert is Σ(served - m), which mixing adds, and Σm less the expert's loss.

    **Rates that fall.** As v_{t+1} >= (1 - α)u for either expert, m - its loss <= (ln(v_{t+1} / v_t) - ln(1 - α)) / η_t. Summed
    by parts, with ζ = 1/η₀, for both experts at once:

        Σm - min loss <= ζ·ln 2 + Σ ln((t + 1) / t) / η_t + Σ (1/η_t - 1/η_{t-1})·(-ln min(v_t, 1 - v_t)).     (1)

    **Labels at once** (w = v). Where the loss knows a rate at which mixing loses nothing (`Loss.mixable`; for a log loss and
    the weight ω, 1/ω and at most 1: x^(ηω) is concave while 0 < ηω <= 1), served <= m up to that rate. For a log loss the
    rate starts at η₀ = 1, the one for weights up to 1, and is lowered to that of an example before it is mixed. With weights
    up to 1 it stays there: the mixture is the Bayesian one, and the excess over n < 500,000 examples at most ln 2 + ln(n + 1).
    With weights up to W it is at most (1) with η >= 1/W: at most ln 2 + W·ln(n + 1) + (W - 1)·ln(2(n + 1)), and
    W·ln(2(n + 1)) where the first example weighs W.

    **Lists.** An example may be a list with the loss Σ y_j·ω_j·(-ln p_j), over rows of the labels y_j (clicks or grades) and
    weights ω_j (such as 1/propensity). It is one example of the weight ω = Σ y_j·ω_j: Π p_j^(η·y_j·ω_j) is concave in p while
    η·Σ y_j·ω_j <= 1. It takes one step and one share. Of a list that was shown in part, the rows shown were served with a
    mixture of the experts' conditional probabilities, with another weight than w: each expert's weight times its
    probability of what was shown. What that cost more than the mixture with w, at most a, is measured and added to F below.

    **Late labels.** A row is served with a weight that lacks the examples M whose labels came meanwhile. What that costs is
    measured, δ = served - m, and the rate is at most Λ / max Σδ, Λ = 16 (the rate of AdaHedge, de Rooij, van Erven, Grünwald
    and Koolen 2014, tuned to the delay seen; delayed feedback as in Joulani, György and Szepesvári 2013 and 2016). Let d be
    the spread of an example, the most by which the losses of its two outputs differ whatever the label is, and a = |ω|d, so
    that |r| <= a. By Jensen's and Hoeffding's inequalities, for any weight, δ <= a and

        δ <= |v - w|·a + ηa²/8,   |v - w| <= Σ over M of (ηa/4 + α/2).

    **Losses in a unit of their own** (squared and Poisson losses). The rate is that of AdaHedge from the first example on:
    η₀ = ∞ and ζ = 0 (an infinite rate follows the better of the last example, and (1) holds in the limit), then Λ / max Σδ
    after every example. With all losses multiplied by a constant, rates are divided by it, and every weight is as before.

    Without a mixable rate (`mixable` is 0: they are convex, but exp-concave on a bounded range alone), each example counts as
    a late one does, at once too, as the same two inequalities hold for every loss whose mixture loses at most the mean of
    both; the excess grows as √n instead of ln n. Nor is there a useful spread whatever the label is. Its a is the |r| met: all
    inequalities hold with it. So `bound` needs no assumption, and `worst_case` is the most that any labels cost which make no
    example's losses differ by more than they did; `spread` is the largest.

    With a range of labels of length R, a squared loss has the mixable rate 1/(ωR²), far below what typical errors ask for. The
    rate is still that of AdaHedge, and the mixable rate ends its fall: below it an example adds nothing to Σδ, so that the
    excess grows as ln n again, and spreads hold whatever the label is. Outputs outside the range have no mixable rate
    (`Loss.in_range`); their examples count in Q, as late ones do.

    Of the cost of one example, the rate is tuned to at most 10·|ω| times the typical loss of the base (`Unit`); the rest is
    added to F. (1) holds for any rates that fall, so one label in the wrong unit costs what it costs, as `excess` and `bound`
    show, but the gate does not stay slow after it.

    **Rows taken back** have a weight ω = -μ. What the mixture had won over the mean of both losses goes with them, at most
    a; where the mixture's loss is the mixed loss at rate 1, as for mixed probabilities, at most μd²/8, by Hoeffding's
    inequality. It is added to δ's bound, at once and late.

    **Rows left out.** All this is about evaluated rows. A row that is not finite, or for whose label the base's loss is
    beyond the loss's bound, at which all other reports clip it (for two classes: whose base is beyond ±56 logits), is counted
    in `skipped` and changes nothing else; so is a list with such a row. Within 30 logits of such a base every score is 0 or 1
    to 6·10⁻¹²; with losses of at most 56 nats serving such a row costs at most that more than base alone. A squared loss
    leaves out values beyond 10¹⁵, and a Poisson loss log rates beyond 30.

    **Far on.** From example 500,000 on v may be nearer to 0 or 1 than w is, which adds at most 10⁻⁶·a to δ (exactly
    10⁻⁶ / (1 - 10⁻⁶)). No slower rate would lessen that, so η is tuned to Σδ without it. F is its sum, and that of the other
    costs that no slower rate would lessen.

    **The worst case.** Let Q = Σ a(a/8 + Σ_M a/4) over examples that are late, taken back or without a mixable rate, P the sum
    of their (a/2)·Σ_M α and of what rows taken back add, and C = max Σ_M a + 17·max a: the rate is brought up to date every 16
    examples or more often (a rate that began unlimited with each, and 17 is 2), so that every rate which moved the δ of an
    example was set when Σδ was at most C less than after it. While Σδ - F rises to a new maximum D that rate is at most
    Λ / (D - C), and (D - C - P)² grows by at most 2Λ·a(a/8 + Σ_M a/4). With K = 0 for a log loss, or the largest 1 / mixable
    rate of an example mixed at a higher one, other examples move Σδ only up to ΛK + C. Hence Σδ <= X + F,
    X = C + P + √((ΛK)² + 2ΛQ), and X = P where Q = K = 0. With κ = max(ζ, ζW, K, X/Λ) >= 1/η, and v, 1 - v >= α/2, (1) gives

        excess <= X + F + ζ·ln 2 + κ·ln(n + 1) + (κ - ζ)·ln(2(n + 1)).

    **A start from the base** (`start_over`) is at v = 1/2·e⁻ʰ. It adds ζh to (1), and as ln(1/v) <= ln(2(n + 1)) + h from then
    on, κh to the worst case.

    `worst_case` is this number, whatever the labels are; `bound` is max(Σδ, 0) + (1) with the actual δ and η, and holds
    whatever was served. It is at most `worst_case`, but for the rounding of served outputs to float32 (for logits at most
    4·10⁻⁶ nats for each unit of weight), which Σδ has and X has not. With spreads up to B and d labels in flight both are of
    order B·√((d + 1)·n)·ln n + 10⁻⁶·B·n: per row they fall towards 10⁻⁶·B, not to zero.
    """

    def __init__(self, loss: Loss = LOG_LOSS) -> None:
        self.loss = loss
        self.unit = Unit(loss)
        mixable = float(loss.mixable(np.ones(1))[0])
        self._first_rate = (mixable if self.unit.constant else 0.0) or hedge.UNLIMITED
        #: Whether losses have a limit whatever the label is.
        self._in_range = mixable > 0.0
        #: Whether a mixture's loss is exactly the mixed loss of rate 1, as the log loss of mixed probabilities is.
        self._exact = loss.dispersion == "none" and self._first_rate == 1.0
        self._state = np.zeros(1, hedge.STATE)
        self._state["weight"], self._state["rate"], self._state["slowest"] = 0.5, self._first_rate, 1.0 / self._first_rate
        self._tuned = np.zeros(int(self._first_rate == hedge.UNLIMITED))
        self._delays = Delays()

    @property
    def weight(self) -> float:
        """The weight at which to serve the corrected prediction, 10⁻⁶ to 1 - 10⁻⁶."""
        return min(max(float(self._state["weight"][0]), hedge.LEAST_WEIGHT), 1.0 - hedge.LEAST_WEIGHT)

    def serve(
        self, base: Floats, corrected: Floats, label: Floats, weight: Floats | None = None, group: Group = None
    ) -> Floats:
        """Return the served raw outputs of N rows, shaped as `base`, each served with the labels of all before it known."""
        served = self.update(base, corrected, None, label, weight, _NOWHERE, group)
        return served.astype(np.float32).reshape(np.shape(base))

    def update(
        self,
        base: Floats,
        corrected: Floats,
        served: Floats | None,
        label: Floats,
        weight: Floats | None,
        position: Ints,
        group: Group = None,
    ) -> Doubles:
        """Learn N joined rows: raw outputs float32[N, K] as logged, weights float32[N], positions int64[N] of the tables.

        `group` int64[N] says which rows are one list, for a loss of lists: a list is one example. Returns what was served,
        float64[N, K] of float32 values. Without `served` (shadow mode) the mixture that would have been served is evaluated
        and returned.
        """
        loss, seen = self.loss, self._delays
        raw, numbers = np.zeros((3, len(label), loss.outputs)), np.empty((2, len(label)))
        for out, given in zip(raw, (base, corrected, served), strict=True):
            if given is not None:
                out[...] = given.reshape(out.shape)
        numbers[0], numbers[1] = label, 1.0 if weight is None else weight
        if len(label):
            starts = loss.starts(len(label), group, each=True)
            with np.errstate(invalid="ignore"):  # a row that is not finite is not evaluated
                examples, counted = self._examples(raw, numbers, starts, group)
            caps = self._caps(loss.value(raw[0], label, group), examples, counted, starts) if len(self._tuned) else self._tuned
            hedge.update(
                self._state, raw, numbers, starts, examples, caps, counted, position, seen.rows, seen.held, served is None,
                loss.lists, self._exact, loss.reach, self._tuned, loss.kernels,
            )  # fmt: skip
        return np.asarray(raw[2])

    def _examples(self, raw: Doubles, numbers: Doubles, starts: Ints, group: Group) -> tuple[Doubles, npt.NDArray[np.bool_]]:
        """Return the terms of each example, from before it is learned, and whether it is evaluated."""
        loss, (label, weight), (base, corrected, _) = self.loss, numbers, raw
        # The loss of a list is that of its labels, each times its weight; its spread is for the largest label.
        mass, largest = (label * weight, max(loss.labels or (1.0,))) if loss.lists else (weight, 1.0)
        above, examples = np.maximum(mass, 0.0), np.zeros((4, len(starts) - 1))
        examples[1] = by_list(np.add, above, starts)
        examples[2] = by_list(np.add, above - mass, starts)
        lists = {"group": group} if loss.lists else {}
        examples[0] = by_list(np.maximum, loss.spread(base, corrected, **lists), starts) / largest if self._in_range else np.inf
        examples[3] = np.where(loss.in_range(base, corrected), loss.mixable(examples[1]), 0.0)
        return examples, by_list(np.logical_and, loss.judged(base, label, **lists) & loss.valid(label), starts)

    def _caps(self, losses: Doubles, examples: Doubles, counted: npt.NDArray[np.bool_], starts: Ints) -> Doubles:
        """Return what each example may add at most to the cost that the rate is tuned to."""
        taken = by_list(np.add, losses, starts)
        return _CAP * self.unit.of(taken, counted * (examples[1] - examples[2])) * (examples[1] + examples[2])

    def start_over(self) -> None:
        """Start over from the base: the corrected prediction has the least weight until it has won more.

        Both bounds grow by what that start costs if the corrected prediction is the better one.
        """
        self.load(Gate(self.loss).state())
        s = self._state[0]
        s["weight"] = hedge.LEAST_WEIGHT
        s["handicap"] = math.log(0.5 / hedge.LEAST_WEIGHT)
        s["slowed"] = s["handicap"] / self._first_rate

    def note(self, position: int) -> None:
        """Record that everything up to `position` is learned; call it once per record."""
        s = self._state[0]
        self._delays.note(position, s["examples"], s["spread_sum"], s["share_sum"], s["weight"])

    def report(self) -> dict[str, float | int | None]:
        """Return weight, rate, examples, skipped, delay (most labels in flight), spread, gain, excess, bound and worst_case.

        The last five are in the loss's unit: `spread` is the largest of an example, `gain` the total saved over base alone,
        `excess` the total lost to the better expert in hindsight. The rate is None while it is unlimited.
        """
        s = self._state[0]
        return {
            "weight": self.weight,
            "rate": None if s["rate"] == hedge.UNLIMITED else float(s["rate"]),
            **{name: int(s[name]) for name in ("examples", "skipped", "delay")},
            "spread": float(s["spread"]),
            "gain": float(s["over_served"]),
            "excess": max(float(s["over_corrected"]), 0.0) - float(s["over_served"]),
            "bound": bounds.bound(s, self._first_rate),
            "worst_case": bounds.worst_case(s, self._first_rate),
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        state = {"state": self._state.view(np.float64).copy(), **self._delays.state(), **self.unit.state()}
        return state | ({"tuned": self._tuned.copy()} if len(self._tuned) else {})

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, in this version or an older one; raises `Corrupt` if it does not fit."""
        if "hedge" in arrays:
            state = of_older(arrays["hedge"])
        else:
            state = take(arrays, "state", self._state.view(np.float64)).view(hedge.STATE)
        if not np.isfinite(state.view(np.float64)).all():
            raise Corrupt("the saved gate's 'state' holds a value that is not finite: start from an older checkpoint")
        tuned = take(arrays, "tuned", self._tuned) if len(self._tuned) else self._tuned
        self.unit.load(arrays)
        self._delays.load(arrays)
        self._state[:], self._tuned[:] = state, tuned
