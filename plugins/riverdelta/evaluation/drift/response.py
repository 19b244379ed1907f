"""Response: what the learner does after a drift alarm."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from riverdelta.core.errors import ConfigurationError


@dataclass(frozen=True)
class Adapt:
    """A drift response that inflates the corrections' uncertainty and learns faster for a while.

    Parameters
    ----------
    forget
        Share of its certainty that every correction keeps at an alarm, 0 to 1 (1: all; default 0.5). Lower it if changes make
        what was learned worthless.
    rate
        How often each example counts after an alarm, above 0 (default 2). Raise it to adapt faster, at the cost of noise.
    for_examples
        Examples that count `rate` times, at least 1 (default 10,000). Raise it for slow streams of labels.

    Raises `ConfigurationError` naming the argument that is out of range.

    >>> Adapt(forget=0.25)
    Adapt(forget=0.25, rate=2.0, for_examples=10000)
    """

    forget: float = 0.5
    rate: float = 2.0
    for_examples: int = 10_000

    def __post_init__(self) -> None:
        if not 0.0 <= self.forget <= 1.0:
            raise ConfigurationError(f"forget is {self.forget!r}; expected the share of certainty to keep, from 0 to 1")
        if not (self.rate > 0.0 and math.isfinite(self.rate)):
            raise ConfigurationError(
                f"rate is {self.rate!r}; expected how often an example counts, a number above 0 such as 2.0"
            )
        if self.for_examples < 1:
            raise ConfigurationError(f"for_examples is {self.for_examples!r}; expected a number of examples, at least 1")


@dataclass(frozen=True)
class Freeze:
    """A drift response that stops learning until an operator resumes it; it has no parameters."""


Response = Adapt | Freeze


def as_record(response: Response | None) -> dict[str, float] | str | None:
    """Return a response in its journal format.

    >>> of_record(as_record(Adapt(forget=0.25))) == Adapt(forget=0.25)
    True
    """
    return asdict(response) if isinstance(response, Adapt) else None if response is None else "freeze"


def of_record(value: Any) -> Response | None:
    """Return the response that `as_record` encoded; raises `ConfigurationError` if `value` is not valid."""
    if value is None or value == "freeze":
        return None if value is None else Freeze()
    try:
        return Adapt(**value)
    except TypeError:
        raise ConfigurationError(f"on_drift is {value!r}; expected the fields of Adapt, 'freeze' or null") from None
