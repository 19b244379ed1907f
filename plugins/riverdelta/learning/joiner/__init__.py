"""The joiner: from impressions and feedback to examples."""

from riverdelta.learning.joiner.joiner import LABELS, Joiner
from riverdelta.learning.joiner.waiting import Source

__all__ = ["LABELS", "Joiner", "Source"]
