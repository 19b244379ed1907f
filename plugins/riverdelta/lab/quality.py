"""Quality: exact AUC and log loss of scores against labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from riverdelta.core.losses import LOG_LOSS


def auc(score: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Return the probability that a positive scores above a negative, ties counting half; NaN unless both exist.

    By ranks (Mann and Whitney 1947), O(N log N).

    >>> auc([0.1, 0.4, 0.4, 0.9], [0, 0, 1, 1])
    0.875
    """
    score, label = np.asarray(score), np.asarray(label)
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    positives = float(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return float("nan")
    return float((ranks[label > 0].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def log_loss(logit: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Return the mean log loss in nats, each row's at most `LOG_LOSS.bound`."""
    return float(LOG_LOSS.value(logit, label).mean())


def beside_base(base: npt.ArrayLike, served: npt.ArrayLike, label: npt.ArrayLike) -> dict[str, float]:
    """Return AUC and log loss of base and served logits: `auc_base`, `auc_served`, `log_loss_base`, `log_loss_served`."""
    scorers = {"base": base, "served": served}
    return {f"{f.__name__}_{name}": f(z, label) for f in (auc, log_loss) for name, z in scorers.items()}
