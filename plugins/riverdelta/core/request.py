"""Request: the columns that clients send, where an input may be sent as its parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Schema


class Request(Schema):
    """The columns of a request; `names` are those that may be sent instead of an input [N, F], in the order of its parts."""

    names: Mapping[str, Schema] = {}

    def sent(self, given: Collection[str]) -> Schema:
        """Return the columns to expect of a request with the columns `given`: an input, or the names of its parts.

        Raises `InvalidInput` for a mixture of the two.
        """
        made = Schema(self)
        for name, parts in self.names.items():
            named = [part for part in parts if part in given]
            if named and name in given:
                raise InvalidInput(
                    f"columns has {name!r} and {named[0]!r}, which is part of it; expected one of the two: {name}, or "
                    f"{', '.join(parts)}"
                )
            if named:
                del made[name]
                made |= parts
        return made

    def check(
        self, columns: Mapping[str, Any], max_rows: int | None = None, first: int = 0
    ) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """Return the columns as arrays, as `Schema.check` does; parts that have names become their input."""
        if not self.names or not isinstance(columns, Mapping):
            return super().check(columns, max_rows, first)
        checked, rows = self.sent(columns).check(columns, max_rows, first)
        for name, parts in self.names.items():
            if name not in checked:
                checked[name] = np.stack([checked.pop(part) for part in parts], axis=1)
        return checked, rows
