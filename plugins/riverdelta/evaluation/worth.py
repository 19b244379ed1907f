"""Worth: what the corrections gain over the base, measured on rows that the tables which serve now have scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from riverdelta.core.arrays import Array, Arrays, nest, of_json, part, to_json
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.evaluation.confidence import ConfidenceSequence
from riverdelta.evaluation.measured import Rows
from riverdelta.evaluation.prequential import Prequential

#: The probability with which the interval misses the truth.
ALPHA = 0.05


class Worth:
    """The gain in loss per row with its interval, and the measures of both scorers, since the served tables were exchanged.

    The gain is the mean over rows of clip(w·(loss of base - loss of served), -B, B), B being twice the `scale` of the loss. Its
    interval holds at every row at once, so that it may be looked at all the time: `ConfidenceSequence`, which asks of these
    differences only that they are bounded, and speaks of their mean as clipped.

    `begin` starts again where other tables take over, as a rollback does: what the former tables gained says nothing of those
    that serve now, and their rows are left out however late their labels come. Each interval misses with probability `ALPHA`.

    With `shadow` the corrections are judged by what they would have served, as none of it is.

    >>> worth, zero, label = Worth(), np.zeros(2_000, np.float32), np.ones(2_000, np.float32)
    >>> worth.update(zero, zero + 1, label, label)
    >>> report = worth.report()
    >>> report["labels"], round(report["gain"]["mean"], 3), report["gain"]["lower"] > 0, round(report["base"]["log_loss"], 3)
    (2000, 0.38, True, 0.693)
    >>> worth.begin({"action": "rollback", "release": 0, "position": 7, "time": 60.0})
    >>> worth.report()["labels"], worth.report()["gain"]["mean"]
    (0, None)
    """

    def __init__(self, shadow: bool = False, loss: Loss = LOG_LOSS) -> None:
        self._shadow, self.loss = shadow, loss
        #: The most that a row's difference of losses counts as.
        self.bound = 2.0 * loss.scale
        self.begin(None)

    def begin(self, since: Mapping[str, Any] | None) -> None:
        """Measure anew what tables at or after the position in `since` {action, release, position, time} have scored."""
        self.since = since
        guess = self.bound / 16.0
        self._gain = ConfidenceSequence(ALPHA, -self.bound, self.bound, guess=(-guess, guess), best_at=30.0 * self.bound**2)
        self._measured = Prequential(window=1, loss=self.loss)

    def observe(self, examples: Examples) -> None:
        """Take joined examples; those that former tables scored are left out."""
        rows, label, weight = examples.measured()
        now = examples.position[rows] >= (self.since["position"] if self.since else 0)
        rows, judged = rows[now], examples.corrected if self._shadow else examples.served
        self.update(examples.base[rows], judged[rows], label[now], weight[now])

    def update(self, base: Floats, served: Floats, label: Floats, weight: Floats) -> None:
        """Take N rows: raw outputs, labels and weights; a row that is not finite is left out."""
        given = Rows.of(self.loss, base, served, label, weight)
        good = given.good
        before, after = (self.loss.value(raw[good], given.label[good]) for raw in given.raw)
        self._gain.update(np.clip(given.weight[good] * (before - after), -self.bound, self.bound))
        self._measured.update(base, served, label, weight)

    def report(self) -> dict[str, Any]:
        """Return since, labels (rows), the gain {mean, lower, upper, alpha, bound}, and the measures of base and served."""
        gain = {name: getattr(self._gain, name) if self._gain.count else None for name in ("mean", "lower", "upper")}
        gain |= {"alpha": ALPHA, "bound": self.bound}
        return {"since": self.since, "labels": self._gain.count, "gain": gain, **self._measured.report()["all"]}

    def state(self) -> dict[str, Array]:
        """Return what a later `load` needs to go on from here, bit for bit."""
        return {"since": of_json(self.since)} | nest({"gain": self._gain.state(), "measured": self._measured.state()})

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned, or begin anew where nothing was saved; raises `Corrupt` at anything else."""
        since = to_json(arrays, "since") if arrays else None
        if since is not None and not (isinstance(since, dict) and isinstance(since.get("position"), int)):
            raise Corrupt(f"the saved 'since' is {since!r}; expected null or an object with a position")
        self.begin(since)
        if arrays:
            self._gain.load(part(arrays, "gain"))
            self._measured.load(part(arrays, "measured"))
