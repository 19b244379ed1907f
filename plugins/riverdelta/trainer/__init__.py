"""The trainer: from the journal to learned tables, live, releases and checkpoints."""

from riverdelta.trainer.learner import Learner
from riverdelta.trainer.trainer import Trainer

__all__ = ["Learner", "Trainer"]
