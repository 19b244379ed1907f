"""Drift: whether the stream has changed, in which columns and how far, at a stated false alarm rate; and the response."""

from riverdelta.evaluation.drift.alarm import Drift
from riverdelta.evaluation.drift.panel import Panel
from riverdelta.evaluation.drift.reference import Reference
from riverdelta.evaluation.drift.response import Adapt, Freeze, Response, as_record, of_record

__all__ = ["Adapt", "Drift", "Freeze", "Panel", "Reference", "Response", "as_record", "of_record"]
