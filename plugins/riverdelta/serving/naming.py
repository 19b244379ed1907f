"""Naming: the ids that a client gives to a request, and the answer that counts when it is sent again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from riverdelta.core.errors import AlreadyExists, InvalidInput, short
from riverdelta.core.features import Floats
from riverdelta.core.records import RequestName
from riverdelta.storage.journal import Ids, Journal, Rows
from riverdelta.storage.journal.names import Answered, check_name, check_row_ids, content_digest, hashed
from riverdelta.storage.log import Named, Request


@dataclass(frozen=True)
class Claim:
    """The answer to a request with a name, which counts if the journal gives it the name: `owner` is who has it."""

    answered: Answered
    name: str
    request: Request
    owner: Future[Named]

    def settled(self, owner: Named) -> Answered:
        """Return the answer of the request that has the name; raises `AlreadyExists` if that had other rows."""
        if owner.request == self.request:
            return self.answered
        first = Answered.decode(owner.content, f"what the journal has of the request {owner.request}")
        if first.digest != self.answered.digest:
            raise AlreadyExists(
                f"the request_id {short(self.name)} was given to other rows before: columns, propensity or row_ids differ, and "
                "nothing is stored; repeat a request as it was, or give this one its own request_id"
            )
        return first


def read_name(request_id: Any, row_ids: Any, rows: int, ids: Ids) -> RequestName | None:
    """Return the client's ids of a request of `rows` rows, None without any; raises `InvalidInput` naming what is wrong."""
    if request_id is None and row_ids is None:
        return None
    if request_id is None:
        raise InvalidInput("row_ids are given without a request_id, by which feedback finds them; give both, or neither")
    name = check_name(request_id, "request_id")
    if ids.parse(f"{name}.0") is not None:
        raise InvalidInput(f"request_id is {short(name)}, the impressions of a scored request; choose an id of your own")
    return RequestName(name, None if row_ids is None else check_row_ids(row_ids, rows))


def claim(
    journal: Journal,
    rows: Rows,
    name: RequestName,
    columns: Mapping[str, npt.NDArray[Any]],
    scores: Floats,
    bounds: Mapping[str, Floats] = {},
) -> Claim:
    """Append the rows of a request with a name, scored from checked `columns`, and return its claim."""
    row_ids = None if name.row_ids is None else hashed(name.row_ids)
    answered = Answered(content_digest(columns, rows.propensity, row_ids), rows.state, scores, rows.base, row_ids, bounds)
    number, owner = journal.claim(replace(rows, name=name, content=answered.encode()))
    return Claim(answered, name.request_id, (journal.incarnation, number), owner)
