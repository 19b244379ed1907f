"""Insight: what the learner can tell of its traffic beside the losses; nothing that is learned depends on it."""

from riverdelta.insight.slices import Slices
from riverdelta.insight.traffic import Traffic

__all__ = ["Slices", "Traffic"]
