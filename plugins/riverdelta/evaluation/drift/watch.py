"""Watch: the kernel that takes the drift's statistics, example by example, and bets at each block's end."""

from __future__ import annotations

import numba
import numpy as np

from riverdelta.core.hashing import mixed
from riverdelta.core.log_loss import log_loss, score
from riverdelta.evaluation.drift.panel import bet

#: Examples of a block; bins of a histogram, of which numbers use the first `DECILES`.
BLOCK, BINS, DECILES = 64, 32, 10
#: The losses that are watched: log loss, score above label, score below it.
LOSSES = 3
#: The largest log loss that counts, in nats: lower than elsewhere, because the panel bets on shares of the full range.
MOST = 4.0
#: Whole numbers: examples seen, of them those in this stretch of reference or watching, whether it watches, blocks watched,
#: whether the last block raised the alarm, windows passed over since the last reference.
EXAMPLES, TAKEN, WATCHING, BLOCKS, ALARM, TRIES = range(6)

_SIGNATURE = (
    "int64(int64, float32[:, ::1], boolean[::1], float32[::1], float32[::1], float64, int64[::1], float32[:, ::1],"
    " float64[:, ::1], float32[:, ::1], int64[::1], int64[:, ::1], int64[:, ::1], int32[:, :, ::1], float64[::1],"
    " float64[::1], float64[::1], float64[::1], float64[:, ::1], float64[::1])"
)


_mixed = numba.njit(inline="always")(mixed)


@numba.njit("void(int64[::1], float32[::1])", cache=True)
def bins_of_ids(ids, out):  # type: ignore[no-untyped-def]
    """Give each id one of 32 bins, from its hash: a sketch of how often ids occur, of one row."""
    for i in range(ids.shape[0]):
        out[i] = np.float32(_mixed(ids[i]) >> np.uint64(59))


@numba.njit("void(float32[:, ::1], float32[::1])", cache=True)
def lengths(rows, out):  # type: ignore[no-untyped-def]
    """Write the Euclidean length of each row."""
    for i in range(rows.shape[0]):
        square = np.float32(0.0)
        for d in range(rows.shape[1]):
            square += rows[i, d] * rows[i, d]
        out[i] = np.sqrt(square)


@numba.njit("void(int64, float32[:, ::1], boolean[::1], float32[:, ::1], uint8[:, ::1])", cache=True)
def bins_of(begin, values, is_id, edges, out):  # type: ignore[no-untyped-def]
    """Write each value's bin from row `begin` on: an id's own, or how many edges a number lies above (no number: 0's)."""
    for c in range(values.shape[0]):
        if is_id[c]:
            for i in range(begin, values.shape[1]):
                out[c, i] = np.uint8(values[c, i])
            continue
        e0, e1, e2, e3, e4, e5, e6, e7, e8 = (
            edges[c, 0], edges[c, 1], edges[c, 2], edges[c, 3], edges[c, 4], edges[c, 5], edges[c, 6], edges[c, 7], edges[c, 8]
        )  # fmt: skip
        # Without a loop and without a branch, so that eight rows go at once.
        for i in range(begin, values.shape[1]):
            v = values[c, i]
            v = v if v == v else np.float32(0.0)
            low = np.uint8(v > e0) + np.uint8(v > e1) + np.uint8(v > e2) + np.uint8(v > e3)
            high = np.uint8(v > e4) + np.uint8(v > e5) + np.uint8(v > e6) + np.uint8(v > e7) + np.uint8(v > e8)
            out[c, i] = np.uint8(low + high)


@numba.njit(_SIGNATURE, cache=True)
def watch(  # type: ignore[no-untyped-def]
    begin, values, is_id, served, label, run_length, n, kept, losses, edges, alarmed, counts, now, ring, sums, x, bound, weight,
    wealth, shares,
):  # fmt: skip
    """Take rows from `begin` on; return the row after the last one taken: all, or the reference's last, or the alarm's.

    `alarmed` are the columns that the panel bets on, after its losses. `kept` and `losses` are the reference's values and
    block means, `ring` and `now` the histograms of the last blocks, one by one and together.
    """
    columns = values.shape[0]
    rows, size = label.shape[0], kept.shape[1]
    bins = np.empty((columns, rows if n[WATCHING] else 0), np.uint8)
    if n[WATCHING]:
        bins_of(begin, values, is_id, edges, bins)
    for i in range(begin, rows):
        z, y = np.float64(served[i]), np.float64(label[i])
        off = 0.0
        if z - z == 0.0 and (y == 0.0 or y == 1.0):  # a logit that is a number
            sums[0] += min(log_loss(z, y), MOST) / MOST
            off = score(z) - y
        sums[1] += (1.0 + off) / 2.0
        sums[2] += (1.0 - off) / 2.0
        n[EXAMPLES] += 1
        n[TAKEN] += 1
        if n[WATCHING] == 0:
            for c in range(columns):
                kept[c, n[TAKEN] - 1] = values[c, i]
            if n[TAKEN] % BLOCK == 0:
                for k in range(LOSSES):
                    losses[n[TAKEN] // BLOCK - 1, k] = sums[k] / BLOCK
                    sums[k] = 0.0
                if n[TAKEN] == size:
                    return i + 1
            continue
        for c in range(columns):
            counts[c, bins[c, i]] += 1
        if n[TAKEN] % BLOCK == 0:
            for k in range(LOSSES):
                x[k] = sums[k] / BLOCK
                sums[k] = 0.0
            k = LOSSES
            for a in range(alarmed.shape[0]):
                for b in range(DECILES):
                    x[k] = counts[alarmed[a], b] / BLOCK
                    k += 1
            place = n[BLOCKS] % ring.shape[0]
            for c in range(columns):
                for b in range(BINS):
                    now[c, b] += counts[c, b] - ring[place, c, b]
                    ring[place, c, b] = counts[c, b]
                    counts[c, b] = 0
            n[BLOCKS] += 1
            if bet(x, bound, weight, shares, wealth) >= run_length:
                n[ALARM] = 1
                return i + 1
    return rows
