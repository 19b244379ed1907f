"""Losses: one file for each; a task is the name of one."""

from __future__ import annotations

from riverdelta.core.errors import ConfigurationError, near
from riverdelta.core.losses.base import Loss
from riverdelta.core.losses.log_loss import LOG_LOSS

__all__ = ["LOG_LOSS", "Loss", "loss_of", "register"]

_BY_TASK: dict[str, Loss] = {}


def register(loss: Loss) -> Loss:
    """Let `task=` name a loss, and return it; raises `ConfigurationError` where the task has another loss already."""
    if repr(known := _BY_TASK.setdefault(loss.task, loss)) != repr(loss):
        raise ConfigurationError(f"the task {loss.task!r} has the loss {known}; name the task of {loss} otherwise")
    return known


def loss_of(task: str | Loss) -> Loss:
    """Return the loss of a task, by its name or itself; raises `ConfigurationError` that lists the tasks there are.

    >>> loss_of("binary").raw
    'logit'
    """
    if isinstance(task, Loss):
        return task
    if task not in _BY_TASK:
        raise ConfigurationError(f"task is {task!r}; {near(str(task), _BY_TASK)}")
    return _BY_TASK[task]


register(LOG_LOSS)
