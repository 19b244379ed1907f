"""The trainer: from the journal to learned tables, live, releases and checkpoints."""

from riverdelta.sidecar.trainer import Trainer

__all__ = ["Trainer"]
