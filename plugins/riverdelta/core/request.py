"""Request: the columns that clients send, where an input may be sent as its parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Schema

#: The largest time, in Unix seconds: the year 5138. Milliseconds of today are larger.
_LATEST = 1e11


class Request(Schema):
    """The columns of a request; `names` are those that may be sent instead of an input [N, F], in the order of its parts."""

    names: Mapping[str, Schema] = {}
    #: The columns of times that may be left out: the server's clock then fills them.
    optional: Collection[str] = ()

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

    def without(self, given: Any) -> Request:
        """Return the columns to expect if those that a request may leave out, and `given` lacks, are not sent."""
        if not self.optional or not isinstance(given, Mapping):
            return self
        made = Request({name: column for name, column in self.items() if name in given or name not in self.optional})
        made.names = self.names
        return made

    def check(
        self, columns: Mapping[str, Any], max_rows: int | None = None, first: int = 0
    ) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """Return the columns as arrays, as `Schema.check` does; parts that have names become their input."""
        if not self.names or not isinstance(columns, Mapping):
            checked, rows = super().check(columns, max_rows, first)
        else:
            checked, rows = self.sent(columns).check(columns, max_rows, first)
        for name, column in self.items():
            if column.time and (odd := np.flatnonzero(np.abs(checked[name]) > _LATEST)).size:
                shown = f"column {name!r} holds {checked[name][odd[0]].item()} at row {first + int(odd[0])}"
                raise InvalidInput(f"{shown}; expected Unix seconds, as of time.time(), not milliseconds")
        for name, parts in self.names.items():
            if name not in checked:
                checked[name] = np.stack([checked.pop(part) for part in parts], axis=1)
        return checked, rows
