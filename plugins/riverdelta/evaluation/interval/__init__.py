"""Prediction intervals at a declared coverage, learned from the labels as they come."""

from riverdelta.evaluation.interval.interval import Interval, Intervals

__all__ = ["Interval", "Intervals"]
