"""Panel: a mixture of e-detectors with a proven bound on false alarms."""

from __future__ import annotations

import numba
import numpy as np

from riverdelta.core.losses.base import Doubles

#: The bets, as shares of the largest that cannot lose everything: small bets detect small drifts, large bets large ones early.
SHARES = np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2, 7 / 8])


@numba.njit("float64(float64[::1], float64[::1], float64[::1], float64[::1], float64[:, ::1])", cache=True)
def bet(x, bound, weight, shares, wealth):  # type: ignore[no-untyped-def]
    """Bet once on every x[k] > bound[k] and return the panel's evidence; wealth[k, j] belongs to the bet shares[j]."""
    total = 0.0
    for k in range(x.shape[0]):
        off = (x[k] - bound[k]) / bound[k]
        held = 0.0
        for j in range(shares.shape[0]):
            wealth[k, j] = (wealth[k, j] + 1.0) * (1.0 + shares[j] * off)
            held += wealth[k, j]
        total += weight[k] * held / shares.shape[0]
    return total


class Panel:
    """K e-detectors of a rising mean, combined into one alarm.

    The null hypothesis is that each x_k(t) in [0, 1] has a mean of at most m_k given everything before t, dependent or not. A
    bet of λ in (0, 1/m_k) grows by 1 + λ(x_k(t) - m_k) >= 0, whose mean is then at most 1; with

        M_k,λ(t) = (M_k,λ(t - 1) + 1)·(1 + λ(x_k(t) - m_k)),   M(t) = Σ_k w_k·(mean over λ of M_k,λ(t)),   Σ w_k = 1,

    M is an e-detector: E M(τ) <= E τ for every stopping time τ. An alarm is raised where M(t) >= `run_length`; so under the
    null the mean number of steps to the first alarm is at least `run_length`. This is exact, not an approximation.

    `bound` float64[K] are the m_k in (0, 1], `weight` float64[K] the w_k.

    Reference: Shin, Ramdas, Rinaldo 2023, "E-detectors" (arXiv 2203.03532): those of Shiryaev-Roberts type, and their mixtures.

    >>> panel = Panel(np.array([0.5]), np.array([1.0]), run_length=1e6)
    >>> quiet = [panel.update(np.array([float(t % 2)])) for t in range(1_000)]
    >>> any(quiet), [panel.update(np.array([0.9])) for t in range(40)].index(True)
    (False, 25)
    """

    def __init__(self, bound: Doubles, weight: Doubles, run_length: float) -> None:
        self.bound, self.weight, self.run_length = bound, weight, run_length
        self.wealth = np.zeros((len(bound), len(SHARES)))

    def update(self, x: Doubles) -> bool:
        """Take one step float64[K]; return whether it raises the alarm."""
        return bool(bet(np.ascontiguousarray(x), self.bound, self.weight, SHARES, self.wealth) >= self.run_length)

    def evidence(self) -> Doubles:
        """Return the contribution of each of the K to M, float64[K], which sum to M."""
        return np.asarray(self.weight * self.wealth.mean(1))
