"""Checked: what every correction refuses before it binds or learns."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.features import Schema
from riverdelta.core.values import described


def checked_bind(bind: Callable[[Any, Schema], None]) -> Any:
    """Return `bind`, which refuses what is not a schema, and to discard what was learned."""

    @wraps(bind)
    def checked(self: Any, schema: Schema) -> None:
        made = type(self).__name__
        if not isinstance(schema, Schema):
            raise ConfigurationError(
                f"{made}.bind got {reprlib.repr(schema)}; expected a Schema, such as Schema.of({{'user': 'int64'}})"
            )
        if self._learned:
            raise ConfigurationError(
                f"{made} has learned from examples, which binding it again would discard; for an untrained one write "
                f"correction = correction.clone()"
            )
        if self.loss.lists and "group" not in inspect.signature(self.learn).parameters:
            raise ConfigurationError(
                f"{made}.learn takes no lists, which {self.loss} is of; write "
                f"def learn(self, columns, offset, label, weight, group=None)"
            )
        bind(self, schema)

    return checked


def check_fits(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> None:
    """Raise `InvalidInput` if an array of a block has another dtype or shape, or is one that no kernel takes."""
    kind = np.dtype(dtype)
    if not isinstance(array, np.ndarray) or array.dtype != kind or array.shape != shape or not array.flags.carray:
        raise InvalidInput(
            f"{name} is {described(array)}; expected {kind}{list(shape)} in C order, writable: np.array({name}, np.{kind})"
        )
