"""Watch: the kernel that updates the breaker's four statistics and their normal ranges, example by example."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import types

from riverdelta.core.hashing import mixed

#: A statistic: its running mean and variance, the largest deviation accepted as normal, measurements, how many in a row were
#: out of range, and the last value with the range's half width at that time.
SERIES = np.dtype([(name, np.float64) for name in ("mean", "variance", "most", "count", "beyond", "value", "reach")])
#: Measurements before the range is used, and over which it is remembered.
LEAST, REMEMBERED = 8, 256.0
#: The range in deviations, and in multiples of the largest normal one; the most deviations that a measurement counts for.
DEVIATIONS, OVER, CLIP = 6.0, 1.5, 3.0
#: The factor by which the largest deviation decays at each measurement.
_KEEP = 1.0 - 1.0 / 1024.0
#: Examples of a window, and of one of scored rows; the fewest runs in a window of labels; nothing trips it in `WARM_UP`.
WINDOW, WIDE, LEAST_RUNS = 256, 1024, 32
WARM_UP = WINDOW * LEAST
#: The examples after which a run of one label starts over: the absence of a label rarer than 1 in 400 is not detected.
LONGEST = 8192
#: The surprise, in nats, at which a run of one label is too long, and the most that one example adds: as a fair coin.
TOO_LONG, COIN = 20.0, math.log(2.0)
#: The effective examples over which the length of runs is remembered, and the distinct ids from which a key is not a category.
MEMORY, CATEGORY = 8000.0, 32
#: The least shift of a statistic that counts: in radians of arcsin √rate, log of labels per scored row, shares.
FLOOR_RATE, FLOOR_FEEDBACK, FLOOR_SOURCE, FLOOR_UNKNOWN = 0.25, math.log(3.0), 0.2, 0.2
#: Counters of entities in a run, bits of each of the two planes of known ids, and counters of sources.
SLOTS, WORDS, SOURCES = 4096, 1 << 14, 128
#: The rows of the series; `UNKNOWN` + k is that of key k.
RATE, FEEDBACK, SOURCE, UNKNOWN = range(4)
#: The cause of the last trip is a row of the series, or this for a run of one label.
RUN = -1
#: The state's integers.
TALLIES = (
    "examples",
    "open", "opened", "trips",  # whether it is tripped, since which example, how often it has tripped
    "calm", "alarms",  # normal examples in a row, series out of range
    "label", "rows", "number",  # of this run
    "sent", "sent_at",  # sourced examples of this window, and the example of the last one's end
    "scored",
    "positives", "labels", "runs", "labels_before",  # of this window of labels, and the rows of the last
    "why", "over", "who",  # the cause of the trip, over how many examples, and which source
    "before", "begun",  # examples admitted before it began to watch, and whether it has
)  # fmt: skip
#: The state's real numbers; pairs are by label.
LEVELS = (
    ("length", np.float64, 2), ("ends", np.float64, 2),  # effective length and number of all runs
    ("new_length", np.float64, 2), ("new_ends", np.float64, 2),  # those of this window
    ("cost", np.float64, 2),  # the surprise of one more row
    ("surprise", np.float64), ("usual_run", np.float64),  # of this run, and of the longest normal one
    ("value", np.float64), ("usual", np.float64), ("reach", np.float64),  # the value at the trip, the normal one, and its range
)  # fmt: skip
STATE = np.dtype([*((name, np.int64) for name in TALLIES), *LEVELS])
#: By key: bits set in the newer plane, distinct ids, unknown ids in this window.
FACTS = np.dtype([(name, np.int64) for name in ("filled", "distinct", "new")])

_State, _Series, _Facts = (numba.from_dtype(dtype) for dtype in (STATE, SERIES, FACTS))
_List = types.Array(_Series, 1, "C")
_SIGNATURE = types.void(
    types.int64[:, ::1], types.float32[::1], types.int64[::1], types.int64, types.Array(_State, 1, "C"), _List,
    types.Array(_Facts, 1, "C"), types.int64[:, ::1], types.uint64[:, :, ::1], types.int64[:, ::1], types.float64[::1],
    types.boolean[::1],
)  # fmt: skip
_mixed = numba.njit(inline="always")(mixed)


@numba.njit("float64(float64, boolean)", cache=True)
def step_at(count, slow):  # type: ignore[no-untyped-def]
    """Return the weight of the next measurement: that of a mean, and never less than 1/256."""
    return 1.0 / (REMEMBERED if slow else min(count + 1.0, REMEMBERED))


@numba.njit(numba.types.boolean(numba.from_dtype(SERIES), *[numba.float64] * 2, *[numba.boolean] * 2), cache=True)
def out_of_range(s, value, floor, both, slow):  # type: ignore[no-untyped-def]
    """Add `value` to a statistic, update its range, and return whether it is the second in a row out of range.

    With mean m, deviation σ >= floor/6 and M the largest normal deviation, x is out of range if |x - m| > max(6σ, 1.5M) (x - m
    without `both`). It is learned as m + clip(x - m, ±3σ) over the last 256 measurements, in range or not: one outlier changes
    little, and a lasting change becomes normal. With `slow` each has the small weight of a long stream.

    A deviation counts for M only once the next one was in range too: the window in which a change begins contains only a part
    of it, and would extend the range for the windows that contain all of it.
    """
    count = s.count
    if count == 0.0:
        s.mean = value
    before = s.value - s.mean
    off = value - s.mean
    size = abs(off) if both else off
    scale = max(math.sqrt(s.variance), floor / DEVIATIONS)
    s.value, s.reach = value, max(DEVIATIONS * scale, OVER * s.most)
    if count >= LEAST:
        if size > s.reach:
            s.beyond += 1.0
        else:
            usual = s.beyond == 0.0 and count > LEAST
            s.most = max(s.most * _KEEP, (abs(before) if both else before) if usual else 0.0)
            s.beyond = 0.0
        off = min(max(off, -CLIP * scale), CLIP * scale)
    step = step_at(count, slow)
    s.mean += step * off
    s.variance = (1.0 - step) * (s.variance + step * off * off)
    s.count = count + 1.0
    return s.beyond >= 2.0


@numba.njit("float64(float64)", cache=True)
def limit(usual_run):  # type: ignore[no-untyped-def]
    """Return the surprise at which a run is too long: `TOO_LONG`, or more if longer runs have been normal."""
    return max(TOO_LONG, 2.0 * usual_run - TOO_LONG)


@numba.njit(types.void(_State, *[types.int64] * 3, *[types.float64] * 3), cache=True)
def _trip(s, why, over, who, value, usual, reach):  # type: ignore[no-untyped-def]
    s.calm = 0
    if s.open == 0:
        s.open, s.opened = 1, s.examples
        s.trips += 1
        s.why, s.over, s.who, s.value, s.usual, s.reach = why, over, who, value, usual, reach


@numba.njit(types.void(_State), cache=True)
def _end_run(s):  # type: ignore[no-untyped-def]
    """Learn how surprising runs are; one that was too long makes longer ones normal only gradually."""
    most = limit(s.usual_run)
    if s.surprise <= most:
        s.usual_run = max(s.usual_run, s.surprise)
    else:
        s.usual_run += (min(s.surprise, 2.0 * most) - s.usual_run) / 8.0


@numba.njit(types.void(_State, _List, *[types.int64] * 3, *[types.float64] * 2, types.boolean), cache=True)
def _measure(s, series, which, over, who, value, floor, both):  # type: ignore[no-untyped-def]
    found = series[which]
    was, usual = found.beyond > 0.0, found.mean
    again = out_of_range(found, value, floor, both, s.open != 0)
    s.alarms += (found.beyond > 0.0) - was
    if again:
        _trip(s, which, over, who, value, usual, found.reach)


@numba.njit(types.void(_State, _List, types.int64[:, ::1], types.float64[::1]), cache=True)
def _sources(s, series, sent, usual):  # type: ignore[no-untyped-def]
    """Measure how much a single source's share has risen, less the share of a source that has stopped."""
    step = step_at(series[SOURCE].count, s.open != 0)
    rise, gone, which = -1.0, 0.0, 0
    for k in range(SOURCES):
        share = sent[0, k] / WINDOW
        if series[SOURCE].count == 0.0:
            usual[k] = share
        if share - usual[k] > rise:
            rise, which = share - usual[k], k
        # A source of 20 labels a window stops by chance once in e^20; slot 0 is for unknown senders.
        if sent[0, k] == 0 and k > 0 and usual[k] * WINDOW >= 20.0:
            gone = max(gone, usual[k])
        usual[k] += step * (share - usual[k])
        sent[0, k] = 0
    _measure(s, series, SOURCE, 2 * WINDOW, sent[1, which], max(rise - gone, 0.0), FLOOR_SOURCE, False)
    s.sent, s.sent_at = 0, s.examples


