"""The breaker: stops learning, and says why, when the joined stream changes abruptly."""

from riverdelta.learning.breaker.breaker import Breaker

__all__ = ["Breaker"]
