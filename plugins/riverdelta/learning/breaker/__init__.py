"""The breaker: stops learning on evidence of harm, and reports why."""

from riverdelta.learning.breaker.breaker import Breaker
from riverdelta.learning.breaker.evidence import CHECK

__all__ = ["CHECK", "Breaker"]
