"""Weights: which negatives become examples, and the weights with which examples are learned and measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from riverdelta.core.checked import share
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Floats, Ints
from riverdelta.core.hashing import GOLDEN, mixed
from riverdelta.core.losses import LOG_LOSS, Loss

LATE = ("weighted", "plain")
#: The largest weight of a late positive that takes back its negative; exact up to a probability of 0.9.
LATE_WEIGHT_BOUND = 10.0
_Flags = npt.NDArray[np.bool_]


class Weights:
    """The weights of examples if a share k = `keep_negatives` of the negatives is kept and positives may come late.

    A negative has the label that silence stands for; if the loss has none, every row counts once. With p the loss's prediction
    of the corrected output as served, which is the probability of a positive, D = p + k(1 - p):

        row                                        weight                 importance
        positive                                   k / D                  1
        negative (kept)                            1 / D                  1 / k
        late positive whose negative was kept      1 / (1 - p), <= 10     1, and that negative is taken back

    `weight` is a row's weight in learning, `importance` its weight in measures. With k = 1 the first two are exactly 1; with
    `late="plain"` a late positive is a positive like any other. A label that was sent with a weight ω has ω times both, but the
    negative that a late positive undoes weighs 1: that positive has the weight 1 / (1 - p) - (1 - ω)·k / D.

    Parameters
    ----------
    late
        "weighted" (default): a late positive undoes its row's negative. "plain": it does not, which biases scores low.
    keep_negatives
        Share of the negatives that become examples, above 0 to 1 (default 1). Lower it if learning cannot keep up.
    loss
        The loss of the task.

    Notes
    -----
    Sampling. Among the kept rows the log odds are higher by s = -ln k, and σ(z + s) = p / D: the gradient of the shifted
    loss, p/D - y, is 1/D times the plain p for a negative, k/D times the plain p - 1 for a positive. At logit σ⁻¹(f), where
    the truth is π, the expected gradient is k(1 - π)·f/D - π·(k/D)(1 - f) = (k/D)(f - π): zero at f = π whatever D is.

    Late positives. The negative has moved the logit by the gradient f/D where the positive alone is worth (k/D)(f - 1); their
    difference is w(f - 1) with w = k/D + f/(D(1 - f)) = 1 / (1 - f), whatever k is; a positive of weight ω has ω·k/D in place
    of the first term. So each row has, in the end, the gradient of its true label: unbiased whatever share of the positives is
    late. The weights of Ktena et al., 1 + p for positives and (1 - p)(1 + p) for negatives, are right only where every positive
    had its negative first: where a share q is late, their fixed point is π / (1 - π(1 - q)). Where q = 1 both have the same
    asymptotic variance, π(1 - π) a row.

    Measured (tests/benchmarks/bench_delays.py; clicks on 38 % of the rows, of which 61 % come after the window): Σ score over
    Σ true probability is 14 to 20 % low with `late="plain"`, 0.8 to 1.9 % high with "weighted", 20 to 31 % high with the
    weights of the paper. With k = 0.1 it is 4 to 5 % high, and 0.4 to 1.3 % where a Calibration ends the stack; 7 to 14 % with
    the weight 1/k instead: the weights have the right gradient, but a step's curvature goes with its label, which entities of
    few rows feel.

    Which negatives are kept is a hash of the row's key and of nothing else, so that a replay keeps the same ones.

    References: Ktena et al. 2019 (arXiv 1907.06558), fake-negative weighting; King and Zeng 2001, Wang 2020 (ICML), log-odds
    correction; Steele, Lea and Flood 2014, the hash (SplitMix64).

    >>> weights = Weights(keep_negatives=0.1)
    >>> weight, importance, _ = weights.of(np.float32([0, 1]), np.float32([[0], [0]]), None)
    >>> [round(float(w), 4) for w in weight], importance.tolist()
    ([1.8182, 0.1818], [10.0, 1.0])
    """

    def __init__(self, late: str = "weighted", keep_negatives: float = 1.0, loss: Loss = LOG_LOSS) -> None:
        if late not in LATE:
            raise ConfigurationError(f"late is {late!r}; expected one of {', '.join(LATE)}")
        self.late, self.keep, self.loss = late, share("keep_negatives", keep_negatives), loss
        if self.keep < 1.0 and not loss.logit:
            raise ConfigurationError(
                f"keep_negatives is {self.keep:g}, and {loss} has no negatives; set RIVERDELTA_KEEP_NEGATIVES=1"
            )

    def keeps(self, incarnation: Ints, key: Ints) -> _Flags:
        """Return bool[N]: whether a row is kept if it is a negative."""
        seed = mixed(incarnation.astype(np.uint64) * GOLDEN)
        draw = mixed(seed + key.astype(np.uint64) * GOLDEN) >> np.uint64(11)
        return draw * 2.0**-53 < self.keep

    def of(
        self, label: Floats, corrected: Floats, undone: _Flags | None, sent: Floats | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """Return weights, importances, and the importance of the negative that each row takes back, float32[N] each.

        `corrected` float32[N, K] are the corrected raw outputs as served; `undone` bool[N] marks late positives whose negative
        was kept, None if there are no late ones; `sent` float32[N] are the weights that came with the labels (default: 1).
        """
        sent = np.ones(len(label), np.float32) if sent is None else sent
        taken_back = np.zeros(len(label), np.float32)
        if self.keep == 1.0 and undone is None:
            return sent, sent, taken_back
        weight, importance = (np.ones(len(label), np.float32) for _ in range(2))
        p = self.loss.inverse_link(corrected)[:, 0]
        if self.keep < 1.0:
            importance[label == 0] = 1.0 / self.keep
            weight[:] = self.keep * importance / (p + self.keep * (1.0 - p))
        if undone is not None:
            taken_back[undone] = 1.0 / self.keep
            if self.late == "weighted":
                # The negative weighed 1 whatever the weight of its positive is, so only the positive's own part has that.
                back = 1.0 / np.maximum(1.0 - p[undone], 1.0 / LATE_WEIGHT_BOUND)
                weight[undone] = back - (1.0 - sent[undone]) * weight[undone]
                weight[~undone] *= sent[~undone]
                return weight, importance * sent, taken_back
        return weight * sent, importance * sent, taken_back
