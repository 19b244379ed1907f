"""The gate: how much the corrections are trusted, with a bound on what that may cost."""

from riverdelta.evaluation.gate.gate import Gate

__all__ = ["Gate"]
