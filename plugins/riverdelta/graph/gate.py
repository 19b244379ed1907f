"""The gate's mixture as ONNX nodes; its twin in numpy is `riverdelta.link.mix`."""

from __future__ import annotations

import numpy as np

from riverdelta.corrections.nodes import Nodes
from riverdelta.link import RESIDUAL_BOUND


def export_mixture(nodes: Nodes, base: str, corrected: str, weight: str) -> str:
    """Append the logit of (1 - w)·σ(b) + w·σ(c'), c' = b + clip(c - b, -B, B); all float32[N, 1], w float32[1, 1].

    With c = b both logarithms are of one number, so the result is b, bit for bit.
    """
    bound = [nodes.constant(sign * RESIDUAL_BOUND, np.float32) for sign in (-1, 1)]
    c = nodes.add("Add", base, nodes.add("Clip", nodes.add("Sub", corrected, base), *bound))
    stay = nodes.add("Sub", nodes.constant(1.0, np.float32), weight)

    def share(b: str, c: str) -> str:
        ratio = nodes.add("Exp", nodes.add("Sub", nodes.add("Softplus", b), nodes.add("Softplus", c)))
        return nodes.add("Log", nodes.add("Add", stay, nodes.add("Mul", weight, ratio)))

    up = share(nodes.add("Neg", base), nodes.add("Neg", c))
    return nodes.add("Add", base, nodes.add("Sub", up, share(base, c)))
