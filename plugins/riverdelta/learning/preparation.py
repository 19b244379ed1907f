"""Preparation: the inputs of the base that a Python callable makes from the columns of a request."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, InvalidInput, PrepareFailed, RiverdeltaError, kind, short
from riverdelta.core.features import Columns, Schema

#: Takes the checked columns of N rows by name, and returns the other inputs of the base.
Prepare = Callable[[dict[str, npt.NDArray[Any]]], Mapping[str, Any]]
_log = logging.getLogger(__name__)


class Preparation:
    """Calls `prepare` with the columns of a request, and checks what it returns.

    `made` are the inputs of the base that it must return; lists of different lengths are padded with zeros, as those of a
    request are. Raises `ConfigurationError` if it cannot be called, or if there is nothing for it to do.

    >>> import numpy as np
    >>> count = lambda columns: {"words": [len(text.split()) for text in columns["text"].tolist()]}
    >>> made = Preparation(count, Schema.of({"text": "string"}), Schema.of({"words": "float32"}))
    >>> made.complete({"text": np.array(["where is it", ""], object)})["words"]
    array([3., 0.], dtype=float32)
    """

    def __init__(self, prepare: Prepare, brought: Schema, made: Schema) -> None:
        self._prepare, self._brought, self._made = prepare, brought, made
        self.name = getattr(prepare, "__qualname__", type(prepare).__qualname__)
        if not callable(prepare) or inspect.iscoroutinefunction(prepare):
            said = "a coroutine" if callable(prepare) else kind(prepare)
            raise ConfigurationError(f"prepare is {said}; expected a function, as def prepare(columns): return {{...}}")
        if not brought:
            raise ConfigurationError(
                "prepare= makes the base's inputs from the columns of a request, and there are none; declare what clients "
                "send: columns={'text': 'string'}"
            )
        if not made:
            raise ConfigurationError(
                f"prepare= has nothing to make: all inputs of the base are in columns= ({', '.join(brought)}); leave out of "
                f"columns= what {self.name} returns, or leave out prepare="
            )

    def complete(self, columns: Columns) -> dict[str, npt.NDArray[Any]]:
        """Return the columns and what `prepare` makes from them.

        Raises `InvalidInput` for its `ValueError`, by which it refuses a request, and `PrepareFailed` for any other error and
        for a result that the base cannot take. It cannot change the columns.
        """
        rows = len(next(iter(columns.values())))
        try:
            made = self._prepare({name: _read_only(columns[name]) for name in self._brought})
        except RiverdeltaError:
            raise
        except ValueError as error:
            raise InvalidInput(f"prepare ({self.name}) refuses these columns: {error}") from error
        except Exception as error:
            _log.exception("prepare (%s) failed", self.name)
            raise PrepareFailed(
                f"prepare ({self.name}) failed with {type(error).__name__}: {short(str(error))}; the log has its traceback"
            ) from error
        return {**columns, **self._checked(made, rows)}

    def _checked(self, made: Any, rows: int) -> dict[str, npt.NDArray[Any]]:
        what = f"prepare ({self.name}) returned"
        if not isinstance(made, Mapping):
            raise PrepareFailed(f"{what} {kind(made)}; expected a dict with {', '.join(self._made)}")
        try:
            checked, given = self._made.check(made)
        except InvalidInput as error:
            raise PrepareFailed(f"{what} columns that the base cannot take: {error}") from error
        if given != rows:
            raise PrepareFailed(f"{what} {given} rows of {next(iter(self._made))!r} for {rows}; expected one a row")
        return checked


def _read_only(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = column.view()
    view.flags.writeable = False
    return view
