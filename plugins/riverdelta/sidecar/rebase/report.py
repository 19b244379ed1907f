"""Report: what a rebase has carried over, and what it has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Rebased:
    """A report of what was carried over into `folder`; positions are those of the journal, which the new home continues."""

    folder: str
    #: The newest position; the records read; the number of records before them that retention had deleted.
    position: int = 0
    records: int = 0
    swept: int = 0
    #: Rows that the new stack scored again.
    rows: int = 0
    #: Rows that could not be, the first and last of their records, and the columns that they lack.
    unusable: int = 0
    unusable_from: int | None = None
    unusable_to: int | None = None
    lacking: str | None = None
    #: Labels whose rows were deleted by retention or are not usable.
    labels_lost: int = 0
    #: Rows of a log that were learned instead of the journal's; None without a log.
    log_rows: int | None = None
    #: Examples joined, and those learned.
    examples: int = 0
    learned: int = 0
    rollbacks: int = 0
    frozen: bool = False
    #: Rows that the breaker holds, as scored again.
    held: int = 0
    champion: int = 0
    #: Whether the base or its output is another one than in the old home.
    new_base: bool = False
    #: RIVERDELTA_GUARD, or "base" if only the base serves; the weight of the new stack in what serves first; whether the gate
    #: started over, from the base.
    guard: str = "live"
    weight: float = 0.0
    gate_restarted: bool = False
    comparison: dict[str, Any] | None = None
