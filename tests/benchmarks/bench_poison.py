"""Damage against attack budget: what poisoned feedback costs the clean rows, with and without each defence.

A share of all feedback is poisoned, after the first fifth of the stream:

- `spread`: the labels of rows drawn at random are inverted;
- `burst`: the labels of one stretch are inverted;
- `stale`: the labels of one stretch are 0;
- `flood`: one new source sends as many labels as all others together, all 1, on five rows;
- `torrent`: it sends ten times as many;
- `promotion`: new accounts, of ten labels each, say 1 of ten items that are disliked, through everybody's sources.

Damage is the log loss of what the public's rows are served, on their true labels, less that of the same setting without the
attack, in nats a row, prequential, the median of several seeds (other rows, places, items); floods and `promotion` have the
mean shift of the served logits of the public's rows of their items too (of a flood's items, over the rows from its begin on).
The first row of each table is what a defence costs where nothing is poisoned: its log loss less that without any. After it come
the places where a defence is worse than none: where the 95 % interval of the mean difference, by Student's t over the seeds,
is above 0.

`none`: no clip, no ball, no cap, no limit, no breaker, and the corrected logit is served. `clip`, `ball`, `cap`, `limit`,
`breaker`, `gate`: that one alone, with its default; `limit` (off by default) is the smallest that would have let 99 % of the
rows pass that the base was trained on, by the hour. `defaults`: all but the limit. `all`: the limit too. After the attack
an operator resets the breaker and drops what it held; with `--alone` it stays open.

A label of weight 1 has a gradient below 1, and no coefficient grows to the ball's edge by labels alone before some thousands
of one entity agree: clip and ball are for weights and features out of proportion (tests/corrections/test_influence_bounds.py).
Run: RIVERDELTA_DATA=... python tests/benchmarks/bench_poison.py [--quick] [--seeds N] [--stream NAME] [--attacks A …]
    [--settings S …] [--json FILE]
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student
from streams import FOLDER, movielens, simulator

from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.settings import Settings
from riverdelta.lab.attacks import Attacked, attack
from riverdelta.learning.admission import Admission
from riverdelta.learning.breaker import Breaker
from riverdelta.learning.influence import Limiter
from riverdelta.learning.shares import Shares

BUDGETS = (0.01, 0.05, 0.2)
SINCE, SOURCES, TARGETS, ACCOUNT = 0.2, 8, 10, 10
SETTINGS = {
    "none": (),
    **{one: (one,) for one in ("clip", "ball", "cap", "limit", "breaker", "gate")},
    "defaults": ("clip", "ball", "cap", "breaker", "gate"),
    "all": ("clip", "ball", "cap", "limit", "breaker", "gate"),
}
DEFAULTS = Settings()


def spread(stream, share, rng, before):
    """Invert labels at random."""
    rows, first = len(stream), int(SINCE * len(stream))
    flipped = first + rng.permutation(rows - first)[: max(round(share * rows), 1)]
    label = stream.label.copy()
    label[flipped] = 1.0 - label[flipped]
    source = np.arange(rows, dtype=np.int64) % SOURCES + 1
    return Attacked(replace(stream, label=label), stream.label, label == stream.label, source, first, rows)


def burst(stream, share, rng, before):
    """Invert the labels of a stretch."""
    return attack(stream, "flip", begin=rng.uniform(SINCE, 0.7), length=share, sources=SOURCES)


def stale(stream, share, rng, before):
    """Set the labels of a stretch to 0."""
    return attack(stream, "stale", begin=rng.uniform(SINCE, 0.7), length=share, sources=SOURCES)


def flood(stream, share, rng, before, rate=1.0):
    """Let a stretch be flooded, one to one."""
    seed, length = int(rng.integers(2**31)), share / (1.0 - share) / rate
    return attack(stream, "flood", seed, rng.uniform(SINCE, 0.7), length, rate=rate, targets=5, sources=SOURCES)


def torrent(stream, share, rng, before):
    """Let a stretch be flooded, ten to one."""
    return flood(stream, share, rng, before, rate=10.0)


def targets_of(before, rng):
    """Items that the base knows well and that are liked less than most."""
    items, at, counts = np.unique(before.columns["item_id"], return_inverse=True, return_counts=True)
    rate = np.bincount(at, before.label) / counts
    disliked = items[(counts >= 20) & (rate < before.label.mean())]
    return rng.permutation(disliked)[:TARGETS]


def promotion(stream, share, rng, before):
    """Insert positives of the targets from new accounts."""
    rows, first = len(stream), int(SINCE * len(stream))
    extra = max(round(share / (1.0 - share) * rows), 1)
    after = np.sort(rng.integers(first, rows, extra))
    order = np.insert(np.arange(rows), after + 1, after)
    honest = np.insert(np.ones(rows, np.bool_), after + 1, False)
    columns = {name: column[order] for name, column in stream.columns.items()}
    columns["item_id"][~honest] = rng.permutation(np.resize(targets_of(before, rng), extra))
    columns["user_id"][~honest] = 2**40 + np.arange(extra) // ACCOUNT
    label = np.where(honest, stream.label[order], 1.0).astype(np.float32)
    source = np.arange(len(order), dtype=np.int64) % SOURCES + 1
    told = replace(stream, columns=columns, label=label, time=stream.time[order])
    return Attacked(told, stream.label[order], honest, source, first, len(order))


ATTACKS = {make.__name__: make for make in (spread, burst, stale, flood, torrent, promotion)}


def limit_of(before, keys):
    """The smallest limit, in steps of a quarter, that lets 99 % of the rows pass."""
    limit = 1
    while Limiter(keys, limit, DEFAULTS.entity_window_seconds).admit(before.columns, before.time).mean() < 0.99:
        limit = math.ceil(1.25 * limit)
    return limit


class Attended(Breaker):
    """A breaker that an operator resets after so many examples, if it is open then; what it held is dropped."""

    def __init__(self, end):
        super().__init__()
        self.left = end

    def update(self, examples):
        """Observe the examples, then the operator comes."""
        passes = super().update(examples)
        self.left -= len(examples)
        if self.open and self.left <= 0:
            self.reset()
        return passes


class Scene:
    """A stream, and what each setting serves of it without an attack."""

    def __init__(self, prepared, alone=False):
        self.prepared, self.keys, self.alone = prepared, prepared.keys, alone
        self.limit = limit_of(prepared.before, self.keys)
        source = np.arange(len(prepared.stream), dtype=np.int64) % SOURCES + 1
        self.clean = self.served(prepared.stream, prepared.base, source)

    def served(self, stream, base, source, end=math.inf):
        """Return the logits float32[N] that each setting serves; whether there is a gate changes nothing that is learned."""
        done = {}
        for parts in dict.fromkeys(tuple(p for p in parts if p != "gate") for parts in SETTINGS.values()):
            bounds = {name: math.inf for part, name in (("clip", "clip"), ("ball", "radius")) if part not in parts}
            admission = Admission(
                Attended(math.inf if self.alone else end) if "breaker" in parts else None,
                Limiter(self.keys, self.limit, DEFAULTS.entity_window_seconds) if "limit" in parts else None,
                shares=Shares(DEFAULTS.sender_burst) if "cap" in parts else None,
            )
            done[parts], _ = self.prepared.replayed(stream, base, admission, source, **bounds)
        learned = {name: done[tuple(p for p in parts if p != "gate")] for name, parts in SETTINGS.items()}
        return {name: run.served if "gate" in SETTINGS[name] else run.corrected for name, run in learned.items()}

    def damage(self, kind, share, seed):
        """Return each setting's damage in nats a row and, for promotion, its shift of the targets in logits."""
        rng, stream = np.random.default_rng([seed, round(1e4 * share)]), self.prepared.stream
        done = ATTACKS[kind](stream, share, rng, self.prepared.before)
        public = np.ones(len(done.stream), np.bool_) if len(done.stream) == len(stream) else done.honest
        targets = np.isin(stream.columns["item_id"], done.stream.columns["item_id"][~public])
        targets[: done.begin] = False
        found = {}
        for name, served in self.served(done.stream, self.prepared.score(done.stream), done.source, done.end).items():
            z, usual = served[public], self.clean[name]
            found[name] = {"damage": float((LOG_LOSS.value(z, stream.label) - LOG_LOSS.value(usual, stream.label)).mean())}
            if targets.any():
                found[name]["shift"] = float((z[targets] - usual[targets]).mean())
        return found

    def measure(self, kinds, budgets, seeds):
        """Print and return medians by attack, budget and setting, and how much worse than none."""
        label = self.prepared.stream.label
        loss = {name: float(LOG_LOSS.value(z, label).mean()) for name, z in self.clean.items()}
        base = float(LOG_LOSS.value(self.prepared.base, label).mean())
        figures = {"rows": len(label), "limit": self.limit, "log_loss": {"base": base} | loss, "attacks": []}
        head(self.prepared.stream.name, figures)
        for kind in kinds:
            for share in budgets:
                runs = [self.damage(kind, share, seed) for seed in range(seeds)]
                row, worse = {}, {}
                for name in SETTINGS:
                    by = {what: np.array([run[name][what] for run in runs]) for what in runs[0][name]}
                    row[name] = {what: float(np.median(values)) for what, values in by.items()}
                    worse[name] = {what: interval(values - [run["none"][what] for run in runs]) for what, values in by.items()}
                figures["attacks"].append({"attack": kind, "share": share, "settings": row, "worse": worse})
                cells = [f"{1e3 * f['damage']:+.1f}" + (f" ({f['shift']:+.2f})" if "shift" in f else "") for f in row.values()]
                print(f"| {kind} | {share:.1%} | " + " | ".join(cells) + " |", flush=True)
        return figures


