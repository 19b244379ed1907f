"""Gate: two experts, base and corrected, and a weight between them whose cost is bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats, Ints
from riverdelta.evaluation.gate import hedge
from riverdelta.evaluation.gate.delays import Delays

_NOWHERE = np.empty(0, np.int64)
_PLACES_0_1, _LEAST_SHARE_0_1 = 17, 2e-6


class Gate:
    """The weight w of σ(corrected) against σ(base) in the served probability, from the log losses of what was served.

    `update` takes joined examples as they were served, `weight` is what to serve next, and `report` says what the mixture has
    cost and what it can have cost. What comes out depends on the examples and their order alone, bit for bit, however they
    are cut into blocks.

    >>> gate = Gate()
    >>> base, corrected = np.zeros(500, np.float32), np.full(500, 2, np.float32)
    >>> served = gate.serve(base, corrected, np.ones(500, np.float32))
    >>> [round(float(z), 1) for z in served[[0, -1]]], gate.weight > 0.99, gate.report()["excess"] < gate.report()["bound"]
    ([0.8, 2.0], True, True)

    Notes
    -----
    Example t has a weight ω, the losses b and c of base and corrected logit as logged at serving, weighted, and r = b - c.
    v (v₁ = 1/2) takes a step of exponential weights at rate η_t and shares a little, so that it can come back from any mistake:
    u = v·exp(ηr) / (1 - v + v·exp(ηr)), then v ← (1 - α)u + α/2 with α = 1/(t + 1) (fixed share, Herbster and Warmuth 1998,
    with a share that falls as in Shamir and Merhav 1999). Served is w = v, but at least 10⁻⁶ from 0 and 1: a float32 near 1
    tells no finer. With the mixed loss m = b - ln(1 - v + v·exp(ηr)) / η, the excess over an expert is Σ(served - m), which
    mixing adds, and Σm less the expert's loss.

    **Rates that fall.** As v_{t+1} >= (1 - α)u for either expert, m - its loss <= (ln(v_{t+1} / v_t) - ln(1 - α)) / η_t. Summed
    by parts, with η₀ = 1, both experts at once:

        Σm - min loss <= ln 2 + Σ ln((t + 1) / t) / η_t + Σ (1/η_t - 1/η_{t-1})·(-ln min(v_t, 1 - v_t)).     (1)

    **Labels at once** (w = v). x^(ηω) is concave while 0 < ηω <= 1, so that served <= m. The rate starts at 1 and is at most
    1/ω before an example of weight ω is mixed. With weights up to 1 it stays 1: the mixture is the Bayesian one, and the
    excess over n < 500,000 examples at most ln 2 + ln(n + 1). With weights up to W it is at most (1) with η >= 1/W: at most
    ln 2 + W·ln(n + 1) + (W - 1)·ln(2(n + 1)), and W·ln(2(n + 1)) where the first example has the weight W.

    **Late labels.** A row is served with a weight that lacks the examples M of labels that came meanwhile. What that costs
    is measured, δ = served - m, and η = min(1/ω, Λ / max Σδ), Λ = 16 nats (the rate of AdaHedge, de Rooij, van Erven, Grünwald
    and Koolen 2014, tuned to the delay seen; delayed feedback as in Joulani, György and Szepesvári 2013 and 2016). Let
    d = |c' - b'| be the spread of a row's logits, which no label changes, and a = |ω|d, so that |r| <= a. By Jensen's and
    Hoeffding's inequalities, for any weight, δ <= a and

        δ <= |v - w|·a + ηa²/8,   |v - w| <= Σ over M of (ηa/4 + α/2).

    **Rows taken back** have a weight ω = -μ. What the mixture had won over the mean of both losses goes with them, by
    Hoeffding's inequality min(μd²/8, a) at most: it is added to δ's bound, at once and late.

    **Rows left out.** All this is about judged rows. A row whose base logit is beyond ±56 (`log_loss.BOUND`), or that is not
    finite, is counted in `skipped` and changes nothing else. Within 30 logits of such a base every score is 0 or 1 to 6·10⁻¹²;
    with losses of at most 56 nats, as in all other reports, serving such a row costs at most that more than base alone.

    **Far on.** From example 500,000 on v may be nearer to 0 or 1 than w is, which adds at most 10⁻⁶·a to δ (in full
    10⁻⁶ / (1 - 10⁻⁶)). No slower rate would lessen that, so η is tuned to Σδ without it; let F be its sum.

    **The worst case.** Let Q = Σ a(a/8 + Σ_M a/4) over late rows and rows taken back, P the sum of their (a/2)·Σ_M α and
    min(μd²/8, a), and C = max Σ_M a + 17·max a: the rate is brought up to date every 16 examples, so that every rate which
    moved the δ of a row was set when Σδ was at most C less than after that row. While Σδ - F rises to a new maximum D that rate
    is at most Λ / (D - C), and (D - C - P)² grows by at most 2Λ·a(a/8 + Σ_M a/4). Hence Σδ <= X + F, X = C + P + √(2ΛQ), and
    X = P where Q = 0. With κ = max(1, W, X/Λ) >= 1/η, and v, 1 - v >= α/2, (1) gives

        excess <= X + F + ln 2 + κ·ln(n + 1) + (κ - 1)·ln(2(n + 1)).

    `worst_case` is this number, whatever the labels are; `bound` is max(Σδ, 0) + (1) with the δ and η that were really met, and
    holds whatever was served. It is at most `worst_case`, but for the rounding of served logits to float32 (at most 4·10⁻⁶ nats
    for each unit of weight), which Σδ has and X has not. With spreads up to B and d labels on the way both are of order
    B·√((d + 1)·n)·ln n + 10⁻⁶·B·n: a row they fall towards 10⁻⁶·B nats, not to zero.
    """

    def __init__(self) -> None:
        self._state = np.zeros(hedge.PLACES)
        self._state[hedge.WEIGHT] = 0.5
        self._state[[hedge.RATE, hedge.HEAVIEST, hedge.OPEN_CORRECTED, hedge.OPEN_SERVED, hedge.OPEN_MIXED]] = 1.0
        self._delays, self._noted = Delays(), hedge.NOWHERE

    @property
    def weight(self) -> float:
        """The weight to serve the corrected probability with, 10⁻⁶ to 1 - 10⁻⁶."""
        return min(max(float(self._state[hedge.WEIGHT]), hedge.LEAST_WEIGHT), 1.0 - hedge.LEAST_WEIGHT)

    def serve(self, base: Floats, corrected: Floats, label: Floats, weight: Floats | None = None) -> Floats:
        """Serve N rows, each with the labels of all before it known; return the served logits float32[N]."""
        served = np.empty(len(base), np.float32)
        self._judge(base, corrected, served, label, weight, _NOWHERE, virtual=True)
        return served

    def update(
        self,
        base: Floats,
        corrected: Floats,
        served: Floats | None,
        label: Floats,
        weight: Floats | None,
        position: Ints,
    ) -> None:
        """Take N joined examples: logits float32[N] as logged, weights float32[N], int64[N] positions of what served them.

        Without `served` (nothing of the corrections is served) the mixture that would have been served is judged.
        """
        shown = np.empty(len(base), np.float32) if served is None else served
        self._judge(base, corrected, shown, label, weight, position, virtual=served is None)

    def note(self, position: int) -> None:
        """Remember what the weight has seen now that everything up to `position` is taken; once for each record."""
        self._settle()
        # The kernel writes it down when it runs next, for a part of what that costs here.
        self._noted = position

    def report(self) -> dict[str, float | int]:
        """Return weight, rate, examples, skipped, delay (most examples on the way); in nats gain, excess, bound, worst_case.

        `gain` is what serving has won over base alone, `excess` what it lost over the better expert in hindsight.
        """
        s = self._state
        over_corrected, over_served = (
            float(s[total]) + math.log(s[product])
            for total, product in ((hedge.OVER_CORRECTED, hedge.OPEN_CORRECTED), (hedge.OVER_SERVED, hedge.OPEN_SERVED))
        )
        examples, slowness, most = float(s[hedge.EXAMPLES]), 1.0 / float(s[hedge.RATE]), self._most_cost()
        slowest, shared = max(float(s[hedge.HEAVIEST]), most / hedge.PATIENCE), math.log(examples + 1.0)
        most += hedge.FAR_COST * float(s[hedge.FAR_SPREAD])
        return {
            "weight": self.weight,
            "rate": float(s[hedge.RATE]),
            "examples": int(examples),
            "skipped": int(s[hedge.SKIPPED]),
            "delay": int(s[hedge.DELAY]),
            "gain": over_served,
            "excess": max(over_corrected, 0.0) - over_served,
            "bound": max(self._cost(), 0.0) + math.log(2.0) + slowness * shared + float(s[hedge.SLOWED]),
            "worst_case": most + math.log(2.0) + slowest * shared + (slowest - 1.0) * (math.log(2.0) + shared),
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a later `load` needs to go on from here, bit for bit."""
        self._settle()
        return {"hedge": self._state.copy(), **self._delays.state()}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; raises `Corrupt` where it is something else."""
        found, delays = arrays.get("hedge", np.empty(0)), arrays.get("delays", np.empty(0))
        if found.shape not in ((hedge.PLACES,), (_PLACES_0_1,)) or delays.ndim != 2 or delays.shape[1] != 5:
            raise Corrupt("the saved gate lacks its state; it was written by another version: start from an older checkpoint")
        self._state[: len(found)] = found
        self._delays.load(arrays)
        if len(found) == _PLACES_0_1:
            self._complete_0_1()
        self._noted = hedge.NOWHERE

    def _judge(
        self,
        base: Floats,
        corrected: Floats,
        served: Floats,
        label: Floats,
        weight: Floats | None,
        position: Ints,
        virtual: bool,
    ) -> None:
        weight = np.ones(len(base), np.float32) if weight is None else weight
        d = self._delays
        d.held = hedge.judge(
            base, corrected, served, label, weight, position, virtual, d.rows, d.held, self._noted, self._state
        )
        self._noted = hedge.NOWHERE

    def _settle(self) -> None:
        if self._noted != hedge.NOWHERE:
            s = self._state
            self._delays.note(self._noted, [s[hedge.EXAMPLES], s[hedge.SPREAD_SUM], s[hedge.SHARE_SUM], s[hedge.WEIGHT]])
            self._noted = hedge.NOWHERE

    def _cost(self) -> float:
        """Σδ of the docstring, as measured."""
        s = self._state
        mixed = float(s[hedge.MIXED]) + math.log(s[hedge.OPEN_MIXED]) / float(s[hedge.RATE])
        return mixed - float(s[hedge.OVER_SERVED]) - math.log(s[hedge.OPEN_SERVED])

    def _most_cost(self) -> float:
        """X of the docstring."""
        s = self._state
        if s[hedge.LATE_SPREAD] == 0:
            return float(s[hedge.LATE_SHARE])
        ahead = float(s[hedge.MISSING]) + (hedge.STRIDE + 1) * float(s[hedge.SPREAD]) + float(s[hedge.LATE_SHARE])
        return ahead + math.sqrt(2.0 * hedge.PATIENCE * float(s[hedge.LATE_SPREAD]))

    def _complete_0_1(self) -> None:
        """Give the sums that version 0.1 did not keep the largest values that they can have had, so that bounds stay true.

        Its share did not fall below `_LEAST_SHARE_0_1`, and its rate was never lowered for a weight.
        """
        s = self._state
        examples, slowness = float(s[hedge.EXAMPLES]), 1.0 / float(s[hedge.RATE])
        near = min(examples, 1.0 / _LEAST_SHARE_0_1 - 1.0)
        shared = math.log(near + 1.0) - (examples - near) * math.log1p(-_LEAST_SHARE_0_1)
        more = slowness * max(shared - math.log(examples + 1.0), 0.0)
        s[hedge.SLOWED] = more + (slowness - 1.0) * math.log(2.0 * (near + 1.0))
        s[hedge.HEAVIEST], s[hedge.FAR_SPREAD] = slowness, 0.0
        s[hedge.LATE_SHARE] += more + max(self._cost() - self._most_cost(), 0.0)
