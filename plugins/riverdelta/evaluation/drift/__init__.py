"""Drift: has the stream changed, by how much, in what; with a stated rate of false alarms, and what is done about it."""

from riverdelta.evaluation.drift.alarm import Drift
from riverdelta.evaluation.drift.panel import Panel
from riverdelta.evaluation.drift.reference import Reference
from riverdelta.evaluation.drift.response import Adapt, Freeze, Response, as_record, of_record

__all__ = ["Adapt", "Drift", "Freeze", "Panel", "Reference", "Response", "as_record", "of_record"]
