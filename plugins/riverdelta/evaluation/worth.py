"""Worth: the corrections' gain over the base, on rows scored by the tables in service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from riverdelta.core.arrays import Array, Arrays, nest, of_json, part, to_json
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Group
from riverdelta.evaluation.confidence import ConfidenceSequence
from riverdelta.evaluation.prequential import Prequential
from riverdelta.evaluation.unit import Compared, Unit

#: The probability that the interval misses the true mean.
ALPHA = 0.05


class Worth:
    """The gain in loss per row, with a confidence interval, and the measures of base and served, for the tables in service.

    After `begin`, as at a rollback, measurement starts over, and rows scored by earlier tables are ignored however late their
    labels come. Each interval misses with probability `ALPHA`.

    Parameters
    ----------
    shadow
        Whether the base alone is served; the corrected output is then measured. Default: False.
    loss
        The loss, which gives the unit of the gain. Default: the log loss, in nats.

    Notes
    -----
    The gain is the mean over examples of clip(w·(loss of base - loss of served) / unit, -B, B). The `Unit` is 1 nat, or for
    other losses what is typical for the base on the examples before; B is twice the `scale` of the loss, or 2. Its interval is
    a `ConfidenceSequence`: it holds at all examples at once, and assumes only that the clipped differences are bounded.

    Examples
    --------

    >>> worth, zero, label = Worth(), np.zeros(2_000, np.float32), np.ones(2_000, np.float32)
    >>> worth.update(zero, zero + 1, label, label)
    >>> report = worth.report()
    >>> report["labels"], round(report["gain"]["mean"], 3), report["gain"]["lower"] > 0, round(report["base"]["loss"], 3)
    (2000, 0.38, True, 0.693)
    >>> worth.begin({"action": "rollback", "release": 0, "position": 7, "time": 60.0})
    >>> worth.report()["labels"], worth.report()["gain"]["mean"]
    (0, None)
    """

    def __init__(self, shadow: bool = False, loss: Loss = LOG_LOSS) -> None:
        self._shadow, self.loss = shadow, loss
        #: The bound at which a row's difference of losses is clipped.
        self.bound = 2.0 * Unit(loss).largest
        self.begin(None)

    def begin(self, since: Mapping[str, Any] | None) -> None:
        """Start over with rows scored by tables at or after the position in `since` {action, release, position, time}."""
        self.since = since
        guess = self.bound / 16.0
        self._gain = ConfidenceSequence(ALPHA, -self.bound, self.bound, guess=(-guess, guess), best_at=30.0 * self.bound**2)
        self._unit = Unit(self.loss)
        self._measured = Prequential(window=1, loss=self.loss)

    def observe(self, examples: Examples) -> None:
        """Add joined examples; those scored by earlier tables are ignored."""
        rows, label, weight = examples.measured()
        now = examples.position[rows] >= (self.since["position"] if self.since else 0)
        served = examples.corrected if self._shadow else examples.served
        group = None if examples.group is None else examples.group[rows][now]
        self.update(examples.base[rows][now], served[rows][now], label[now], weight[now], group)

    def update(self, base: Floats, served: Floats, label: Floats, weight: Floats, group: Group = None) -> None:
        """Add N rows of raw outputs, labels and weights; an example with a row that is not finite is skipped.

        `group` int64[N] says which rows are one list, for a loss of lists.
        """
        given = Compared.of(self.loss, (base, served, base), label, weight, group)
        good = given.known & ~np.isnan(given.won)
        unit = self._unit.of(given.typical[good], given.weight[good])
        won = given.won[good][unit > 0] / unit[unit > 0]
        self._gain.update(np.clip(won, -self.bound, self.bound))
        self._measured.update(base, served, label, weight, group)

    def report(self) -> dict[str, Any]:
        """Return since, labels (a number), gain {mean, lower, upper, alpha, bound, unit}, and measures of base and served."""
        gain = {name: getattr(self._gain, name) if self._gain.count else None for name in ("mean", "lower", "upper")}
        gain |= {"alpha": ALPHA, "bound": self.bound, "unit": self._unit.name}
        return {"since": self.since, "labels": self._gain.count, "gain": gain, **self._measured.report()["all"]}

    def state(self) -> dict[str, Array]:
        """Return the arrays from which `load` restores this state, bit for bit."""
        return {"since": of_json(self.since)} | nest(
            {"gain": self._gain.state(), "measured": self._measured.state(), "unit": self._unit.state()}
        )

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, or start over without arrays; raises `Corrupt` for anything else."""
        since = to_json(arrays, "since") if arrays else None
        if since is not None and not (isinstance(since, dict) and isinstance(since.get("position"), int)):
            raise Corrupt(f"the saved 'since' is {since!r}; expected null or an object with a position")
        self.begin(since)
        if arrays:
            self._gain.load(part(arrays, "gain"))
            self._measured.load(part(arrays, "measured"))
            self._unit.load(part(arrays, "unit"))
