"""How often a trial errs, how long it takes to promote a better release, and what it costs on each example.

Labels are drawn from a true logit; champion and challenger are the truth and errors of their own, correlated between the two.
The challenger's errors are scaled so that its expected gain, over all rows and labels, is exactly what is asked for.
Error rates: at the boundary (worse by exactly the margin) and on A/A pairs (equally good, margin 0), every example looked at,
with the exact interval of Clopper and Pearson at 95 %. Delays: examples until a better release is promoted.
Run: python tests/benchmarks/bench_promotion.py [--json FILE]
"""

import argparse
import inspect
import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import beta, norm

from riverdelta.evaluation.trial import Trial, Verdict

POOL, CHUNK = 1 << 17, 1 << 14
DEFAULTS = {name: p.default for name, p in inspect.signature(Trial).parameters.items()}
#: How far the two releases' errors agree, from releases of a settled learner to ones of a young learner.
CORRELATION = {"near": 0.99, "apart": 0.9, "far": 0.6}
GAINS = (0.001, 0.005, 0.02)


class Pair:
    """A population of rows with true probabilities and both releases' logits, where the challenger gains `gain` nats a row."""

    def __init__(self, gain, correlation, bound, seed=0):
        rng = np.random.default_rng(seed)
        truth = -1.0 + 1.2 * rng.standard_normal(POOL)
        shared, mine, other = rng.standard_normal((3, POOL))
        error = [0.7 * (math.sqrt(correlation) * shared + math.sqrt(1.0 - correlation) * e) for e in (mine, other)]
        self.probability = expit(truth)
        self.champion = (truth + error[0]).astype(np.float32)
        small, large = 0.0, 3.0
        for _ in range(60):
            scale = 0.5 * (small + large)
            self.challenger = (truth + scale * error[1]).astype(np.float32)
            self.gain, self.variance = self._moments(bound)
            small, large = (scale, large) if self.gain > gain else (small, scale)

    def _moments(self, bound):
        """Return the expectation and the variance of the clipped difference of losses, over all rows and both labels."""
        a, b = self.champion.astype(np.float64), self.challenger.astype(np.float64)
        x = [np.clip(np.logaddexp(0, a) - np.logaddexp(0, b) - y * (a - b), -bound, bound) for y in (0.0, 1.0)]
        first, second = (((1.0 - self.probability) * x[0] ** k + self.probability * x[1] ** k).mean() for k in (1, 2))
        return float(first), float(second - first**2)

    def judge(self, trial, examples, rng):
        """Feed a trial until its verdict, at most so many examples."""
        ones = np.ones(CHUNK, np.float32)
        for start in range(0, examples, CHUNK):
            rows = rng.integers(0, POOL, min(CHUNK, examples - start))
            label = (rng.random(len(rows)) < self.probability[rows]).astype(np.float32)
            if trial.update(self.champion[rows], self.challenger[rows], label, ones[: len(rows)]) is not Verdict.undecided:
                break
        return trial


