"""The trainer: turns the journal into learned tables, live states, releases and checkpoints."""

from riverdelta.sidecar.trainer import Trainer

__all__ = ["Trainer"]
