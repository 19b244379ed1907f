"""Watch: the kernel that takes the breaker's four statistics, example by example."""

from __future__ import annotations

import math

import numba
import numpy as np

from riverdelta.core.hashing import mixed
from riverdelta.learning.breaker.usual import BEYOND, COUNT, LEAST, MEAN, judge, step_at
from riverdelta.learning.breaker.usual import REACH as HALF_WIDTH

#: Examples of a window, and of one of scored rows; runs that a window of labels holds at least. Nothing opens it in `WARM_UP`.
WINDOW, WIDE, LEAST_RUNS = 256, 1024, 32
WARM_UP = WINDOW * LEAST
#: The examples after which a run of one label is begun anew: a label rarer than 1 in 400 is never missed.
LONGEST = 8192
#: The surprise, in nats, at which a run of one label is too long, and what one example adds at the most: as a fair coin.
TOO_LONG, COIN = 20.0, math.log(2.0)
#: The effective examples over which the length of runs is remembered, and the distinct ids of what is no mere category.
MEMORY, CATEGORY = 8000.0, 32
#: What a statistic must move by at least: radians of arcsin √rate, the log of labels a scored row, shares.
FLOOR_RATE, FLOOR_FEEDBACK, FLOOR_SOURCE, FLOOR_UNKNOWN = 0.25, math.log(3.0), 0.2, 0.2
#: Counters of entities in a run, bits of ids ever seen (two planes of so many), and counters of sources.
SLOTS, WORDS, SOURCES = 4096, 1 << 14, 128
#: The rows of the series; `UNKNOWN` + k is that of key k.
RATE, FEEDBACK, SOURCE, UNKNOWN = range(4)
#: What opened the breaker last is a row of the series, or this for a run of one label.
RUN = -1
#: Whole numbers: examples; whether it is open, since which example, how often it has opened; calm examples in a row; series
#: beyond their range; the run's label, rows and number; sourced examples of this window, and the example of the last one's
#: end; scored rows; positives, rows and runs of this window of labels, and the rows of the last; what opened it, over how
#: many examples, and which source; examples let pass before it began to watch, and whether it has.
(EXAMPLES, OPEN, OPENED, TRIPS, CALM, ALARMS, LABEL, ROWS, NUMBER, SENT, SENT_AT, SCORED, POSITIVES,
 LABELS, RUNS, LABELS_BEFORE, WHY, OVER, WHO, BEFORE, BEGUN) = range(21)  # fmt: skip
TALLIES = 21
#: Real numbers: effective length and number of all runs of 0 and of 1, and those of this window; the surprise of one more
#: 0 and of one more 1; that of this run and of the longest usual one; the value that opened it, what was usual, and how far
#: from it was.
(LENGTH_0, LENGTH_1, ENDS_0, ENDS_1, NEW_LENGTH_0, NEW_LENGTH_1, NEW_ENDS_0, NEW_ENDS_1, COST_0, COST_1, SURPRISE, USUAL_RUN,
 VALUE, USUAL, REACH) = range(15)  # fmt: skip
LEVELS = 15
#: Of each key: bits set in the younger plane, distinct ids, unknown ids in this window.
FILLED, DISTINCT, NEW = range(3)
FACTS = 3

_SIGNATURE = (
    "void(int64[:, ::1], float32[::1], int64[::1], int64, int64[::1], float64[::1], float64[:, ::1], int64[:, ::1],"
    " int64[:, ::1], uint64[:, :, ::1], int64[:, ::1], float64[::1], boolean[::1])"
)
_mixed = numba.njit(inline="always")(mixed)


@numba.njit("float64(float64)", cache=True)
def limit(usual_run):  # type: ignore[no-untyped-def]
    """The surprise at which a run is too long: `TOO_LONG`, and more where longer ones have been usual."""
    return max(TOO_LONG, 2.0 * usual_run - TOO_LONG)


@numba.njit("void(int64[::1], float64[::1], int64, int64, int64, float64, float64, float64)", cache=True)
def _trip(n, r, why, over, who, value, usual, reach):  # type: ignore[no-untyped-def]
    n[CALM] = 0
    if n[OPEN] == 0:
        n[OPEN], n[OPENED] = 1, n[EXAMPLES]
        n[TRIPS] += 1
        n[WHY], n[OVER], n[WHO], r[VALUE], r[USUAL], r[REACH] = why, over, who, value, usual, reach


