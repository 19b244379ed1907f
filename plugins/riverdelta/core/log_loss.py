"""Log loss: the most that one row's may count as."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from riverdelta.core.losses import LOG_LOSS

BOUND = LOG_LOSS.bound


def bounded(logit: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return logits float64 within ±`BOUND`: their log loss is that of the given ones, at most `BOUND` (to 1e-24 nats).

    >>> bounded([1.5, 3.4e38, float("-inf")]).tolist()
    [1.5, 56.0, -56.0]
    """
    return np.clip(np.asarray(logit, np.float64), -BOUND, BOUND)
