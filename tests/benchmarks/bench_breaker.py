"""How soon the breaker opens at each attack, how often it opens for nothing, and when it closes.

1. Openings. Each attack of `riverdelta replay --attack`, on a tenth of the rows, begun at many places after the warm-up (each
   place with its own seed: other targets, other items), joined at several lags. The delay is in examples from the attack's
   first row to the first that is not learned; `within 1,000` the share of runs that open so soon. The target is all of them for
   `stale` and `flood`. `flip` and `drift` leave positive rate, ids, sources and runs much as they were: they are for the gate
   and the drift alarm. `closed`: examples from the attack's last row to the first that is learned again (0: none).
2. Attacks that begin within the warm-up of 2,048 examples, in which nothing opens it.
3. False openings for each million examples of clean streams, with the exact Poisson interval at 95 %: streams begun at many
   places, blocks of them permuted or drawn with replacement, the labels of several clients interleaved, simulated clicks.
   (In `pump` rows are seconds of a machine's state, not judged one by one: its runs of hundreds of labels are what the breaker
   is there to notice.)
Run: RIVERDELTA_DATA=... python tests/benchmarks/bench_breaker.py [--quick] [--json FILE]
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_drift import rate
from streams import FOLDER, bandit, electricity, pump

from riverdelta import Schema, Stack
from riverdelta.core.settings import Settings
from riverdelta.evaluation.prequential import Prequential
from riverdelta.lab.attacks import attack
from riverdelta.lab.datasets.movielens import load_movielens
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.admission import Admission
from riverdelta.learning.breaker import Breaker
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import replay

#: An attack must leave so many rows after it for its closing to count.
LEAST_AFTER = 4_000
WARM_UP, SOURCES, RESUME = 2_048, 8, Settings().breaker_resume_examples
ATTACKS = {
    "stale": ("stale", {}),
    "flood, one for two": ("flood", {"rate": 0.5}),
    "flood, one for one": ("flood", {"rate": 1.0}),
    "flood, five for one": ("flood", {"rate": 5.0}),
    "flip": ("flip", {}),
    "drift": ("drift", {}),
}
LAGS = {"none": (0, 0.0), "8 rows": (8, 0.0), "100 rows": (100, 0.0), "1,000 rows": (1_000, 0.0), "a day": (0, 86_400.0)}


def fed(stream, source, lag=(0, 0.0), resume=RESUME):
    """Replay a stream to a learner that corrects nothing; return bool[N], what may be learned, and its breaker."""
    ids = {name: column for name, column in stream.columns.items() if column.dtype == np.int64}
    breaker, (rows, seconds) = Breaker(list(ids), resume), lag
    stack = Stack([])
    stack.bind(Schema())
    learner = Learner(stack, Joiner(), Prequential(), admission=Admission(breaker))
    known = stream.time + seconds if seconds else None
    base = np.zeros(len(stream), np.float32)
    run = replay(learner, ids, base, stream.label, stream.time, label_time=known, refresh_rows=rows, source=source)
    return run.learned, breaker


def delays(stream, kind, terms, lag, places, length=0.1):
    """How many examples until it opens (infinite: never, within the attack) and closes again, by place."""
    opened, closed = [], []
    for seed, begin in enumerate(places):
        done = attack(stream, kind, seed, begin, length, sources=SOURCES, **terms)
        learned = fed(done.stream, done.source, lag)[0]
        shut = np.flatnonzero(~learned[done.begin : done.end])
        opened.append(int(shut[0]) + 1 if len(shut) else math.inf)
        again = np.flatnonzero(learned[done.end :])
        if len(shut) and len(learned) - done.end >= LEAST_AFTER:
            closed.append(int(again[0]) if len(again) else math.inf)
    return {
        "runs": len(opened), "median": float(np.median(opened)), "max": float(np.max(opened)),
        "within_1000": float(np.mean(np.array(opened) <= 1_000)), "missed": int(np.isinf(opened).sum()),
        "closed_median": float(np.median(closed)) if closed else None, "closed_max": float(np.max(closed)) if closed else None,
    }  # fmt: skip


def places(stream, many):
    """Shares of the rows before an attack that begins after the warm-up and has a tenth of the rows before it."""
    return np.linspace((WARM_UP + 1) / len(stream), 0.88, many).tolist()


def rows_of(stream, order):
    """The rows of a stream in another order, at the times of the first ones: time does not go back."""
    columns = {name: column[order] for name, column in stream.columns.items()}
    return replace(stream, columns=columns, label=stream.label[order], time=stream.time[: len(order)])


def clean(stream, seeds):
    """Yield the name of a way to make other clean streams of one, and such a stream."""
    rows = len(stream)
    for start in np.linspace(0, 0.7, seeds):
        yield "begun at other places", stream[int(start * rows) :]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for block in (500, 5_000):
            blocks = np.array_split(np.arange(rows), rows // block)
            permuted = np.concatenate([blocks[b] for b in rng.permutation(len(blocks))])
            yield f"blocks of {block:,} permuted", rows_of(stream, permuted)
            drawn = np.concatenate([blocks[b] for b in rng.integers(0, len(blocks), len(blocks))])[:rows]
            yield f"blocks of {block:,} drawn with replacement", rows_of(stream, drawn)
        clients = (8, 64, 512)[seed % 3]
        order = np.argsort(np.arange(rows) + rng.uniform(0, clients, rows), kind="stable")
        yield "labels of 8, 64 or 512 clients interleaved", rows_of(stream, order)


def simulated(rows, seeds):
    """Yield simulated clicks, frequent and rare, of few and many users."""
    terms = ({}, {"intercept": -4.0}, {"slate": 50}, {"users": 30, "items": 30}, {"drift": 0.2, "taste": 2.0})
    for seed in range(seeds):
        yield "simulated", Simulation(rows=rows, seed=100 + seed, **terms[seed % len(terms)]).generate().stream


def false_openings(found):
    """Openings by way of making the streams."""
    counts = {}
    for name, stream in found:
        source = np.arange(len(stream), dtype=np.int64) % SOURCES + 1
        trips, examples = counts.get(name, (0, 0))
        counts[name] = trips + fed(stream, source)[1].trips, examples + len(stream)
    return {name: rate(*given) for name, given in counts.items()}


def number(value):
    """A count of examples."""
    return "–" if value is None else "never" if math.isinf(value) else f"{value:,.0f}"


def show(name, found):
    """Print the tables of a stream."""
    if found["openings"]:
        print(f"\n{name}\n\n| attack | lag | runs | opens after: median | max | within 1,000 | missed | closed: median | max |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for r in found["openings"]:
        cells = [r["runs"], number(r["median"]), number(r["max"]), f"{r['within_1000']:.0%}", r["missed"]]
        cells += [number(r["closed_median"]), number(r["closed_max"])]
        print(f"| {r['attack']} | {r['lag']} | " + " | ".join(map(str, cells)) + " |")
    print(f"\n| {name}, clean | examples | openings | a million (95 %) |\n|---|---:|---:|---:|")
    for way, r in found["false"].items():
        at = " to ".join(f"{1e6 * r[side]:.2f}" for side in ("low", "high"))
        print(f"| {way} | {r['examples']:,} | {r['alarms']} | {1e6 * r['rate']:.2f} ({at}) |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a simulated stream alone, few places and lags")
    parser.add_argument("--places", type=int, default=24, help="where attacks begin, and how many streams of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    many, lags = (4, ["none", "8 rows"]) if options.quick else (options.places, list(LAGS))
    attacked = {"simulator": Simulation(rows=50_000, seed=7).generate().stream}
    resting = {"simulator": simulated(50_000, 2 * many)}
    if FOLDER is not None and not options.quick:
        whole = load_movielens(FOLDER / "ml-latest-small")
        attacked = {"ml-latest-small": whole.halves()[1]} | attacked
        others = {read.__name__: read().stream for read in (electricity, bandit, pump)}
        attacked["electricity"] = others["electricity"]
        resting = {"ml-latest-small": clean(whole, many), **resting, **{name: clean(s, many) for name, s in others.items()}}
    found = {}
    for name, streams in resting.items():
        openings = []
        for said, (kind, terms) in ATTACKS.items() if name in attacked else ():
            stream = attacked[name]
            for lag in lags:
                figures = delays(stream, kind, terms, LAGS[lag], places(stream, many))
                openings.append({"attack": said, "lag": lag} | figures)
            if kind == "stale" or said == "flood, one for one":
                early = [at / len(stream) for at in range(256, WARM_UP, 256)]
                figures = delays(stream, kind, terms, (0, 0.0), early)
                openings.append({"attack": f"{said}, in the warm-up", "lag": "none"} | figures)
        found[name] = {"openings": openings, "false": false_openings(streams)}
        show(name, found[name])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