def interval(hits, runs):
    """Return the exact 95 % interval of a share (Clopper and Pearson 1934)."""
    low = float(beta.ppf(0.025, hits, runs - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(0.975, hits + 1, runs - hits)) if hits < runs else 1.0


def errors(pair, trial, runs, examples, seed):
    """Return how often the wrong verdicts fell, with their intervals."""
    verdicts = [pair.judge(trial(), examples, np.random.default_rng((seed, run))).verdict for run in range(runs)]
    found = {"gain": pair.gain, "variance": pair.variance, "runs": runs, "examples": examples}
    for verdict in (Verdict.promoted, Verdict.rejected):
        hits = verdicts.count(verdict)
        found[str(verdict)] = hits
        found[f"{verdict}_rate"], found[f"{verdict}_interval"] = hits / runs, interval(hits, runs)
    return found


def delays(pair, trial, runs, examples):
    """Return the quartiles of the examples to a promotion, and how often none came."""
    done = [pair.judge(trial(), examples, np.random.default_rng((2, run))) for run in range(runs)]
    taken = [t.report()["examples"] if t.verdict is Verdict.promoted else math.inf for t in done]
    quartiles = np.quantile(taken, [0.25, 0.5, 0.75], method="higher").tolist()
    return {
        "gain": pair.gain,
        "variance": pair.variance,
        "quartiles": [q if math.isfinite(q) else None for q in quartiles],
        "promoted_rate": sum(map(math.isfinite, taken)) / runs,
        "rejected_rate": sum(t.verdict is Verdict.rejected for t in done) / runs,
    }


def cost(pair, rows=1 << 20, block=8192, repeat=5):
    """Return nanoseconds an example of a trial that is never decided, in blocks of so many rows."""
    rng = np.random.default_rng(3)
    at = rng.integers(0, POOL, rows)
    columns = [pair.champion[at], pair.challenger[at], (rng.random(rows) < pair.probability[at]).astype(np.float32)]
    columns.append(np.ones(rows, np.float32))
    spent = []
    for _ in range(repeat):
        trial, start = Trial(margin=0.0, alpha=1e-12), time.thread_time()
        for k in range(0, rows, block):
            trial.update(*(c[k : k + block] for c in columns))
        spent.append((time.thread_time() - start) / trial.report()["examples"] * 1e9)
        assert trial.verdict is Verdict.undecided
    return min(spent)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000, help="of each error rate")
    parser.add_argument("--examples", type=int, default=100_000, help="watched in each of them")
    parser.add_argument("--delay-runs", type=int, default=300)
    parser.add_argument("--longest", type=int, default=1_000_000, help="examples after which a delay is given up")
    for name, value in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    terms = {name: getattr(options, name) for name in DEFAULTS}
    figures = {**terms, "errors": {}, "delays": {}}
    print("terms: " + ", ".join(f"{name} {value:g}" for name, value in terms.items()))

    print("\nerror rate            variance    wrong verdict        rate     95 % interval")
    for seed, name, margin in ((4, "at the boundary", options.margin), (5, "A/A, margin 0", 0.0)):
        pair = Pair(-margin, CORRELATION["apart"], options.bound)
        figures["errors"][name] = e = errors(
            pair, partial(Trial, **terms | {"margin": margin}), options.runs, options.examples, seed
        )
        for verdict in ("promoted", "rejected"):
            low, high = e[f"{verdict}_interval"]
            line = f"{e['variance']:>10.4f}    {verdict:<14} {e[f'{verdict}_rate']:>10.4f}     {low:.4f} to {high:.4f}"
            print(f"{name:<20}{line}{'' if high < options.alpha else '  OVER ALPHA'}")

    print("\nreleases   gain   variance   promoted   examples: quartile, median, quartile       known variance, one look")
    for name, correlation in CORRELATION.items():
        for gain in GAINS:
            pair = Pair(gain, correlation, options.bound)
            d = delays(pair, partial(Trial, **terms), options.delay_runs, options.longest)
            # The sample that a one-sided test of one look needs to promote half of the time.
            d["one_look"] = math.ceil(pair.variance * (norm.isf(options.alpha) / (gain + options.margin)) ** 2)
            figures["delays"][f"{name} {gain:g}"] = d
            quartiles = " ".join(f"{'never' if q is None else format(int(q), ','):>12}" for q in d["quartiles"])
            print(f"{name:<9}{gain:>7.3f}{d['variance']:>11.4f}{d['promoted_rate']:>11.3f}{quartiles}{d['one_look']:>25,}")

    pair = Pair(0.0, CORRELATION["apart"], options.bound)
    figures["nanoseconds"] = {str(block): cost(pair, block=block) for block in (256, 1024, 8192)}
    print("\nnanoseconds an example: " + ", ".join(f"{ns:.1f} in blocks of {b}" for b, ns in figures["nanoseconds"].items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
