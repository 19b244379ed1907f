"""The breaker: stops learning when the joined stream changes abruptly, and reports why."""

from riverdelta.learning.breaker.breaker import Breaker

__all__ = ["Breaker"]
