"""Evidence: the kernel that adds examples to each sender's evidence of harm, one by one."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import types

from riverdelta.core.feedback import MOST_WEIGHT

#: Examples between two decisions: whether the next ones may be learned changes at multiples of this number alone.
CHECK = 128
#: Senders that are tested one by one; `REST` is all others together, and the place `EVERYBODY` all senders.
SENDERS = 32
EVERYBODY, REST = 0, SENDERS + 1
#: Nats a row by which a sender's labels may lose more than the others'; the stakes are on the excess over it.
MARGIN = 0.05
STAKES = (1 / 16, 1 / 4)
#: The evidence that trips, and so the least mean number of examples between false alarms.
RUN_LENGTH = 1e7
#: The weights that count as one example, each in evidence of its own; heavier ones count as one too, lighter ones as a part.
SCALES = (1.0, MOST_WEIGHT)
#: Where evidence stops growing.
MOST = 4.0 * RUN_LENGTH
#: The latest examples of each label that are remembered, and the fewest of other senders by which a sender is tested.
LATEST_ROWS, LEAST_OTHERS = 64, 8
#: A run of one label is tested once 8 have ended; it trips at 1,000 rows, if 20 of the other label were expected.
LEAST_ENDS, LEAST_ROWS, LEAST_EXPECTED = 8.0, 1_000, 20.0
#: What part of the base's expectation the corrected scores must share.
LEAST_SHARE = 1 / 16
#: How many times the longest run that an operator had learned is normal afterwards.
NORMAL = 4
#: Rows of a label after which older runs count half.
REMEMBERED = 100_000.0
#: Why it tripped.
HARM, RUN = 0, 1

#: The evidence about one sender, or about all.
PLACE = np.dtype(
    [
        ("source", np.int64),
        ("evidence", np.float64, len(STAKES)),  # of harm, for each stake; every example counts as one
        ("weighted", np.float64, (len(SCALES), len(STAKES))),  # the same by weight, for each scale
        ("label", np.int64), ("run", np.int64),  # of this run
        ("expected", np.float64), ("foreseen", np.float64),  # labels of another kind in it, by the base and as corrected
        ("since", np.int64), ("mass", np.float64),  # examples in which more than the margin was lost, and their weight
        ("excess", np.float64),  # and how much more, by weight
    ]
)  # fmt: skip
#: The runs of one label that have ended, of one sender or of all: their rows, their number, and the longest that was normal.
RUNS = np.dtype([("rows", np.float64), ("ends", np.float64), ("longest", np.int64)])
#: The fields that are not negative.
COUNTS = ("run", "expected", "foreseen", "rows", "ends", "longest", "since", "mass", "excess")
#: The breaker itself: examples, whether it is open and since which, its trips, and the cause of the last.
TALLY = np.dtype([(name, np.int64) for name in ("examples", "open", "opened", "trips", "why", "place", "senders")])
#: The latest examples of a label: how many so far, in whose place, and what they lost.
LATEST = np.dtype([("count", np.int64), ("place", np.int64, LATEST_ROWS), ("loss", np.float64, LATEST_ROWS)])

_Place, _Run, _Tally, _Latest = (numba.from_dtype(dtype) for dtype in (PLACE, RUNS, TALLY, LATEST))
_Places, _Runs, _ByLabel = types.Array(_Place, 1, "C"), types.Array(_Run, 2, "C"), types.Array(_Run, 1, "C")
_Bools, _Doubles = types.boolean[::1], types.float64[::1]
_SIGNATURE = types.int64(
    types.int64, types.int64[::1], *[_Doubles] * 3, types.float32[::1], types.int64[::1], _Bools, _Bools,
    types.Array(_Tally, 1, "C"), _Places, _Runs, types.Array(_Latest, 1, "C"), _Bools,
)  # fmt: skip


@numba.njit("float64(float64)", inline="always")
def _softplus(z):  # type: ignore[no-untyped-def]
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


@numba.njit(types.float64(types.int64, types.float64, _Latest), cache=True)
def _above(place, loss, same):  # type: ignore[no-untyped-def]
    """Return what an example lost, less what the latest of its label from other senders lost; NaN without enough of them."""
    total, many = 0.0, 0
    for j in range(min(same.count, LATEST_ROWS)):
        if same.place[j] != place:
            total += same.loss[j]
            many += 1
    return loss - max(total / many, 0.0) if many >= LEAST_OTHERS else math.nan


@numba.njit(types.void(*[types.float32[::1]] * 4, types.int64[::1], *[_Doubles] * 3, _Bools), cache=True)
def of_logits(base, corrected, label, weight, which, lost, chance, foreseen, good):  # type: ignore[no-untyped-def]
    """Fill the facts of examples with labels 0 and 1, N each: label, loss above the base's, chances of the other label."""
    for i in range(label.shape[0]):
        b, c = np.float64(base[i]), np.float64(corrected[i])
        good[i] = math.isfinite(b) and math.isfinite(c) and math.isfinite(weight[i])
        if good[i]:
            which[i] = 1 if label[i] > 0.5 else 0
            side = 2.0 * which[i] - 1.0
            lost[i] = min(max(weight[i] * (_softplus(-side * c) - _softplus(-side * b)), -1.0), 1.0)
            chance[i] = 1.0 / (1.0 + math.exp(min(side * b, 700.0)))
            foreseen[i] = 1.0 / (1.0 + math.exp(min(side * c, 700.0)))


