"""Limits: which bins of which columns raise the drift alarm, and how large their shares may become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Ints
from riverdelta.core.losses.base import Doubles
from riverdelta.evaluation.drift.distances import BINS, DECILES

#: How far a mean may be above the reference's: in its standard errors, and in its own unit.
ERRORS, TOLERANCE = 5.0, 0.02
#: How far a share may rise relative to the reference's; for shares below 0.08 this is less than `TOLERANCE`.
RELATIVE = 0.25
#: An id with at most this many hashed bins in use in the reference, about 20 values, is a category, whose shares are watched.
CATEGORY = 16


def watched(of: npt.NDArray[Any], is_id: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return the bins that the panel watches of [..., columns, 32]: the deciles of numbers, then the bins of ids."""
    numbers, ids = of[..., ~is_id, :DECILES], of[..., is_id, :]
    return np.concatenate([part.reshape(*of.shape[:-2], -1) for part in (numbers, ids)], -1)


def largest(share: Doubles, error: Doubles, usual: Ints, is_id: npt.NDArray[np.bool_]) -> Doubles:
    """Return how large the mean of each watched share may be, by the reference's `share`, its `error` and histograms.

    It may rise by `TOLERANCE` and `ERRORS` standard errors, or by `RELATIVE` of itself and Wilson's interval of `ERRORS`
    standard errors, which holds for rare values too, if that is less. Ids of many values come and go, and have no limit.

    Reference: Wilson 1927 (the interval).
    """
    rows = int(usual[0].sum())
    wide = ERRORS**2 / (2 * rows)
    wilson = np.sqrt(np.maximum(error**2, share * (1 - share) / rows) + (wide / ERRORS) ** 2)
    most = np.minimum(share + ERRORS * error + TOLERANCE, share * (1 + RELATIVE) + wide + ERRORS * wilson)
    free = is_id & ((usual > 0).sum(1) > CATEGORY)
    return np.where(watched(np.broadcast_to(free[:, None], usual.shape), is_id), 1.0, np.minimum(most, 1.0))


def with_ids(saved: Mapping[str, npt.NDArray[Any]], like: Mapping[str, npt.NDArray[Any]], ids: int) -> dict[str, Any]:
    """Return saved arrays with those of `ids` ids, which 0.1 did not watch: without a limit until the next reference."""
    found = dict(saved)
    for name, fill, each in (("bound", 1.0, BINS), ("wealth", 0.0, BINS), ("alarms", 0, 1)):
        mine, lacking = like[name], ids * each
        if lacking and name in found and found[name].shape == (len(mine) - lacking, *mine.shape[1:]):
            found[name] = np.concatenate([found[name], np.full_like(mine[-lacking:], fill)])
    return found