@numba.njit("void(int64[::1], float64[::1])", cache=True)
def _end_run(n, r):  # type: ignore[no-untyped-def]
    """Learn how surprising runs are. One that was too long makes longer ones usual only little by little."""
    most = limit(r[USUAL_RUN])
    if r[SURPRISE] <= most:
        r[USUAL_RUN] = max(r[USUAL_RUN], r[SURPRISE])
    else:
        r[USUAL_RUN] += (min(r[SURPRISE], 2.0 * most) - r[USUAL_RUN]) / 8.0


@numba.njit("void(int64[::1], float64[::1], float64[:, ::1], int64, int64, int64, float64, float64, boolean)", cache=True)
def _measure(n, r, series, which, over, who, value, floor, both):  # type: ignore[no-untyped-def]
    s = series[which]
    was, usual = s[BEYOND] > 0.0, s[MEAN]
    again = judge(s, value, floor, both, n[OPEN] != 0)
    n[ALARMS] += (s[BEYOND] > 0.0) - was
    if again:
        _trip(n, r, which, over, who, value, usual, s[HALF_WIDTH])


@numba.njit("void(int64[::1], float64[::1], float64[:, ::1], int64[:, ::1], float64[::1])", cache=True)
def _sources(n, r, series, sent, usual):  # type: ignore[no-untyped-def]
    """Measure by how much a single source's share has risen, less the share of one that has fallen silent in its favour."""
    step = step_at(series[SOURCE, COUNT], n[OPEN] != 0)
    rise, gone, which = -1.0, 0.0, 0
    for s in range(SOURCES):
        share = sent[0, s] / WINDOW
        if series[SOURCE, COUNT] == 0.0:
            usual[s] = share
        if share - usual[s] > rise:
            rise, which = share - usual[s], s
        # One that sends 20 labels a window falls silent by chance once in e^20; slot 0 holds those who do not say.
        if sent[0, s] == 0 and s > 0 and usual[s] * WINDOW >= 20.0:
            gone = max(gone, usual[s])
        usual[s] += step * (share - usual[s])
        sent[0, s] = 0
    _measure(n, r, series, SOURCE, 2 * WINDOW, sent[1, which], max(rise - gone, 0.0), FLOOR_SOURCE, False)
    n[SENT], n[SENT_AT] = 0, n[EXAMPLES]


@numba.njit("void(int64[::1], float64[::1], float64[:, ::1], int64[:, ::1], uint64[:, :, ::1])", cache=True)
def _window(n, r, series, ids, seen):  # type: ignore[no-untyped-def]
    """Measure what is measured every `WINDOW` examples."""
    n[LABELS] += WINDOW
    n[RUNS] += int(r[NEW_ENDS_0] + r[NEW_ENDS_1])
    if n[RUNS] >= LEAST_RUNS:
        angle = math.asin(math.sqrt(n[POSITIVES] / n[LABELS]))
        _measure(n, r, series, RATE, n[LABELS_BEFORE] + n[LABELS], 0, angle, FLOOR_RATE, True)
        n[LABELS_BEFORE] = n[LABELS]
        n[LABELS] = n[RUNS] = n[POSITIVES] = 0
    for k in range(ids.shape[0]):
        if n[EXAMPLES] > WARM_UP:  # at first all are unknown
            _measure(n, r, series, UNKNOWN + k, 2 * WINDOW, 0, ids[k, NEW] / WINDOW, FLOOR_UNKNOWN, False)
        ids[k, NEW] = 0
        if 4 * ids[k, FILLED] > 64 * WORDS:
            # Ids met since the younger plane was begun are known on; those met only before it are forgotten.
            seen[k, :, 1] = seen[k, :, 0]
            seen[k, :, 0] = np.uint64(0)
            ids[k, FILLED] = 0
    if n[EXAMPLES] % WIDE == 0:
        labels = math.log((WIDE + 0.5) / (n[SCORED] + 0.5))
        _measure(n, r, series, FEEDBACK, 2 * WIDE, 0, labels, FLOOR_FEEDBACK, True)
        n[SCORED] = 0
    if n[EXAMPLES] - n[SENT_AT] > LONGEST and series[SOURCE, BEYOND] > 0.0:
        series[SOURCE, BEYOND] = 0.0
        n[ALARMS] -= 1
    new, old = r[NEW_LENGTH_0] + r[NEW_LENGTH_1], r[LENGTH_0] + r[LENGTH_1]
    keep = 1.0 - new / MEMORY if old + new > MEMORY else 1.0
    for side in range(4):
        r[LENGTH_0 + side] = r[LENGTH_0 + side] * keep + r[NEW_LENGTH_0 + side]
        r[NEW_LENGTH_0 + side] = 0.0
    for side in range(2):
        # A run of mean length ℓ goes on with probability 1 - 1/ℓ; how long they are is not known before some have ended.
        known = n[EXAMPLES] >= WARM_UP and r[ENDS_0 + side] >= LEAST
        r[COST_0 + side] = min(-math.log1p(-min(r[ENDS_0 + side] / r[LENGTH_0 + side], 0.5)), COIN) if known else 0.0
    r[USUAL_RUN] *= 1.0 - 1.0 / 1024.0


