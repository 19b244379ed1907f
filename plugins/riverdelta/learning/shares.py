"""Shares: limits how much of what is learned comes from one sender."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, take
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Floats, Ints
from riverdelta.core.hashing import GOLDEN

#: Accounts of senders, a power of 2; one more is that of all newcomers together.
_SLOTS = 1024
#: The weight of others over which a sender's recent weight is summed, and over which its usual share is remembered.
RECENT, USUAL = 4_096.0, 32_768.0
#: The weight that is learned before anything is capped; the least usual share; seconds after which others count as absent.
WARM_UP, LEAST, ABSENT = 4_096.0, 0.01, 3_600.0
_LEAST_RATIO = LEAST / (1.0 - LEAST)
#: By account: recent weight sent and learned; its usual ratio to that of others; all learned from it, and from others at its
#: last example, and the time of that.
ACCOUNT = np.dtype([(name, np.float64) for name in ("sent", "learned", "ratio", "own", "others", "last")])
#: All weight learned, the weight lost to the cap; the last time, its account, the last time of any other account, and that of a
#: sender with an account of its own; the examples drawn for.
WHOLE = np.dtype([(name, np.float64) for name in ("learned", "capped", "last", "account", "before", "known", "drawn")])
_Account, _Whole = numba.from_dtype(ACCOUNT)[::1], numba.from_dtype(WHOLE)[::1]


@numba.njit(numba.void(_Account, numba.int64, _Whole, numba.float64, numba.float64), cache=True)
def _touch(accounts, k, whole, now, burst):  # type: ignore[no-untyped-def]
    a, others = accounts[k], whole[0]["learned"] - accounts[k]["own"]
    passed = others - a["others"]
    if passed > 0.0:
        kept = math.exp(-passed / RECENT)
        if now - a["last"] <= ABSENT or k == accounts.shape[0] - 1:
            young = others < USUAL if k == accounts.shape[0] - 1 else whole[0]["learned"] < WARM_UP
            share = passed / others if young else -math.expm1(-passed / USUAL)
            mean = a["learned"] * (1.0 - kept) / passed / -math.expm1(-others / RECENT)
            if whole[0]["learned"] >= WARM_UP and (a["ratio"] >= _LEAST_RATIO or k == accounts.shape[0] - 1):
                mean = min(mean, burst * max(a["ratio"], _LEAST_RATIO))
            a["ratio"] += (mean - a["ratio"]) * share
        a["sent"] *= kept
        a["learned"] *= kept
        a["others"] = others
    a["last"] = max(a["last"], now)


@numba.njit(numba.float64(numba.uint64), cache=True)
def _draw(count):  # type: ignore[no-untyped-def]
    """Return a number of 0 to 1, as if drawn at random, the same for the same count."""
    for _ in range(2):
        count = (count + np.uint64(1)) * GOLDEN
        count ^= count >> np.uint64(32)
    return np.float64(count >> np.uint64(11)) / 2.0**53


@numba.njit(
    numba.void(
        numba.int64[::1], numba.float32[::1], numba.float64[::1], numba.float64, _Account, _Whole, numba.boolean[::1]
    ),
    cache=True,
)  # fmt: skip
def _cap(source, weight, received, burst, accounts, whole, out):  # type: ignore[no-untyped-def]
    w, newcomers = whole[0], accounts.shape[0] - 1
    mask = np.uint64(newcomers - 1)
    for i in range(len(source)):
        out[i] = True
        if source[i] == 0 or not weight[i] > 0.0:
            continue
        now, size = received[i], min(np.float64(weight[i]), RECENT)
        k = np.int64(((np.uint64(source[i]) * GOLDEN) >> np.uint64(40)) & mask)
        alone = not now - (w["before"] if w["account"] == k else w["last"]) <= ABSENT
        if w["account"] != k:
            w["before"], w["account"], w["last"] = w["last"], k, now
        w["last"] = max(w["last"], now)
        _touch(accounts, k, whole, now, burst)
        a, quiet = k, alone
        if accounts[k]["ratio"] < _LEAST_RATIO:
            a, quiet = newcomers, alone or not now - w["known"] <= ABSENT
            _touch(accounts, a, whole, now, burst)
        else:
            w["known"] = max(w["known"], now)
        factor = 1.0
        if not quiet:
            ratio = max(accounts[a]["ratio"], _LEAST_RATIO)
            most = burst * ratio / (1.0 + ratio)
            accounts[a]["sent"] += size
            if most < 1.0 and w["learned"] >= WARM_UP:
                factor = min(RECENT * most / (1.0 - most) / accounts[a]["sent"], 1.0)
        if factor < 1.0:
            out[i] = _draw(np.uint64(w["drawn"])) < factor
            w["drawn"] += 1.0
            w["capped"] += 0.0 if out[i] else size
        for each, by_itself in ((k, alone), (a, quiet)):
            accounts[each]["own"] += size * factor
            if by_itself:
                accounts[each]["ratio"] += size / USUAL
            else:
                accounts[each]["learned"] += size * factor
            if a == k:
                break
        w["learned"] += size * factor


class Shares:
    """Admits all examples of a sender, or a random part of them if it sends far more than its usual share.

    Only the examples of others let time pass for a sender, so a flood does not soon make itself usual. A sender's usual share
    of what is learned is its mean over 32,768 examples of others, beginning with that of the first 4,096. Of the recent
    weight, that of 4,096 examples of others, it has about `burst` times its usual share: beyond that, the k-th example is
    admitted with a probability in proportion to 1/k. So a sender with a usual share of 1/`burst` or more is never capped.
    Senders below 1 % share one account, whose usual share is at least 1 %: a newcomer, or 100,000 of them, begins with `burst`
    % of what is learned. One that sends as much as all others together is learned in full after about 35,000 examples of
    theirs.

    Nothing is capped in the first 4,096 examples, while no other sender has sent anything for an hour, or for negatives by
    silence (source 0). A sender that sends alone becomes the usual one in some 10,000 examples, and one that was absent for an
    hour keeps its usual share. An example of any weight counts as at most 4,096.

    The result depends only on the examples and their order, bit for bit, not on how they are cut into blocks: what is drawn
    follows from the number of examples.

    Parameters
    ----------
    burst
        How many times its usual share a sender may have (default 4.0), at least 1. Lower it if tokens are in many hands; raise
        it if systems often deliver in large batches.

    Examples
    --------
    >>> rng, ones = np.random.default_rng(0), np.ones(10_000, np.float32)
    >>> shares, usual = Shares(4.0), rng.integers(1, 9, 10_000)
    >>> bool(shares.admit(usual, ones, np.arange(10_000.0)).all())
    True
    >>> flood = np.where(np.arange(10_000) % 11 > 0, 99, usual)
    >>> learned = shares.admit(flood, ones, np.arange(10_000.0) + 10_000)
    >>> int(learned[flood == 99].sum()), int(learned[flood != 99].sum())
    (893, 910)

    Notes
    -----
    The account of a sender is a leaky bucket that leaks on the others' clock: with D the sum of its own weights, each decayed
    by exp(-w/4,096) for a weight w learned from others since, and c the share allowed, an example has the probability min(1,
    4,096·c/(1 - c)/D). Its usual ratio to the others is the mean, on the same clock, of the same sum of weights times their
    probability. Examples are left out, not scaled down: a correction forgets with each example, however light, so that many
    light ones would displace what is known.
    """

    def __init__(self, burst: float = 4.0) -> None:
        if not 1.0 <= burst <= 1e9:
            raise ConfigurationError(f"burst is {burst!r}; expected a number of 1 to 1e9, such as 4.0")
        self.burst = float(burst)
        self._accounts, self._whole = np.zeros(_SLOTS + 1, ACCOUNT), np.zeros(1, WHOLE)
        self._accounts["last"] = -np.inf
        for name in ("last", "before", "known"):
            self._whole[name] = -np.inf
        self._whole["account"] = -1

    def admit(self, source: Ints, weight: Floats, received: Array) -> npt.NDArray[np.bool_]:
        """Return bool[M]: which examples, in order, are admitted.

        `source` int64[M] are their senders, 0 for none, `weight` float32[M] their weights, and `received` float64[M] the times
        of their labels in Unix seconds.
        """
        out = np.empty(len(weight), np.bool_)
        given = np.ascontiguousarray(source, np.int64), np.ascontiguousarray(weight, np.float32)
        _cap(*given, np.ascontiguousarray(received, np.float64), self.burst, self._accounts, self._whole, out)
        return out

    def report(self, names: Mapping[int, str]) -> dict[str, Any]:
        """Return the weight lost to the cap so far, and the usual share of each sender that `names` has by its number."""
        ratios = {name: float(self._accounts["ratio"][_slot(source)]) for source, name in names.items()}
        usual = {name: ratio / (1.0 + ratio) for name, ratio in ratios.items()}
        return {"capped": float(self._whole["capped"][0]), "usual": usual}

    def state(self) -> dict[str, Array]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if its sizes differ."""
        found = {name: take(arrays, name, array) for name, array in self._arrays().items()}
        for name, array in self._arrays().items():
            array[...] = found[name]

    def _arrays(self) -> dict[str, Array]:
        """Return the state as plain arrays that share its memory."""
        return {"accounts": self._accounts.view(np.float64).reshape(_SLOTS + 1, -1), "whole": self._whole.view(np.float64)}


def _slot(source: int) -> int:
    return int((np.array([source]).view(np.uint64) * GOLDEN >> np.uint64(40))[0]) & (_SLOTS - 1)
