"""The gate's mixture as ONNX nodes; its twin in numpy is `riverdelta.core.link.mix`."""

from __future__ import annotations

import numpy as np

from riverdelta.core.link import RESIDUAL_BOUND
from riverdelta.core.nodes import PREFIX, Nodes

#: The table that holds the weight, float32[1, 1]; 0 serves the base.
GATE_WEIGHT = f"{PREFIX}gate/weight"
# exp(88) is a float32, exp(89) is none; beyond it σ(-b) no longer matters beside exp(-30).
_EDGE = 88.0 - RESIDUAL_BOUND


def export_mixture(nodes: Nodes, base: str, corrected: str, weight: str) -> str:
    """Append the logit of (1 - w)·σ(b) + w·σ(c'), c' = b + clip(c - b, -B, B); all float32[N, 1], w float32[1, 1].

    With E = exp(-b) and G = exp(b - c') it is b - log((A + w(1 + E)G) / (A + w(1 + E))), where A = (1 - w)(1 + E·G): sums
    of positive numbers alone, so nothing cancels, and b is held within 88 - B in E, so nothing overflows.

    With c = b, G is 1 and both sums are one number, so the result is b, bit for bit (b - 0 keeps the sign of a zero too).
    """

    def bounded_exp(exponent: str, bound: float) -> str:
        ends = [nodes.constant(sign * bound, np.float32) for sign in (-1, 1)]
        return nodes.add("Exp", nodes.add("Clip", exponent, *ends))

    one = nodes.constant(1.0, np.float32)
    g = bounded_exp(nodes.add("Sub", base, corrected), RESIDUAL_BOUND)
    e = bounded_exp(nodes.add("Neg", base), _EDGE)
    stay = nodes.add("Mul", nodes.add("Sub", one, weight), nodes.add("Add", nodes.add("Mul", e, g), one))
    move = nodes.add("Mul", weight, nodes.add("Add", e, one))
    against = nodes.add("Add", stay, nodes.add("Mul", move, g))
    ratio = nodes.add("Div", against, nodes.add("Add", stay, move))
    return nodes.add("Sub", base, nodes.add("Log", ratio))