@numba.njit(types.void(_State, _List, types.Array(_Facts, 1, "C"), types.uint64[:, :, ::1]), cache=True)
def _window(s, series, ids, seen):  # type: ignore[no-untyped-def]
    """Update the statistics that are measured every `WINDOW` examples."""
    s.labels += WINDOW
    s.runs += int(s.new_ends[0] + s.new_ends[1])
    if s.runs >= LEAST_RUNS:
        angle = math.asin(math.sqrt(s.positives / s.labels))
        _measure(s, series, RATE, s.labels_before + s.labels, 0, angle, FLOOR_RATE, True)
        s.labels_before = s.labels
        s.labels = s.runs = s.positives = 0
    for k in range(ids.shape[0]):
        if s.examples > WARM_UP:  # initially all ids are unknown
            _measure(s, series, UNKNOWN + k, 2 * WINDOW, 0, ids[k].new / WINDOW, FLOOR_UNKNOWN, False)
        ids[k].new = 0
        if 4 * ids[k].filled > 64 * WORDS:
            # Ids observed since the newer plane was started stay known; those observed only before it are dropped.
            seen[k, :, 1] = seen[k, :, 0]
            seen[k, :, 0] = np.uint64(0)
            ids[k].filled = 0
    if s.examples % WIDE == 0:
        labels = math.log((WIDE + 0.5) / (s.scored + 0.5))
        _measure(s, series, FEEDBACK, 2 * WIDE, 0, labels, FLOOR_FEEDBACK, True)
        s.scored = 0
    if s.examples - s.sent_at > LONGEST and series[SOURCE].beyond > 0.0:
        series[SOURCE].beyond = 0.0
        s.alarms -= 1
    new, old = s.new_length[0] + s.new_length[1], s.length[0] + s.length[1]
    keep = 1.0 - new / MEMORY if old + new > MEMORY else 1.0
    for y in range(2):
        s.length[y] = s.length[y] * keep + s.new_length[y]
        s.ends[y] = s.ends[y] * keep + s.new_ends[y]
        s.new_length[y] = s.new_ends[y] = 0.0
        # A run of mean length ℓ continues with probability 1 - 1/ℓ; the length is unknown before some runs have ended.
        known = s.examples >= WARM_UP and s.ends[y] >= LEAST
        s.cost[y] = min(-math.log1p(-min(s.ends[y] / s.length[y], 0.5)), COIN) if known else 0.0
    s.usual_run *= 1.0 - 1.0 / 1024.0


