"""Bounds: the most that the gate's mixture can have cost, from its sums; see `Gate` for the theorem."""

from __future__ import annotations

import math
from typing import Any

from riverdelta.evaluation.gate.hedge import FAR_COST, PATIENCE, STRIDE, UNLIMITED

_LN_2 = math.log(2.0)


def cost(s: Any) -> float:
    """Σδ, as measured."""
    return float(s["mixed"] - s["over_served"])


def most_cost(s: Any, first_rate: float) -> float:
    """X."""
    unlimited = first_rate == UNLIMITED
    above = PATIENCE * s["slowest"] if unlimited else 0.0
    if s["late_spread"] + above == 0.0:
        return float(s["late_share"])
    ahead = s["missing"] + (2 if unlimited else STRIDE + 1) * s["spread"] + s["late_share"]
    return float(ahead + math.hypot(above, math.sqrt(2.0 * PATIENCE * s["late_spread"])))


def bound(s: Any, first_rate: float) -> float:
    """max(Σδ, 0) + (1)."""
    return float(max(cost(s), 0.0) + _LN_2 / first_rate + math.log(s["examples"] + 1.0) / s["rate"] + s["slowed"])


def worst_case(s: Any, first_rate: float) -> float:
    """X + F + ζ·ln 2 + κ·ln(n + 1) + (κ - ζ)·ln(2(n + 1)) + κ·h."""
    shared, most, at_first = math.log(s["examples"] + 1.0), most_cost(s, first_rate), 1.0 / first_rate
    slowest = max(float(s["slowest"]), most / PATIENCE)
    start = _LN_2 * at_first + slowest * shared + (slowest - at_first) * (_LN_2 + shared) + slowest * s["handicap"]
    return float(most + FAR_COST * s["far_spread"] + start)
