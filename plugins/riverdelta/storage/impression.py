"""Impression: all that the journal has about one scored row, found by its id."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput, NotFound
from riverdelta.core.losses import Loss
from riverdelta.core.records import BEFORE, OUTPUTS, Impressions, by_output
from riverdelta.graph.features import RAW
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Outcome
from riverdelta.storage.journal.ids import Row
from riverdelta.storage.journal.names import Resolver, RowName
from riverdelta.storage.log import ERASED, Fed, Log


def find(home: Home, text: str | RowName) -> dict[str, Any]:
    """Return the row scored as `<id>.<index>`, or by its client's ids: time, state, trace, outputs, columns and feedback.

    `label`, its `weight`, the time `event` of what it reports, and `shown` (Unix seconds) are null without feedback. Of a row
    that `riverdelta rebase` scored again, `corrected_before` and `served_before` are what it was served. Raises `InvalidInput`
    if the service did not issue the id, or a request of several rows is named without the row, and `NotFound` if it is not in
    the journal.
    """
    if not home.key_path.exists():
        raise NotFound(f"there is no journal in {home.folder} yet; start the service once, or check RIVERDELTA_HOME")
    with closing(home.reader()) as reader:
        incarnation, request, index = _row(home, reader.log, text)
        if isinstance(text, RowName):
            text = f"{home.ids().issue(incarnation, request)}.{index}"
        position, known = reader.log.locate((incarnation, request)), reader.log.find((incarnation, request))
        if position is None or known is None:
            raise NotFound(f"impression {text} is not in {home.key_path.parent}: retention deleted it, or it was never durable")
        if index >= known.rows:
            raise NotFound(f"the request of {text} scored {known.rows} rows; expected an index below that")
        if known.fed.get(index) == ERASED:
            raise NotFound(f"impression {text} was erased by `riverdelta forget`")
        block = reader.impressions(position)
        texts = reader.log.texts([int(own) for own in _ids(block, request, index).values()])
    at = np.flatnonzero((block.request == request) & (block.index == index))
    fed, loss = known.fed.get(index, Fed()), home.definition.loss
    found = _described(text, position, block, int(at[0]), loss)
    names = {column: texts[own] for column, own in _ids(block, request, index).items() if own in texts}
    return found | {
        "columns": found["columns"] | names,
        "label": None if fed.label is None else loss.label_of(fed.label),
        "weight": 1.0 if fed.label is not None and fed.weight is None else fed.weight,
        "event": fed.event,
        "shown": fed.shown,
    }


def _ids(block: Impressions, request: int, index: int) -> dict[str, int]:
    """Return the row's ids by column."""
    at = np.flatnonzero((block.request == request) & (block.index == index))[0]
    return {name: int(each[at]) for name, each in block.columns.items() if each.dtype == np.int64 and each.ndim == 1}


def _row(home: Home, log: Log, text: str | RowName) -> Row:
    if isinstance(text, str):
        if (row := home.ids().parse(text)) is None:
            raise InvalidInput(
                f"{text!r} is not an impression of {home.definition.name!r}; expected the id of a scored row, <id>.<index>"
            )
        return row
    found = Resolver(log).find(text)
    if isinstance(found, Outcome):
        what = "request" if found is Outcome.BAD_ID else "row"
        raise NotFound(
            f"the journal has no such {what}: {text}; it was never scored, or retention or `riverdelta forget` deleted it"
        )
    return found


def _described(text: str, position: int, block: Impressions, at: int, loss: Loss) -> dict[str, Any]:
    columns, request = dict(block.columns), int(block.request[at])
    name, rows = block.names.get(request), np.flatnonzero(block.request == request)
    # The scores of a list depend on all its rows.
    raw, place = {name: getattr(block, name)[rows] for name in OUTPUTS}, int(np.searchsorted(rows, at))
    # A row that `riverdelta rebase` has scored again was served what it has from before.
    raw |= {f"{name}_before": by_output(columns.pop(column)[rows]) for name, column in BEFORE.items() if column in columns}
    return {
        "impression": text,
        "time": float(block.time[at]),
        "position": position,
        "state": f"{block.release[at]}+{block.swap[at]}",
        "learned_position": int(block.position[at]),
        "trace": block.traces.get(request),
        "request_id": None if name is None else name.request_id,
        "row_id": None if name is None or name.row_ids is None else name.row_ids[int(block.index[at])],
        f"{loss.raw}s": {name: _or_none(outputs[place]) for name, outputs in raw.items()},
        "scores": {name: _or_none(loss.inverse_link(outputs)[place]) for name, outputs in raw.items()},
        "propensity": _or_none(block.propensity[at : at + 1]),
        # A column as it was sent tells more than what corrections read of it.
        "columns": {
            name.removeprefix(RAW): column[at : at + 1].tolist()[0]
            for name, column in columns.items()
            if not name.startswith("#") or name.startswith(RAW)
        },
    }


def _or_none(values: npt.NDArray[np.floating[Any]]) -> float | list[float | None] | None:
    """Return the only number, or all of them; null for NaN."""
    found = [None if np.isnan(value) else float(value) for value in values]
    return found[0] if len(found) == 1 else found
