"""The joiner: from impressions and feedback to examples."""

from riverdelta.joiner.examples import Examples
from riverdelta.joiner.joiner import LABELS, Joiner
from riverdelta.joiner.waiting import Nowhere, Source

__all__ = ["LABELS", "Examples", "Joiner", "Nowhere", "Source"]
