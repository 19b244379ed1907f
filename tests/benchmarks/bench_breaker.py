"""How often the breaker trips for nothing, and how soon it trips for a reason.

1. False trips for each million examples, with the exact Poisson interval at 95 %: every public stream and simulated clicks,
   under each benign operation of `operations.py`, begun at many places. The corrections learn and are judged as in a service.
2. Delays, in examples from an attack's first row to the first that is not learned, at many places, with eight senders:
   `stale` (all labels are 0), `flip all` (all are inverted), `flip one` (those of one sender of eight), and `flood` (one sender
   more, of as many positives on five rows as all others have labels), which is for an alert and not for the breaker. Each lasts
   to the end of the stream; `within`: the share that trips by the rows after which 20 positives were expected, and 1,000.
Run: RIVERDELTA_DATA=... python tests/benchmarks/bench_breaker.py [--quick] [--json FILE]
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import streams
from bench_drift import rate
from operations import OPERATIONS, eight, minutes

from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.admission import Admission
from riverdelta.learning.breaker import CHECK, Breaker
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import replay

STREAMS = {
    "movielens": lambda quick: streams.movielens(),
    "electricity": lambda quick: streams.electricity(),
    "bandit": lambda quick: streams.bandit(),
    "pump": lambda quick: streams.pump(),
    "simulator": lambda quick: streams.simulator(24_000 if quick else 60_000),
}
ATTACKS = ("stale", "flip all", "flip one", "flood")


def served(prepared, operation, seed, start=0.0):
    """Serve a stream from the share `start` of its rows on, under an operation; return the breaker and the examples."""
    first = int(start * len(prepared.stream))
    stream = prepared.stream[first:]
    done = operation(stream, np.random.default_rng(seed))
    base = (prepared.base[first:] + done.shift)[done.rows].astype(np.float32)
    breaker = Breaker()
    learner = Learner(prepared.new_stack(), Joiner(**done.joiner), Prequential(), admission=Admission(breaker))
    columns = {name: column[done.rows] for name, column in stream.columns.items()}
    replay(
        learner, columns, base, stream.label[done.rows], minutes(len(done.rows)), label_time=done.label_time,
        refresh_rows=1 if done.label_time is None else 128, source=done.source,
    )  # fmt: skip
    return breaker, learner.examples


def attacked(prepared, kind, starts):
    """Return the delay at each of the places where an attack begins; infinite if it never trips."""
    found, stream = [], prepared.stream
    for seed, begin in enumerate(np.linspace(0.1, 0.83, starts)):
        first = int(begin * len(stream))
        source, base, label = eight(len(stream)), prepared.base, stream.label.copy()
        if kind == "flood":
            done, base = prepared.attacked("flood", seed=seed, begin=begin, length=1.0 - begin, sources=8)
            rows, source = done.stream, done.source
        else:
            late = np.arange(len(stream)) >= first
            if kind == "stale":
                label[late] = 0.0
            else:
                wrong = late & ((source == 3) | (kind == "flip all"))
                label[wrong] = 1.0 - label[wrong]
            rows = replace(stream, label=label)
        run, _ = prepared.replayed(rows, base, Admission(Breaker()), source)
        assert run.learned[:first].all(), "it tripped before the attack"
        found.append(math.inf if run.learned.all() else int(np.argmin(run.learned)) - first)
    return found


def false_trips(prepared, starts, seeds):
    """Return the trips, the examples and the exact interval, by operation."""
    found = {}
    for operation in OPERATIONS:
        runs = [served(prepared, operation, seed, start) for start in np.linspace(0, 0.7, starts) for seed in range(seeds)]
        found[operation.__name__] = rate(sum(b.trips for b, _ in runs), sum(examples for _, examples in runs))
    return found


def number(value):
    """A count of examples."""
    return "never" if math.isinf(value) else f"{value:,.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small simulated stream alone, at few places")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = list(STREAMS) if streams.FOLDER is not None and not options.quick else ["simulator"]
    starts, seeds = (2, 1) if options.quick else (4, 1)
    found = {"false": {}, "delays": []}
    print("| stream | attack | runs | median | 95 % | never | within |\n|---|---|---:|---:|---:|---:|---:|")
    for name in names:
        prepared = STREAMS[name](quick=options.quick)
        found["false"][name] = false_trips(prepared, starts, seeds)
        said = max(1_000.0, 20.0 / float(prepared.stream.label.mean())) + CHECK
        for kind in ATTACKS:
            delays = np.array(attacked(prepared, kind, 6 if options.quick else 40))
            usual = [float(np.quantile(delays, q, method="higher")) for q in (0.5, 0.95)]
            row = {"stream": name, "attack": kind, "runs": len(delays), "median": usual[0], "most": usual[1]}
            row |= {"never": int(np.isinf(delays).sum()), "within": float(np.mean(delays <= said))}
            found["delays"].append(row)
            cells = f"{number(usual[0])} | {number(usual[1])} | {row['never']} | {row['within']:.0%}"
            print(f"| {name} | {kind} | {row['runs']} | {cells} |", flush=True)
    print("\n| stream, operation | examples | trips | a million (95 %) |\n|---|---:|---:|---:|")
    for name, by in found["false"].items():
        total = rate(sum(r["alarms"] for r in by.values()), sum(r["examples"] for r in by.values()))
        for said, r in {"all operations": total, **{k: r for k, r in by.items() if r["alarms"]}}.items():
            interval = " to ".join(f"{1e6 * r[side]:.2f}" for side in ("low", "high"))
            print(f"| {name}, {said} | {r['examples']:,} | {r['alarms']} | {1e6 * r['rate']:.2f} ({interval}) |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
