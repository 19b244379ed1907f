"""Simulator: a click log with known truth: arriving users and items, drifting tastes, position bias, delayed labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Ints
from riverdelta.core.losses import LOG_LOSS
from riverdelta.lab.stream import SideTable, Stream

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Simulation:
    """Generates a log of `rows` impressions, one a second, shown `slate` at a time in order of position.

    The logit of relevance of user u and item i at time t is intercept + aᵤ + bᵢ + ⟨pᵤ(t), q_c(i)⟩, with aᵤ ~ N(0, user²),
    bᵢ ~ N(0, item²), category vectors q of `dim` dimensions, and tastes pᵤ(t) that walk at random: between two of a user's
    requests pᵤ ← ρpᵤ + √(1 - ρ²)ε with ρ = 1 - `drift`. A shown item is examined with probability (1 + position)^-`bias` and
    clicked when examined and relevant. A label comes after an exponential delay of mean `delay` seconds.

    Users and items arrive over time: request k draws from the first (share of `users`) · (start + (1 - start)·k/requests).
    The same seed gives the same log.

    >>> log = Simulation(rows=1000, seed=3).generate()
    >>> len(log.stream), bool((log.label_time >= log.stream.time).all())
    (1000, True)
    """

    rows: int = 50_000
    users: int = 1_000
    items: int = 2_000
    categories: int = 12
    dim: int = 6
    slate: int = 8
    intercept: float = -0.4
    user: float = 0.9
    item: float = 0.9
    taste: float = 0.7
    drift: float = 0.02
    bias: float = 0.3
    delay: float = 60.0
    start: float = 0.3
    seed: int = 0

    def generate(self) -> Log:
        """Return a random log."""
        rng = np.random.default_rng(self.seed)
        requests = -(-self.rows // self.slate)
        grown = self.start + (1.0 - self.start) * np.arange(requests) / max(requests - 1, 1)
        user = (rng.random(requests) ** 1.5 * np.maximum(grown * self.users, 1)).astype(np.int64)
        item = (rng.random((requests, self.slate)) ** 2 * np.maximum(grown * self.items, 1)[:, None]).astype(np.int64)
        position = np.tile(np.arange(self.slate), (requests, 1))
        category = rng.integers(0, self.categories, self.items)
        vectors = rng.normal(size=(self.categories, self.dim)) / np.sqrt(self.dim)
        logit = (
            self.intercept
            + rng.normal(0, self.user, self.users)[user][:, None]
            + rng.normal(0, self.item, self.items)[item]
            + self.taste * np.einsum("rd,rsd->rs", self._tastes(rng, user), vectors[category[item]])
        )
        examined = (1.0 + position) ** -self.bias
        flat = slice(0, self.rows)
        truth = np.asarray(examined * LOG_LOSS.inverse_link(logit).reshape(logit.shape), np.float64).ravel()[flat]
        label = (rng.random(len(truth)) < truth).astype(np.float32)
        time = np.repeat(np.arange(requests, dtype=np.float64) * self.slate, self.slate)[flat]
        hour = ((time / 3600.0) % 24.0).astype(np.float32)
        table = SideTable(
            "item_id",
            np.arange(self.items),
            np.eye(self.categories, dtype=np.float32)[category],
            tuple(f"category {c}" for c in range(self.categories)),
        )
        columns: dict[str, npt.NDArray[Any]] = {
            "user_id": np.repeat(user, self.slate)[flat],
            "item_id": item.ravel()[flat],
            "position": position.ravel()[flat],
            "hour": hour,
        }
        stream = Stream("simulator", columns, label, time, {"genres": table})
        return Log(stream, truth, np.asarray(examined, np.float64).ravel()[flat], time + rng.exponential(self.delay, len(time)))

    def _tastes(self, rng: np.random.Generator, user: Ints) -> Doubles:
        """Return the tastes of each request's user at its time, [requests, dim]: one step of the walk per request of a user."""
        keep = 1.0 - self.drift
        now = rng.normal(size=(self.users, self.dim)) * np.sqrt(self.dim)
        steps = rng.normal(size=(len(user), self.dim)) * np.sqrt(self.dim * (1.0 - keep**2))
        seen = np.empty((len(user), self.dim))
        for request, u in enumerate(user.tolist()):
            now[u] = keep * now[u] + steps[request]
            seen[request] = now[u]
        return seen


@dataclass(frozen=True, eq=False)
class Log:
    """A simulated stream with its truth: click probability and examination probability float64[N], and label times."""

    stream: Stream
    truth: Doubles
    propensity: Doubles
    label_time: Doubles
