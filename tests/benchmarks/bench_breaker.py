"""How often the breaker trips for nothing, and how soon it trips for a reason.

1. False trips for each million examples, with the exact Poisson interval at 95 %: every public stream and simulated clicks,
   under each benign operation of `operations.py`, begun at many places. The corrections learn and are judged as in a service.
2. Delays, in examples from an attack's first row to the first that is not learned, at many places, with eight senders:
   `stale` (all labels are 0), `flip all` (all are inverted), `flip one` (those of one sender of eight), `flip half` (those of
   one of two), and `flood` (one sender more, of as many positives on five rows as all others have labels), which is for an
   alert and not for the breaker. Each lasts to the end of the stream; `within`: the share that trips by the first decision
   after 1,000 rows in which the base expects 20 positives.
With `--runs` only the test of degenerate labels is tried, without learning, at more places and on streams that no setting was
chosen on: simulated clicks of other seeds and rates.
Run: RIVERDELTA_DATA=... python tests/benchmarks/bench_breaker.py [--quick] [--runs] [--places N] [--seed N] [--stream NAME]
"""

import argparse
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import streams
from bench_drift import rate
from operations import OPERATIONS, eight, minutes

from riverdelta.core.examples import Examples
from riverdelta.evaluation.prequential import Prequential
from riverdelta.lab.datasets.movielens import load_movielens
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.admission import Admission
from riverdelta.learning.breaker import CHECK, Breaker
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import replay
from riverdelta.learning.shares import Shares

STREAMS = {
    "movielens": streams.movielens,
    "electricity": streams.electricity,
    "bandit": streams.bandit,
    "pump": streams.pump,
    "simulator": lambda: streams.simulator(60_000),
    "another": lambda: streams.simulator(60_000, seed=20, users=500, items=2_000),
    "quick": lambda: streams.simulator(24_000),
}
ATTACKS = ("stale", "flip all", "flip one", "flip half", "flood")


def served(prepared, operation, seed, start=0.0):
    """Serve a stream from the share `start` of its rows on, under an operation; return the breaker and the examples."""
    first = int(start * len(prepared.stream))
    stream = prepared.stream[first:]
    done = operation(stream, np.random.default_rng(seed))
    base = (prepared.base[first:] + done.shift)[done.rows].astype(np.float32)
    breaker = Breaker()
    admission = Admission(breaker, shares=Shares())
    learner = Learner(prepared.new_stack(), Joiner(**done.joiner), Prequential(), admission=admission)
    columns = {name: column[done.rows] for name, column in stream.columns.items()}
    replay(
        learner, columns, base, stream.label[done.rows], minutes(len(done.rows)), label_time=done.label_time,
        refresh_rows=1 if done.label_time is None else 128, source=done.source,
    )  # fmt: skip
    return breaker, learner.examples


def attacked(prepared, kind, starts, cap=True):
    """Return by place where an attack begins the delay, infinite if it never trips, and that after which stale labels trip."""
    found, stream = [], prepared.stream
    expected = np.cumsum(1.0 / (1.0 + np.exp(-prepared.base.astype(np.float64))))
    for seed, begin in enumerate(np.linspace(0.1, 0.83, starts)):
        first = int(begin * len(stream))
        source, base, label = eight(len(stream)), prepared.base, stream.label.copy()
        said = max(first + 1_000, int(np.searchsorted(expected, expected[first] + 20.0)) + 1)
        if kind == "flood":
            done, base = prepared.attacked("flood", seed=seed, begin=begin, length=1.0 - begin, sources=8)
            rows, source = done.stream, done.source
        else:
            late = np.arange(len(stream)) >= first
            if kind == "stale":
                label[late] = 0.0
            else:
                wrong = late & {"flip all": True, "flip one": source == 3, "flip half": source % 2 == 0}[kind]
                source = source % 2 if kind == "flip half" else source
                label[wrong] = 1.0 - label[wrong]
            rows = replace(stream, label=label)
        breaker = Breaker()
        prepared.replayed(rows, base, Admission(breaker, shares=Shares() if cap else None), source)
        at = math.inf if breaker.opened is None else breaker.opened
        assert at >= first, "it tripped before the attack"
        found.append((at - first, said + CHECK - first))
    return np.array(found).T


def false_trips(prepared, starts, seed):
    """Return the trips, the examples and the exact interval, by operation."""
    found = {}
    for operation in OPERATIONS:
        runs = [served(prepared, operation, seed, start) for start in np.linspace(0, 0.7, starts)]
        found[operation.__name__] = rate(sum(b.trips for b, _ in runs), sum(examples for _, examples in runs))
    return found


