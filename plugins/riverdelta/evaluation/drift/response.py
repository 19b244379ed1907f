"""Response: what the learner does at a drift alarm."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from riverdelta.core.errors import ConfigurationError


@dataclass(frozen=True)
class Adapt:
    """Believe less in what was learned, and learn faster for a while.

    At an alarm every correction keeps the share `forget` of what made it sure (1: all of it); then each of the next
    `for_examples` examples counts `rate` times. Raises `ConfigurationError` outside 0 to 1, below 0 and below 1.

    >>> Adapt(forget=0.25)
    Adapt(forget=0.25, rate=2.0, for_examples=10000)
    """

    forget: float = 0.5
    rate: float = 2.0
    for_examples: int = 10_000

    def __post_init__(self) -> None:
        if not 0.0 <= self.forget <= 1.0:
            raise ConfigurationError(f"forget is {self.forget!r}; expected the share of certainty to keep, 0 to 1")
        if not (self.rate > 0.0 and math.isfinite(self.rate)):
            raise ConfigurationError(f"rate is {self.rate!r}; expected how often an example counts, above 0, as 2.0")
        if self.for_examples < 1:
            raise ConfigurationError(f"for_examples is {self.for_examples!r}; expected a number of examples of at least 1")


@dataclass(frozen=True)
class Freeze:
    """Stop learning until an operator resumes it."""


Response = Adapt | Freeze


def as_record(response: Response | None) -> dict[str, float] | str | None:
    """Return a response as a journal record has it.

    >>> of_record(as_record(Adapt(forget=0.25))) == Adapt(forget=0.25)
    True
    """
    return asdict(response) if isinstance(response, Adapt) else None if response is None else "freeze"


def of_record(value: Any) -> Response | None:
    """Return the response that `as_record` described; raises `ConfigurationError` where it is not one."""
    if value is None or value == "freeze":
        return None if value is None else Freeze()
    try:
        return Adapt(**value)
    except TypeError:
        raise ConfigurationError(f"on_drift is {value!r}; expected the fields of Adapt, 'freeze' or null") from None
