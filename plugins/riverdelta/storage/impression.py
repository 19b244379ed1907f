"""Impression: all that the journal knows of one scored row, found by the id that its client was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput, NotFound
from riverdelta.core.losses import Loss
from riverdelta.core.records import OUTPUTS, Impressions
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Segments


def find(home: Home, text: str) -> dict[str, Any]:
    """Return what was scored under `<id>.<index>`: when, by which state, in which trace, to what, of what, and its feedback.

    `label` and `shown` (Unix seconds) are None where nothing was fed back. Raises `InvalidInput` where the service did not
    issue the id, and `NotFound` where the journal no longer has it, or never had.
    """
    if not home.key_path.exists():
        raise NotFound(f"there is no journal in {home.folder} yet; start the service once, or check RIVERDELTA_HOME")
    key = home.ids().parse(text)
    if key is None:
        raise InvalidInput(
            f"{text!r} is no impression of {home.definition.name!r}; expected the id of a scored row, <id>.<index>"
        )
    *request, index = key
    segments = Segments(home.key_path.parent, home.settings.segment_bytes)
    try:
        position = segments.locate(request[0], request[1])
        if position is None:
            raise NotFound(f"impression {text} is not in {segments.folder}: retention deleted it, or it was never durable")
        block = segments.impressions(position)
        at = np.flatnonzero((block.request == request[1]) & (block.index == index))
        if not at.size:
            rows = int((block.request == request[1]).sum())
            raise NotFound(f"the request of {text} scored {rows} rows; expected an index below that")
        fed = segments.fed((request[0], request[1]), 0).get(index)
    finally:
        segments.close()
    return _described(text, position, block, int(at[0]), home.definition.loss) | {
        "label": None if fed is None else fed.label,
        "shown": None if fed is None else fed.shown,
    }


def _described(text: str, position: int, block: Impressions, at: int, loss: Loss) -> dict[str, Any]:
    raw = {name: getattr(block, name)[at] for name in OUTPUTS}
    return {
        "impression": text,
        "time": float(block.time[at]),
        "position": position,
        "state": f"{block.release[at]}+{block.swap[at]}",
        "learned_position": int(block.position[at]),
        "trace": block.traces.get(int(block.request[at])),
        f"{loss.raw}s": {name: _or_none(outputs) for name, outputs in raw.items()},
        "scores": {name: _or_none(loss.inverse_link(outputs)[0]) for name, outputs in raw.items()},
        "propensity": _or_none(block.propensity[at : at + 1]),
        "columns": {name: column[at].tolist() for name, column in block.columns.items()},
    }


def _or_none(values: npt.NDArray[np.floating[Any]]) -> float | list[float | None] | None:
    """The one number, or all of them; None for NaN."""
    found = [None if np.isnan(value) else float(value) for value in values]
    return found[0] if len(found) == 1 else found