@numba.njit(types.void(_Place, _ByLabel, types.float64, types.float64, types.int64, types.float64, types.float64), cache=True)
def _add(p, runs, loss, weight, y, chance, corrected):  # type: ignore[no-untyped-def]
    """Add an example of label y: what it lost (NaN: it is not tested), and another label's chance by base and `corrected`."""
    if not math.isnan(loss):
        p.excess = max(p.excess + weight * (loss - MARGIN), 0.0)
        p.since = p.since + 1 if p.excess > 0.0 else 0
        p.mass = p.mass + weight if p.excess > 0.0 else 0.0
        for k in range(len(STAKES)):
            p.evidence[k] = min((p.evidence[k] + 1.0) * (1.0 + STAKES[k] * (loss - MARGIN)), MOST)
            for j in range(len(SCALES)):
                w = min(weight / SCALES[j], 1.0)
                p.weighted[j, k] = min((p.weighted[j, k] + w) * (1.0 + STAKES[k] * w * (loss - MARGIN)), MOST)
    if y != p.label or p.run == 0:
        if p.run > 0:
            ended = runs[p.label]
            ended.ends += 1.0
            ended.rows += p.run
            ended.longest = max(ended.longest, p.run)
            if ended.rows > REMEMBERED:
                ended.rows *= 0.5
                ended.ends *= 0.5
        p.label, p.run, p.expected, p.foreseen = y, 0, 0.0, 0.0
    p.run += 1
    p.expected += chance
    p.foreseen += corrected


@numba.njit(types.float64(_Place, _Run), cache=True)
def ends_expected(p, ended):  # type: ignore[no-untyped-def]
    """Return how many labels of another kind were expected in the current run: by the base, or as usual if that is less."""
    ends, rows = ended.ends, ended.rows
    return min(p.expected, p.run * (ends + 3.0 * math.sqrt(ends)) / rows) if ends >= LEAST_ENDS else 0.0


@numba.njit(types.void(_Tally, _Places, _Runs), cache=True)
def _decide(s, places, runs):  # type: ignore[no-untyped-def]
    for k in range(len(places)):
        p = places[k]
        ended = runs[k, p.label]
        run = p.run >= LEAST_ROWS and ends_expected(p, ended) >= LEAST_EXPECTED and p.run > ended.longest
        run = run and p.foreseen >= LEAST_SHARE * p.expected
        harm = np.mean(p.evidence) >= RUN_LENGTH
        for j in range(len(SCALES)):
            harm = harm or np.mean(p.weighted[j]) >= RUN_LENGTH
        if run or harm:
            s.open, s.opened, s.why, s.place = 1, s.examples, RUN if run else HARM, k
            s.trips += 1
            return


@numba.njit(types.int64(_Tally, _Places, types.int64), cache=True)
def _place(s, places, source):  # type: ignore[no-untyped-def]
    for k in range(1, s.senders + 1):
        if places[k].source == source:
            return k
    if s.senders == SENDERS:
        return REST
    s.senders += 1
    places[s.senders].source = source
    return s.senders


@numba.njit(_SIGNATURE, cache=True)
def watch(  # type: ignore[no-untyped-def]
    first, label, lost, chance, foreseen, sent, source, good, admitted, tally, places, runs, latest, out
):
    """Observe examples from number `first` on in order, up to a trip; return the number of the next. `Breaker` has the rules.

    What a row `lost` counts with the weight `sent`; one of 0 is not observed. out[i] is whether example i may be learned. While
    it is open it only counts runs, up to the last example.
    """
    s = tally[0]
    was = s.open
    for i in range(first, label.shape[0]):
        out[i] = s.open == 0
        s.examples += 1
        if good[i] and sent[i] > 0.0:
            y, loss = label[i], lost[i]
            place, same = _place(s, places, source[i]), latest[y]
            _add(places[EVERYBODY], runs[EVERYBODY], math.nan, 1.0, y, chance[i], foreseen[i])
            tested = admitted[i] and not was
            above = _above(place, loss, same) if tested else math.nan
            _add(places[place], runs[place], above, sent[i], y, chance[i], foreseen[i])
            if tested:
                at = same.count % LATEST_ROWS
                same.place[at], same.loss[at] = place, loss
                same.count += 1
        if not was and s.examples % CHECK == 0:
            _decide(s, places, runs)
            if s.open:
                return i + 1
    return label.shape[0]