@numba.njit(_SIGNATURE, cache=True)
def watch(columns, label, source, resume, n, r, series, ids, runs, seen, sent, usual, out):  # type: ignore[no-untyped-def]
    """Take M examples in order; see `Breaker` for the rules. out[i] says whether example i may be learned."""
    keys = columns.shape[0]
    # What every row moves lies in locals: stored to an array each time it would cost half as much again.
    examples, run_label, rows, number, positives, sent_rows = n[EXAMPLES], n[LABEL], n[ROWS], n[NUMBER], n[POSITIVES], n[SENT]
    surprise, length_0, length_1 = r[SURPRISE], r[NEW_LENGTH_0], r[NEW_LENGTH_1]
    most_usual, cost_0, cost_1 = limit(r[USUAL_RUN]), r[COST_0], r[COST_1]
    opened = n[OPEN] != 0
    for i in range(label.shape[0]):
        examples += 1
        y = 1 if label[i] > 0.5 else 0
        if y != run_label or rows >= LONGEST:
            if y != run_label:
                r[NEW_ENDS_0 + run_label] += 1.0
            if surprise > r[USUAL_RUN]:
                n[EXAMPLES], r[SURPRISE] = examples, surprise
                _end_run(n, r)
                most_usual = limit(r[USUAL_RUN])
            surprise = 0.0
            rows = 0
            number += 1
            run_label = y
        most = 0
        for k in range(keys):
            h = _mixed(columns[k, i])
            slot = np.int64(h & np.uint64(SLOTS - 1))
            # One counter holds the number of the run (above) and the entity's rows in it (the lower 16 bits).
            held = runs[k, slot]
            here = held & 0xFFFF if held >> 16 == number else 0
            runs[k, slot] = (number << 16) | (here + 1)
            if here > most and (ids[k, DISTINCT] >= CATEGORY or examples <= LONGEST):
                most = here
            word, bit = np.int64(h >> np.uint64(50)), np.uint64(1) << ((h >> np.uint64(44)) & np.uint64(63))
            if not seen[k, word, 0] & bit:
                if not seen[k, word, 1] & bit:
                    ids[k, NEW] += 1
                    ids[k, DISTINCT] += 1
                seen[k, word, 0] |= bit
                ids[k, FILLED] += 1
        w = 1.0 / (math.sqrt(most) + math.sqrt(most + 1.0))
        rows += 1
        surprise += w * (cost_1 if y else cost_0)
        if opened:
            w = 1.0
        positives += y
        length_1 += w * y
        length_0 += w * (1 - y)
        if source[i] != 0 or y:
            slot = np.int64(_mixed(source[i]) & np.uint64(SOURCES - 1))
            sent[0, slot] += 1
            sent[1, slot] = source[i]
            sent_rows += 1
            if sent_rows == WINDOW:
                n[EXAMPLES] = examples
                _sources(n, r, series, sent, usual)
                sent_rows = 0
                opened = n[OPEN] != 0
        if examples & (WINDOW - 1) == 0:
            n[EXAMPLES], n[POSITIVES], r[NEW_LENGTH_0], r[NEW_LENGTH_1] = examples, positives, length_0, length_1
            _window(n, r, series, ids, seen)
            opened = n[OPEN] != 0
            positives, length_0, length_1 = n[POSITIVES], 0.0, 0.0
            most_usual, cost_0, cost_1 = limit(r[USUAL_RUN]), r[COST_0], r[COST_1]
        if surprise > most_usual:
            n[EXAMPLES] = examples
            _trip(n, r, RUN, rows, 0, np.float64(y), r[LENGTH_0 + y] / r[ENDS_0 + y], most_usual)
            opened = True
        elif opened:
            n[CALM] = 0 if n[ALARMS] else n[CALM] + 1
            if 0 < resume <= n[CALM]:
                n[OPEN] = n[CALM] = 0
                opened = False
        out[i] = not opened
    n[EXAMPLES], n[LABEL], n[ROWS], n[NUMBER], n[POSITIVES], n[SENT] = examples, run_label, rows, number, positives, sent_rows
    r[SURPRISE], r[NEW_LENGTH_0], r[NEW_LENGTH_1] = surprise, length_0, length_1
