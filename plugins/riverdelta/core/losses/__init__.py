"""Losses: one file each, found by task."""

from __future__ import annotations

from riverdelta.core.errors import ConfigurationError, near
from riverdelta.core.losses.base import Loss
from riverdelta.core.losses.count import Count
from riverdelta.core.losses.log_loss import LOG_LOSS
from riverdelta.core.losses.multiclass import Multiclass
from riverdelta.core.losses.ranking import Ranking
from riverdelta.core.losses.regression import Regression

__all__ = ["LOG_LOSS", "Count", "Loss", "Multiclass", "Ranking", "Regression", "loss_of", "register", "registered"]

_BY_TASK: dict[str, Loss] = {}


def register(loss: Loss) -> Loss:
    """Register a loss for its `task=` name and return it; raises `ConfigurationError` if the name is taken."""
    if repr(known := _BY_TASK.setdefault(loss.task, loss)) != repr(loss):
        raise ConfigurationError(f"the task {loss.task!r} already has the loss {known}; give {loss} another task name")
    return known


def loss_of(task: str | Loss) -> Loss:
    """Return the loss of a task, or `task` itself if it is a loss; raises `ConfigurationError` with the known tasks.

    >>> loss_of("binary").raw
    'logit'
    """
    if isinstance(task, Loss):
        return task
    if task not in _BY_TASK:
        raise ConfigurationError(f"task is {task!r}; {near(str(task), _BY_TASK)}")
    return _BY_TASK[task]


def registered() -> list[Loss]:
    """Return the loss of each task, in the order in which they were registered.

    >>> registered()[0].task
    'binary'
    """
    return list(_BY_TASK.values())


for one in (LOG_LOSS, Multiclass(), Regression(), Count(), Ranking()):
    register(one)
