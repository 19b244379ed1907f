"""Older: reads the gate's state as version 0.1 saved it, with sums of logs kept as products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import take
from riverdelta.evaluation.gate.bounds import cost, most_cost
from riverdelta.evaluation.gate.hedge import STATE

#: The fields of the saved array.
_PLACES = (
    "examples", "weight", "rate", "over_corrected", "over_served", "mixed", "open_corrected", "open_served", "open_mixed",
    "spread", "spread_sum", "share_sum", "late_spread", "late_share", "missing", "delay", "skipped",
)  # fmt: skip
_LEAST_SHARE = 2e-6


def of_older(saved: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return the state, `STATE`[1], from what an older gate saved; raises `Corrupt` if it is not valid."""
    found = dict(zip(_PLACES, take({"hedge": saved}, "hedge", np.zeros(len(_PLACES))).tolist(), strict=True))
    state = np.zeros(1, STATE)
    for name in set(STATE.names or ()) & found.keys():
        state[name] = found[name]
    for name, scale in (("corrected", 1.0), ("served", 1.0), ("mixed", found["rate"])):
        state[name if name == "mixed" else f"over_{name}"] += math.log(found[f"open_{name}"]) / scale
    _complete(state[0])
    return state


def _complete(s: Any) -> None:
    """Set the sums that version 0.1 did not keep to their largest possible values, so that bounds still hold.

    Its share did not fall below `_LEAST_SHARE`, and its rate was never lowered for a weight.
    """
    examples, slowness = float(s["examples"]), 1.0 / float(s["rate"])
    near = min(examples, 1.0 / _LEAST_SHARE - 1.0)
    shared = math.log(near + 1.0) - (examples - near) * math.log1p(-_LEAST_SHARE)
    more = slowness * max(shared - math.log(examples + 1.0), 0.0)
    s["slowed"], s["slowest"] = more + (slowness - 1.0) * math.log(2.0 * (near + 1.0)), slowness
    s["late_share"] += more + max(cost(s) - most_cost(s, 1.0), 0.0)
