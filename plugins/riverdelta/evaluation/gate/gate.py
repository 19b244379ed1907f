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
from riverdelta.core.losses.base import Doubles
from riverdelta.evaluation.gate import bounds, hedge
from riverdelta.evaluation.gate.delays import Delays
from riverdelta.evaluation.gate.older import of_older

_NOWHERE = np.empty(0, np.int64)


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
    by parts, with η₀ = 1, for both experts at once:

        Σm - min loss <= ln 2 + Σ ln((t + 1) / t) / η_t + Σ (1/η_t - 1/η_{t-1})·(-ln min(v_t, 1 - v_t)).     (1)

    **Labels at once** (w = v). Where the loss knows a rate at which mixing loses nothing (`Loss.mixable`; for a log loss and
    the weight ω, 1/ω and at most 1: x^(ηω) is concave while 0 < ηω <= 1), served <= m up to that rate. The rate starts at 1
    and is lowered to it before an example is mixed. With weights up to 1 a log loss leaves it at 1: the mixture is the
    Bayesian one, and the excess over n < 500,000 examples at most ln 2 + ln(n + 1). With weights up to W it is at most (1)
    with η >= 1/W: at most ln 2 + W·ln(n + 1) + (W - 1)·ln(2(n + 1)), and W·ln(2(n + 1)) where the first example weighs W.

    **Late labels.** A row is served with a weight that lacks the examples M whose labels came meanwhile. What that costs is
    measured, δ = served - m, and the rate is at most Λ / max Σδ, Λ = 16 nats (that of AdaHedge, de Rooij, van Erven, Grünwald
    and Koolen 2014, tuned to the delay seen; delayed feedback as in Joulani, György and Szepesvári 2013 and 2016). Let d be
    the spread of a row, the most by which the losses of its two outputs differ whatever the label is, and a = |ω|d, so that
    |r| <= a. By Jensen's and Hoeffding's inequalities, for any weight, δ <= a and

        δ <= |v - w|·a + ηa²/8,   |v - w| <= Σ over M of (ηa/4 + α/2).

    **Losses without a mixable rate** (`mixable` is 0, as for a squared loss). The same two inequalities hold for every loss
    whose mixture loses at most the mean of both, so each of their rows counts as a late one does, at once too: the rate falls
    with what mixing costs, both bounds hold, and the excess grows as √n instead of ln n.

    **Rows taken back** have a weight ω = -μ. What the mixture had won over the mean of both losses goes with them, at most
    a; where there is a mixable rate at most μd²/8, by Hoeffding's inequality. It is added to δ's bound, at once and late.

    **Rows left out.** All this is about evaluated rows. A row that is not finite, or whose base output is beyond the loss's
    bound (for log loss ±56 logits, at which all other reports clip it), is counted in `skipped` and changes nothing else.
    Within 30 logits of such a base every score is 0 or 1 to 6·10⁻¹²; with losses of at most 56 nats serving such a row costs
    at most that more than base alone.

    **Far on.** From example 500,000 on v may be nearer to 0 or 1 than w is, which adds at most 10⁻⁶·a to δ (exactly
    10⁻⁶ / (1 - 10⁻⁶)). No slower rate would lessen that, so η is tuned to Σδ without it; let F be its sum.

    **The worst case.** Let Q = Σ a(a/8 + Σ_M a/4) over rows that are late, taken back or without a mixable rate, P the sum of
    their (a/2)·Σ_M α and of what rows taken back add, and C = max Σ_M a + 17·max a: the rate is brought up to date every 16
    examples, so that every rate which moved the δ of a row was set when Σδ was at most C less than after that row. While Σδ -
    F rises to a new maximum D that rate is at most Λ / (D - C), and (D - C - P)² grows by at most 2Λ·a(a/8 + Σ_M a/4). Hence
    Σδ <= X + F, X = C + P + √(2ΛQ), and X = P where Q = 0. With κ = max(1, W, X/Λ) >= 1/η, and v, 1 - v >= α/2, (1) gives

        excess <= X + F + ln 2 + κ·ln(n + 1) + (κ - 1)·ln(2(n + 1)).

    **A start from the base** (`start_over`) is at v = 1/2·e⁻ʰ. It adds h to (1), and as ln(1/v) <= ln(2(n + 1)) + h from then
    on, κh to the worst case.

    `worst_case` is this number, whatever the labels are; `bound` is max(Σδ, 0) + (1) with the actual δ and η, and holds
    whatever was served. It is at most `worst_case`, but for the rounding of served outputs to float32 (for logits at most
    4·10⁻⁶ nats for each unit of weight), which Σδ has and X has not. With spreads up to B and d labels in flight both are of
    order B·√((d + 1)·n)·ln n + 10⁻⁶·B·n: per row they fall towards 10⁻⁶·B, not to zero.
    """

    def __init__(self, loss: Loss = LOG_LOSS) -> None:
        self.loss = loss
        self._state = np.zeros(1, hedge.STATE)
        self._state["weight"], self._state["rate"], self._state["slowest"] = 0.5, 1.0, 1.0
        self._delays = Delays()

    @property
    def weight(self) -> float:
        """The weight at which to serve the corrected prediction, 10⁻⁶ to 1 - 10⁻⁶."""
        return min(max(float(self._state["weight"][0]), hedge.LEAST_WEIGHT), 1.0 - hedge.LEAST_WEIGHT)

    def serve(self, base: Floats, corrected: Floats, label: Floats, weight: Floats | None = None) -> Floats:
        """Return the served raw outputs of N rows, shaped as `base`, each served with the labels of all before it known."""
        return self.update(base, corrected, None, label, weight, _NOWHERE).astype(np.float32).reshape(np.shape(base))

    def update(
        self, base: Floats, corrected: Floats, served: Floats | None, label: Floats, weight: Floats | None, position: Ints
    ) -> Doubles:
        """Learn N joined examples: raw outputs float32[N, K] as logged, weights float32[N], positions int64[N] of the tables.

        Returns what was served, float64[N, K] of float32 values. Without `served` (shadow mode) the mixture that would have
        been served is evaluated and returned.
        """
        loss, seen = self.loss, self._delays
        raw, numbers = np.zeros((3, len(label), loss.outputs)), np.empty((4, len(label)))
        for out, given in zip(raw, (base, corrected, served), strict=True):
            if given is not None:
                out[...] = given.reshape(out.shape)
        numbers[0], numbers[1] = label, 1.0 if weight is None else weight
        with np.errstate(invalid="ignore"):  # a row that is not finite is not evaluated
            numbers[2], numbers[3] = loss.spread(raw[0], raw[1]), loss.mixable(numbers[1])
        counted, virtual = loss.judged(raw[0]) & loss.valid(numbers[0]), served is None
        hedge.update(self._state, raw, numbers, counted, position, seen.rows, seen.held, virtual, loss.reach, loss.kernels)
        return np.asarray(raw[2])

    def start_over(self) -> None:
        """Start over from the base: the corrected prediction has the least weight until it has won more.

        Both bounds grow by what that start costs if the corrected prediction is the better one.
        """
        self.load(Gate(self.loss).state())
        s = self._state[0]
        s["weight"] = hedge.LEAST_WEIGHT
        s["slowed"] = s["handicap"] = math.log(0.5 / hedge.LEAST_WEIGHT)

    def note(self, position: int) -> None:
        """Record that everything up to `position` is learned; call it once per record."""
        s = self._state[0]
        self._delays.note(position, s["examples"], s["spread_sum"], s["share_sum"], s["weight"])

    def report(self) -> dict[str, float | int]:
        """Return weight, rate, examples, skipped, delay (most labels in flight), gain, excess, bound and worst_case.

        The last four are in the loss's unit: `gain` is the total saved over base alone, `excess` the total lost to the better
        expert in hindsight.
        """
        s = self._state[0]
        return {
            "weight": self.weight,
            "rate": float(s["rate"]),
            **{name: int(s[name]) for name in ("examples", "skipped", "delay")},
            "gain": float(s["over_served"]),
            "excess": max(float(s["over_corrected"]), 0.0) - float(s["over_served"]),
            "bound": bounds.bound(s),
            "worst_case": bounds.worst_case(s),
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {"state": self._state.view(np.float64).copy(), **self._delays.state()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, in this version or an older one; raises `Corrupt` if it does not fit."""
        if "hedge" in arrays:
            state = of_older(arrays["hedge"])
        else:
            state = take(arrays, "state", self._state.view(np.float64)).view(hedge.STATE)
        if not np.isfinite(state.view(np.float64)).all():
            raise Corrupt("the saved gate's 'state' holds a value that is not finite: start from an older checkpoint")
        self._delays.load(arrays)
        self._state[:] = state
