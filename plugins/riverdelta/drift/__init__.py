"""Drift: has the stream changed, by how much, in what; with a stated rate of false alarms, and what is done about it."""

from riverdelta.drift.drift import Drift
from riverdelta.drift.panel import Panel
from riverdelta.drift.reference import Reference
from riverdelta.drift.response import Adapt, Freeze, Response, as_record, of_record

__all__ = ["Adapt", "Drift", "Freeze", "Panel", "Reference", "Response", "as_record", "of_record"]
