"""Prediction intervals at a declared coverage, learned from the labels as they come."""

from riverdelta.corrections.interval.interval import ENDS, LOWER, UPPER, Interval, Intervals

__all__ = ["ENDS", "LOWER", "UPPER", "Interval", "Intervals"]