@numba.njit(_SIGNATURE, cache=True)
def watch(columns, label, source, resume, state, series, ids, runs, seen, sent, usual, out):  # type: ignore[no-untyped-def]
    """Observe M examples in order; see `Breaker` for the rules. out[i] is whether example i may be learned."""
    s = state[0]
    for i in range(label.shape[0]):
        s.examples += 1
        y = 1 if label[i] > 0.5 else 0
        if y != s.label or s.rows >= LONGEST:
            if y != s.label:
                s.new_ends[s.label] += 1.0
            if s.surprise > s.usual_run:
                _end_run(s)
            s.surprise, s.rows, s.label = 0.0, 0, y
            s.number += 1
        most = 0
        for k in range(columns.shape[0]):
            h = _mixed(columns[k, i])
            slot = np.int64(h & np.uint64(SLOTS - 1))
            # One counter packs the number of the run (upper bits) and the entity's rows in it (the lower 16 bits).
            held = runs[k, slot]
            here = held & 0xFFFF if held >> 16 == s.number else 0
            runs[k, slot] = (s.number << 16) | (here + 1)
            if here > most and (ids[k].distinct >= CATEGORY or s.examples <= LONGEST):
                most = here
            word, bit = np.int64(h >> np.uint64(50)), np.uint64(1) << ((h >> np.uint64(44)) & np.uint64(63))
            if not seen[k, word, 0] & bit:
                if not seen[k, word, 1] & bit:
                    ids[k].new += 1
                    ids[k].distinct += 1
                seen[k, word, 0] |= bit
                ids[k].filled += 1
        w = 1.0 / (math.sqrt(most) + math.sqrt(most + 1.0))
        s.rows += 1
        s.surprise += w * s.cost[y]
        s.positives += y
        s.new_length[y] += 1.0 if s.open else w
        if source[i] != 0 or y:
            slot = np.int64(_mixed(source[i]) & np.uint64(SOURCES - 1))
            sent[0, slot] += 1
            sent[1, slot] = source[i]
            s.sent += 1
            if s.sent == WINDOW:
                _sources(s, series, sent, usual)
        if s.examples % WINDOW == 0:
            _window(s, series, ids, seen)
        if s.surprise > limit(s.usual_run):
            _trip(s, RUN, s.rows, 0, np.float64(y), s.length[y] / s.ends[y], limit(s.usual_run))
        elif s.open:
            s.calm = 0 if s.alarms else s.calm + 1
            if 0 < resume <= s.calm:
                s.open = s.calm = 0
        out[i] = not s.open