def false_runs(stream, base, starts, seeds):
    """Return the trips and the examples of all operations, with labels in the order in which they come and nothing learned."""
    trips = examples = 0
    for operation, start, seed in itertools.product(OPERATIONS, np.linspace(0, 0.7, starts), range(seeds)):
        rest = stream[int(start * len(stream)) :]
        done = operation(rest, np.random.default_rng(seed))
        label, z, when, source = rest.label[done.rows], base + 0 * done.rows, done.label_time, done.source
        order = np.arange(len(label))
        if when is not None:
            if done.joiner:  # negatives come by silence
                when, source = np.where(label > 0, when, minutes(len(label)) + 7_200.0), np.where(label > 0, source, 0)
            order = np.argsort(when, kind="stable")
        if "keep_negatives" in done.joiner:
            order = order[(label[order] > 0) | (np.random.default_rng(seed).random(len(label)) < done.joiner["keep_negatives"])]
        breaker = Breaker()
        breaker.update(Examples.unserved({}, np.float32(z)[order], label[order], np.zeros(len(order)), source[order]))
        trips, examples = trips + breaker.trips, examples + len(order)
    return trips, examples


def runs():
    """Print the false trips of the test of degenerate labels, with the base's usual rate."""
    given = {name: STREAMS[name]().stream for name in ("bandit", "pump", "electricity") if streams.FOLDER is not None}
    if streams.FOLDER is not None:
        given["movielens"] = load_movielens(streams.FOLDER / "ml-latest-small")
    for seed, intercept in itertools.product(range(20, 30), (-0.4, -3.0, -5.0)):
        made = Simulation(rows=100_000, seed=seed, intercept=intercept).generate().stream
        given[f"simulator {seed}, {intercept}"] = made.select("user_id", "item_id")
    for name, stream in given.items():
        share = float(stream.label[: len(stream) // 5].mean())
        starts, seeds = (1, 1) if "simulator" in name else (8, 2)
        trips, examples = false_runs(stream, math.log(share / (1.0 - share)), starts, seeds)
        print(f"{name}: {examples:,} examples, {trips} trips", flush=True)


def number(value):
    """A count of examples."""
    return "never" if math.isinf(value) else f"{value:,.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small simulated stream alone, at few places")
    parser.add_argument("--runs", action="store_true", help="the test of degenerate labels alone, on more streams")
    parser.add_argument("--places", type=int, default=40, help="where attacks begin; operations begin at a tenth as many")
    parser.add_argument("--seed", type=int, default=0, help="of the operations")
    parser.add_argument("--stream", choices=STREAMS, help="that stream alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.runs:
        runs()
        return
    names = [name for name in STREAMS if name != "quick"]
    if options.stream or options.quick or streams.FOLDER is None:
        names = [options.stream or "quick"]
    places = 6 if options.quick else options.places
    found = {"false": {}, "delays": []}
    for name in names:
        prepared = STREAMS[name]()
        by = found["false"][name] = false_trips(prepared, max(places // 10, 2), options.seed)
        total = rate(sum(r["alarms"] for r in by.values()), sum(r["examples"] for r in by.values()))
        print(f"\n{name}\n\n| operation | examples | trips | a million (95 %) |\n|---|---:|---:|---:|")
        for said, r in {"all": total, **{k: r for k, r in by.items() if r["alarms"]}}.items():
            interval = " to ".join(f"{1e6 * r[side]:.2f}" for side in ("low", "high"))
            print(f"| {said} | {r['examples']:,} | {r['alarms']} | {1e6 * r['rate']:.2f} ({interval}) |")
        print("\n| attack | runs | median | 95 % | never | within |\n|---|---:|---:|---:|---:|---:|", flush=True)
        for kind in ATTACKS:
            delays, said = attacked(prepared, kind, places)
            usual = [float(np.quantile(delays, q, method="higher")) for q in (0.5, 0.95)]
            row = {"stream": name, "attack": kind, "runs": len(delays), "median": usual[0], "most": usual[1]}
            row |= {"never": int(np.isinf(delays).sum()), "within": float(np.mean(delays <= said))}
            found["delays"].append(row)
            cells = f"{number(usual[0])} | {number(usual[1])} | {row['never']} | {row['within']:.0%}"
            print(f"| {kind} | {row['runs']} | {cells} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
