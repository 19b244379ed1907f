"""Attacks: streams whose feedback is tampered with, from a row on or for a range of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats, Ints
from riverdelta.lab.stream import Stream

Kind = Literal["flip", "flood", "drift", "stale"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Attacked:
    """A stream with the labels that a learner gets, and the truth about its N rows.

    `truth` float32[N] are the true labels, `honest` bool[N] marks rows of regular users with true labels, `source` int64[N] is
    the sender of the label. The attack covers the rows from `begin` to `end` (excluded).
    """

    stream: Stream
    truth: Floats
    honest: npt.NDArray[np.bool_]
    source: Ints
    begin: int
    end: int


def attack(
    stream: Stream,
    kind: Kind,
    seed: int = 0,
    begin: float = 0.5,
    length: float = 0.1,
    rate: float = 1.0,
    targets: int = 5,
    sources: int = 8,
) -> Attacked:
    """Return the stream attacked from the share `begin` of its N rows on, for the share `length`; other rows are unchanged.

    - `flip`: labels are inverted; it hurts most late in the stream, when the corrections are trusted.
    - `flood`: an additional source sends `rate` labels of 1 for each honest label, on `targets` rows drawn from the range.
    - `drift`: the labels of half of all items (ids of the second id column, or of the only one) are inverted permanently: the
      new labels are the truth, and `length` is ignored.
    - `stale`: every label is 0.

    The honest rows' labels come from `sources` sources, 1 and up, assigned round-robin. The same seed gives the same stream.
    Raises `InvalidInput` for an empty range, and for a drift without an id column.

    >>> rows = Stream("four", {"item_id": np.arange(4)}, np.float32([1, 0, 1, 1]), np.arange(4.0))
    >>> done = attack(rows, "stale", begin=0.5, length=0.25)
    >>> done.stream.label.tolist(), done.honest.tolist(), done.source.tolist()
    ([1.0, 0.0, 0.0, 1.0], [True, True, False, True], [1, 2, 3, 4])
    """
    rows = len(stream)
    first = int(begin * rows)
    last = rows if kind == "drift" else min(first + int(length * rows), rows)
    if first >= last:
        raise InvalidInput(f"the attack on rows {first} to {last} of {rows} is empty; lower begin, or raise length={length}")
    rng = np.random.default_rng(seed)
    source = np.arange(rows, dtype=np.int64) % sources + 1
    if kind == "flood":
        return _flood(stream, source, rng, slice(first, last), rate, targets)
    label = stream.label.copy()
    if kind == "stale":
        label[first:last] = 0.0
    elif kind == "flip":
        label[first:last] = 1.0 - label[first:last]
    else:
        label[first:] = _turned(stream, rng)[first:]
    truth = label.copy() if kind == "drift" else stream.label.copy()
    return Attacked(replace(stream, label=label), truth, label == truth, source, first, last)


def _turned(stream: Stream, rng: np.random.Generator) -> Floats:
    """Return the labels with those of half of the items inverted."""
    ids = [column for column in stream.columns.values() if column.dtype == np.int64]
    if not ids:
        raise InvalidInput(f"{stream.name} has no id column (int64); drift needs one to choose items by")
    items, at = np.unique(ids[min(1, len(ids) - 1)], return_inverse=True)
    turned = np.zeros(len(items), np.bool_)
    turned[rng.permutation(len(items))[: (len(items) + 1) // 2]] = True
    return np.where(turned[at], 1.0 - stream.label, stream.label).astype(np.float32)


def _flood(stream: Stream, source: Ints, rng: np.random.Generator, stretch: slice, rate: float, targets: int) -> Attacked:
    honest_rows = stretch.stop - stretch.start
    extra = max(round(rate * honest_rows), 1)
    target = rng.integers(stretch.start, stretch.stop, min(targets, honest_rows))
    copied = target[rng.integers(0, len(target), extra)]
    # Each comes after an honest row of the range and has its time, so that time does not go back.
    after = np.sort(rng.integers(stretch.start, stretch.stop, extra))
    order = np.insert(np.arange(len(stream)), after + 1, copied)
    honest = np.insert(np.ones(len(stream), np.bool_), after + 1, False)
    label, time = stream.label[order], np.insert(stream.time, after + 1, stream.time[after])
    label[~honest] = 1.0
    flooded = replace(stream, columns={name: column[order] for name, column in stream.columns.items()}, label=label, time=time)
    sent = np.where(honest, source[order], source.max() + 1)
    return Attacked(flooded, stream.label[order], honest, sent, stretch.start, stretch.stop + extra)
