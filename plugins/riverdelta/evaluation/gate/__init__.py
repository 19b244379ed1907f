"""The gate: how much weight the corrections get in the served output, with a bound on the cost."""

from riverdelta.evaluation.gate.gate import Gate

__all__ = ["Gate"]