def interval(values):
    """Return the 95 % interval of the mean of independent values."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return [float(values.mean() - half), float(values.mean() + half)]


def head(name, figures):
    """Print the head of a Markdown table of 0.001 nats a row, and what each defence costs."""
    loss = figures["log_loss"]
    print(f"\n{name}, {figures['rows']:,} rows; log loss {loss['none']:.4f} without defences, {loss['base']:.4f} of the frozen")
    print(f"base; the limit is {figures['limit']} an hour. Damage in 0.001 nats a row (shift of the targets in logits):\n")
    print("| attack | share poisoned | " + " | ".join(SETTINGS) + " |\n|---|" + "---:|" * (1 + len(SETTINGS)))
    cells = [f"{1e3 * (loss[setting] - loss['none']):+.1f}" for setting in SETTINGS]
    print("| none: what a defence costs | 0 | " + " | ".join(cells) + " |", flush=True)


def show_worse(figures):
    """Print where a defence is worse than none."""
    print("\nWorse than none, with the 95 % interval:\n")
    for row in figures["attacks"]:
        for setting, by in row["worse"].items():
            for what, (low, high) in by.items():
                if low > 0.0:
                    unit = "logits" if what == "shift" else "nats a row"
                    print(f"- {row['attack']} {row['share']:.1%}, {setting}: {what} {low:+.5f} to {high:+.5f} {unit}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small simulated stream, two budgets, one seed")
    parser.add_argument("--seeds", type=int, default=3, help="figures are medians of so many attacks")
    parser.add_argument("--stream", choices=("movielens", "simulator"), help="that stream alone")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="those, and none")
    parser.add_argument("--alone", action="store_true", help="the breaker is not reset")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    streams = [lambda: simulator(20_000)] if options.quick else [*([movielens] if FOLDER else []), simulator]
    if options.stream:
        streams = [{"movielens": movielens, "simulator": simulator}[options.stream]]
    for name in SETTINGS.keys() - {"none", *options.settings}:
        del SETTINGS[name]
    budgets, seeds = ((0.01, 0.2), 1) if options.quick else (BUDGETS, options.seeds)
    found = {}
    for read in streams:
        scene = Scene(read(), options.alone)
        found[scene.prepared.stream.name] = scene.measure(options.attacks, budgets, seeds)
        show_worse(found[scene.prepared.stream.name])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
