"""Gate: two experts, base and corrected, and a weight between them whose cost is bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.errors import Corrupt
from riverdelta.features import Floats, Ints
from riverdelta.gate import hedge
from riverdelta.gate.delays import Delays

_NOWHERE = np.empty(0, np.int64)


class Gate:
    """The weight w of σ(corrected) against σ(base) in the served probability, from the log losses of what was served.

    Example t has the losses b and c of base and corrected logit as logged at serving, and r = b - c. The weight v (v₁ = 1/2)
    takes a step of exponential weights at rate η and shares a little, so that it can come back from any mistake:
    u = v·exp(ηr) / (1 - v + v·exp(ηr)), then v ← (1 - α)u + α/2 with α = max(1/(t + 1), 2e-6) (fixed share, Herbster and
    Warmuth 1998, with a share that falls as in Shamir and Merhav 1999).

    **Labels at once.** The rate stays 1. Served loss over n examples exceeds that of the better expert by at most
    ln 2 + Σ -ln(1 - α), which is ln 2 + ln(n + 1) up to 500,000 examples: the mixture of probabilities is the Bayesian one.

    **Late labels.** A row is served with a weight that lacks the examples M of labels that came meanwhile. What that costs
    is measured: δ = served loss - (b - ln(1 - v + v·exp(ηr)) / η), and η = min(1, Λ / max Σδ), Λ = 16 nats (the rate of
    AdaHedge, de Rooij, van Erven, Grünwald and Koolen 2014, tuned to the delay seen; delayed feedback as in Joulani, György
    and Szepesvári 2013 and 2016). With a = |c' - b'| the spread of a row's logits, which no label changes, |r| <= a and

        δ <= |v - w|·a + ηa²/8,   |v - w| <= Σ over M of (ηa/4 + α/2),

    so that X = max Σδ <= max Σ_M a + max a + Σ(a/2)·Σ_M α + √(2Λ Σ a(a/8 + Σ_M a/4)), and the excess over the better expert is
    at most X + ln 2 + κ·Σ -ln(1 - α) + (κ - 1)·ln(2/α) with κ = max(1, X/Λ) <= 1/η. With spreads up to B and d labels on the
    way that is of order B·√((d + 1)·n·ln n): per row it goes to zero, whatever the labels are. `worst_case` is this number;
    `bound` puts the Σδ and the η in it that were really met, and is never larger.

    A row of negative weight takes an earlier one back; what the mixture had won on it, min(a²/8, a) at most, is added to X.

    What comes out depends on the examples and their order alone, bit for bit, however they are cut into blocks.

    >>> gate = Gate()
    >>> base, corrected = np.zeros(500, np.float32), np.full(500, 2, np.float32)
    >>> served = gate.serve(base, corrected, np.ones(500, np.float32))
    >>> [round(float(z), 1) for z in served[[0, -1]]], gate.weight > 0.99, gate.report()["excess"] < gate.report()["bound"]
    ([0.8, 2.0], True, True)
    """

    def __init__(self) -> None:
        self._state = np.zeros(hedge.PLACES)
        self._state[hedge.WEIGHT], self._state[hedge.RATE] = 0.5, 1.0
        self._state[[hedge.OPEN_CORRECTED, hedge.OPEN_SERVED, hedge.OPEN_MIXED]] = 1.0
        self._delays, self._noted = Delays(), hedge.NOWHERE

    @property
    def weight(self) -> float:
        """The weight to serve the corrected probability with, 0 to 1."""
        return float(self._state[hedge.WEIGHT])

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
        """Return weight, rate, examples, delay (most examples on the way), and in nats: gain, excess, bound, worst_case.

        `gain` is what serving has won over base alone, `excess` what it lost over the better expert in hindsight.
        """
        s = self._state
        over_corrected, over_served, mixed = (
            float(s[total]) + math.log(s[product]) / divisor
            for total, product, divisor in (
                (hedge.OVER_CORRECTED, hedge.OPEN_CORRECTED, 1.0),
                (hedge.OVER_SERVED, hedge.OPEN_SERVED, 1.0),
                (hedge.MIXED, hedge.OPEN_MIXED, float(s[hedge.RATE])),
            )
        )
        most = self._most_cost()
        worst = self._bound(most, max(1.0, most / hedge.PATIENCE))
        return {
            "weight": self.weight,
            "rate": float(s[hedge.RATE]),
            "examples": int(s[hedge.EXAMPLES]),
            "skipped": int(s[hedge.SKIPPED]),
            "delay": int(s[hedge.DELAY]),
            "gain": over_served,
            "excess": max(over_corrected, 0.0) - over_served,
            "bound": min(self._bound(mixed - over_served, 1.0 / float(s[hedge.RATE])), worst),
            "worst_case": worst,
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a later `load` needs to go on from here, bit for bit."""
        self._settle()
        return {"hedge": self._state.copy(), **self._delays.state()}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; raises `Corrupt` where it is something else."""
        found, delays = arrays.get("hedge"), arrays.get("delays")
        if found is None or found.shape != (hedge.PLACES,) or delays is None or delays.ndim != 2 or delays.shape[1] != 5:
            raise Corrupt("the saved gate lacks its state; it was written by another version: start from an older checkpoint")
        self._state[:] = found
        self._delays.load(arrays)
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

    def _most_cost(self) -> float:
        """X of the docstring; a rate that is `STRIDE` examples old counts as so many labels more on the way."""
        s = self._state
        if s[hedge.DELAY] == 0 and s[hedge.LATE_SHARE] == 0:
            return 0.0
        ahead = float(s[hedge.MISSING]) + (hedge.STRIDE + 1) * float(s[hedge.SPREAD]) + float(s[hedge.LATE_SHARE])
        return ahead + math.sqrt(2.0 * hedge.PATIENCE * float(s[hedge.LATE_SPREAD]))

    def _bound(self, cost: float, slowness: float) -> float:
        examples, level = float(self._state[hedge.EXAMPLES]), 1.0 / hedge.LEAST_SHARE - 1.0
        # Σ -ln(1 - α) telescopes while α is 1/(t + 1).
        shared = math.log(min(examples, level) + 1.0) - max(examples - level, 0.0) * math.log1p(-hedge.LEAST_SHARE)
        least = max(1.0 / (examples + 1.0), hedge.LEAST_SHARE)
        return max(cost, 0.0) + math.log(2.0) + slowness * shared + (slowness - 1.0) * math.log(2.0 / least)
