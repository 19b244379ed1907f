"""The joiner: from impressions and feedback to examples."""

from riverdelta.joiner.examples import Examples
from riverdelta.joiner.joiner import LABELS, Joiner

__all__ = ["LABELS", "Examples", "Joiner"]
