"""Log loss: the most that one row may have, and the loss in a kernel, from a table several times as fast as exp and log1p."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

#: A row's log loss counts as at most this many nats wherever losses are summed, averaged or drawn: a base may return a logit
#: of any size, and one of them among n rows must not move their mean by more than BOUND / n. No ordinary loss comes near it:
#: a base that returns probabilities has logits within ±16.1 (`link.PROBABILITY_FLOOR`), and the gate moves them by at most 30
#: (`link.RESIDUAL_BOUND`). Above their sum it is the first edge of the bins in which `Prequential` counts logits, so
#: that the number of rows beyond it is known.
BOUND = 56.0

#: Beyond this a logit's loss is a straight line, and its score 0 or 1, to 1e-7.
WIDEST = 16.0
_STEPS = 128
_PLACES = np.linspace(-WIDEST, WIDEST, int(2 * WIDEST * _STEPS) + 1)
_SOFTPLUS = np.logaddexp(0.0, _PLACES)
_SIGMOID = 1.0 / (1.0 + np.exp(-_PLACES))


def bounded(logit: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return logits float64 within ±`BOUND`: their log loss is that of the given ones, at most `BOUND` (to 1e-24 nats).

    >>> bounded([1.5, 3.4e38, float("-inf")]).tolist()
    [1.5, 56.0, -56.0]
    """
    return np.clip(np.asarray(logit, np.float64), -BOUND, BOUND)


def possible(losses: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return whether each sum of losses is possible for its number of rows: version 0.1, without `BOUND`, saved others."""
    return np.abs(losses) <= BOUND * rows


@numba.njit(inline="always")
def log_loss(logit, label):  # type: ignore[no-untyped-def]
    """Return the log loss softplus(z) - y·z, at most `BOUND` nats, of a logit and a label 0 or 1, off by at most 2e-6.

    Between 1/128 logit and the next a straight line is taken: by Taylor's formula it is off by at most max|f''|·h²/8.

    >>> log_loss(0.0, 1.0), log_loss(-20.0, 1.0), log_loss(-1e30, 1.0)
    (0.6931471805599453, 20.0, 56.0)
    """
    wrong = logit if label == 0.0 else -logit
    place = (min(max(wrong, -WIDEST), WIDEST) + WIDEST) * _STEPS
    at = min(int(place), _SOFTPLUS.shape[0] - 2)
    line = _SOFTPLUS[at] + (place - at) * (_SOFTPLUS[at + 1] - _SOFTPLUS[at])
    return min(wrong, BOUND) if wrong > WIDEST else line


@numba.njit(inline="always")
def score(logit):  # type: ignore[no-untyped-def]
    """Return σ(z) of a logit that is a number, off by at most 1e-6.

    >>> score(0.0), score(1e9) < 1.0, bool(abs(score(2.0) - 1 / (1 + np.exp(-2.0))) < 1e-6)
    (0.5, True, True)
    """
    place = (min(max(logit, -WIDEST), WIDEST) + WIDEST) * _STEPS
    at = min(int(place), _SIGMOID.shape[0] - 2)
    return _SIGMOID[at] + (place - at) * (_SIGMOID[at + 1] - _SIGMOID[at])
