"""Benign operations: what a service does on ordinary days, as changes of a clean stream, of who sends its labels and when.

Each takes a stream and a random generator and returns a `Served`: the labels are those of the stream, so nothing in it is a
reason to stop learning.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

DAY = 86_400.0


@dataclass(frozen=True)
class Served:
    """Rows of a stream by their places in it (they may repeat), senders, times of labels, and terms of the joiner."""

    rows: np.ndarray
    source: np.ndarray
    label_time: np.ndarray | None = None
    joiner: dict[str, Any] = field(default_factory=dict)
    shift: np.ndarray | float = 0.0  # of the base's logit


def eight(rows):
    """Eight senders that take turns."""
    return np.arange(rows, dtype=np.int64) % 8 + 1


def _plain(stream, rows=None, **terms):
    rows = np.arange(len(stream)) if rows is None else rows
    return Served(rows, **{"source": eight(len(rows))} | terms)


def _late(stream, when, rows=None, **terms):
    """The labels come when `when` says, in seconds of a clock on which the rows are a minute apart."""
    return _plain(stream, rows, label_time=when, **terms)


def minutes(rows):
    """Rows a minute apart: streams differ in their clocks, operations do not."""
    return 60.0 * np.arange(rows)


def _middle(stream, share=0.1):
    at = np.arange(len(stream))
    return (at >= len(stream) // 2) & (at < int((0.5 + share) * len(stream)))


def nothing(stream, rng):
    """Eight senders take turns."""
    return _plain(stream)


def one_sender(stream, rng):
    """One sender sends everything."""
    return _plain(stream, source=np.ones(len(stream), np.int64))


def requests(stream, rng):
    """Eight senders send 64 labels at a time."""
    return _plain(stream, source=rng.integers(1, 9, len(stream) // 64 + 1)[np.arange(len(stream)) // 64])


def late_sender(stream, rng):
    """One of eight senders sends its labels three hours late."""
    source = eight(len(stream))
    return _late(stream, minutes(len(stream)) + np.where(source == 3, DAY / 8, 0.0))


def nightly_sender(stream, rng):
    """One of eight senders sends its labels at midnight."""
    when, source = minutes(len(stream)), eight(len(stream))
    return _late(stream, np.where(source == 3, np.ceil((when + 1) / DAY) * DAY, when))


def token_rotation(stream, rng):
    """A token is replaced; both are in use for a tenth of the stream."""
    at = np.arange(len(stream)) / len(stream)
    return _plain(stream, source=np.where(rng.random(len(stream)) < (at - 0.45) / 0.1, 2, 1))


def added_sender(stream, rng):
    """A sender joins and sends a third of the labels."""
    late = np.arange(len(stream)) > len(stream) // 2
    return _plain(stream, source=np.where(late & (rng.random(len(stream)) < 1 / 3), 9, eight(len(stream))))


def merged_senders(stream, rng):
    """Eight senders become two."""
    late = np.arange(len(stream)) > len(stream) // 2
    return _plain(stream, source=np.where(late, eight(len(stream)) % 2 + 1, eight(len(stream))))


def stopped_sender(stream, rng):
    """A sender of an eighth of the labels stops, and nobody takes its place."""
    source = eight(len(stream))
    rows = np.flatnonzero((source != 3) | (np.arange(len(stream)) < len(stream) // 2))
    return Served(rows, source[rows])


def burst_of_a_second_system(stream, rng):
    """A fifth of all labels is kept back for half of the stream, then sent at once by a system of its own."""
    when, second = minutes(len(stream)), rng.random(len(stream)) < 0.2
    half = when[len(stream) // 2]
    return _late(stream, np.where(second, np.maximum(when, half), when), source=np.where(second, 50, eight(len(stream))))


def backfill(stream, rng):
    """A third of the first half's labels was forgotten, and is sent in one go."""
    when = minutes(len(stream))
    half = when[len(stream) // 2]
    return _late(stream, np.where((rng.random(len(stream)) < 1 / 3) & (when < half), half, when))


def a_day_late(stream, rng):
    """Every label is a day late."""
    return _late(stream, minutes(len(stream)) + DAY)


def delay_changes(stream, rng):
    """Labels that came at once are three hours late from the half on."""
    when = minutes(len(stream))
    return _late(stream, when + np.where(when > when[len(stream) // 2], DAY / 8, 0.0))


def split(stream, rng):
    """Each sender has users of its own."""
    return _plain(stream, source=1 + stream.columns[next(iter(stream.columns))].astype(np.int64) % 4)


def day_and_night(stream, rng):
    """At night a fifth of the rows comes, from two of eight senders."""
    day = np.sin(2 * np.pi * minutes(len(stream)) / DAY) > 0
    source = eight(len(stream))
    rows = np.flatnonzero(day | (rng.random(len(stream)) < 0.2))
    return Served(rows, np.where(day, source, source % 2 + 1)[rows])


def weekend(stream, rng):
    """On two days of seven only half of the users come."""
    user = stream.columns[next(iter(stream.columns))].astype(np.int64)
    free = (minutes(len(stream)) / DAY) % 7 >= 5
    return _plain(stream, np.flatnonzero(~free | (user % 2 == 0)))


def promotion(stream, rng):
    """For a tenth of the stream positives are twice as frequent."""
    drop = _middle(stream) & (stream.label == 0) & (rng.random(len(stream)) < 0.5)
    return _plain(stream, np.flatnonzero(~drop))


def season(stream, rng):
    """The odds of a positive rise and fall by a factor of three, twice in the stream."""
    wave = 0.5 + 0.5 * np.sin(4 * np.pi * np.arange(len(stream)) / len(stream))
    keep = np.where(stream.label > 0, 1 - wave * 2 / 3, 1 / 3 + wave * 2 / 3)
    return _plain(stream, np.flatnonzero(rng.random(len(stream)) < keep))


def outage(stream, rng):
    """The labels of a twentieth of the stream come at its end, all at once."""
    when, out = minutes(len(stream)), _middle(stream, 0.05)
    return _late(stream, np.where(out, when[out].max(), when))


def duplicates(stream, rng):
    """A fifth of the rows is scored and labelled twice."""
    return _plain(stream, np.repeat(np.arange(len(stream)), 1 + (rng.random(len(stream)) < 0.2)))


def replayed(stream, rng):
    """A twentieth of the stream is scored and labelled again."""
    cut = int(0.6 * len(stream))
    again = np.flatnonzero(_middle(stream, 0.05))
    return _plain(stream, np.concatenate([np.arange(cut), again, np.arange(cut, len(stream))]))


def negatives_nightly(stream, rng):
    """Positives come at once, negatives at midnight."""
    when = minutes(len(stream))
    return _late(stream, np.where(stream.label > 0, when, np.ceil((when + 1) / DAY) * DAY))


def negatives_from_another(stream, rng):
    """One system sends the positives, another the negatives."""
    return _plain(stream, source=np.where(stream.label > 0, 1, 2).astype(np.int64))


def silence(stream, rng):
    """Only positives are sent, within an hour; the rest is negative after two."""
    return _late(
        stream, minutes(len(stream)) + 3_600 * rng.random(len(stream)), joiner={"labels": "silence", "window_seconds": 7_200.0}
    )


def sampled_negatives(stream, rng):
    """As `silence`, and a fifth of the negatives is kept."""
    done = silence(stream, rng)
    return replace(done, joiner=done.joiner | {"keep_negatives": 0.2})


def new_items(stream, rng):
    """A fifth of the items comes in the second half alone, where their rows are then frequent."""
    item = stream.columns[list(stream.columns)[min(1, len(stream.columns) - 1)]].astype(np.int64)
    new = (item % 5 == 0) & (np.arange(len(stream)) < len(stream) // 2)
    second = np.arange(len(stream) // 2, len(stream))
    into = np.sort(rng.integers(0, len(second) + 1, int(new.sum())))
    return _plain(
        stream,
        np.concatenate(
            [np.flatnonzero(~new)[: (~new[: len(stream) // 2]).sum()], np.insert(second, into, np.flatnonzero(new))]
        ),
    )


def new_country(stream, rng):
    """A sender with a quarter of the users joins at the half; their odds are a third."""
    user = stream.columns[next(iter(stream.columns))].astype(np.int64)
    new, late = user % 4 == 0, np.arange(len(stream)) > len(stream) // 2
    keep = ~new | (late & ((stream.label == 0) | (rng.random(len(stream)) < 1 / 3)))
    rows = np.flatnonzero(keep)
    return Served(rows, np.where(new, 9, eight(len(stream)))[rows])


def new_base(stream, rng):
    """The base is replaced by one that is a logit too high, and the journal is learned again."""
    return _plain(stream, shift=1.0)


def swapped_base(stream, rng):
    """The base is replaced by one that is a logit too high, in mid-stream."""
    return _plain(stream, shift=np.where(np.arange(len(stream)) > len(stream) // 2, 1.0, 0.0))


def cold_start(stream, rng):
    """A service begins: 1,500 rows, half of the labels a day late."""
    rows = np.arange(1_500)
    return _late(stream, minutes(1_500) + DAY * (rng.random(1_500) < 0.5), rows)


OPERATIONS = (
    nothing, one_sender, requests, late_sender, nightly_sender, token_rotation, added_sender, merged_senders, stopped_sender,
    burst_of_a_second_system, backfill, a_day_late, delay_changes, split, day_and_night, weekend, promotion, season, outage,
    duplicates, replayed, negatives_nightly, negatives_from_another, silence, sampled_negatives, new_items, new_country,
    new_base, swapped_base, cold_start,
)  # fmt: skip
