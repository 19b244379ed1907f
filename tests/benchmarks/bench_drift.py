"""False alarms, delays and what a response is worth: the drift alarm beside River's detectors, and one that knows nothing.

1. False alarms. A panel whose every quantity has exactly the mean that it may have, and `Drift` and River's detectors on a
   stationary stream, each with the exact Poisson interval at 95 %. River's detectors take the block means of the log loss
   (DDM: of the error), with their defaults.
2. Delays: examples from a planted change to the first alarm after it, and the share of streams in which one came. The last
   columns alarm at random, at the detector's own rate of false alarms: what is no better than that has seen nothing. Where a
   detector had none, its rate is that of the interval's upper end.
3. Responses: the electricity stream and a simulated one whose tastes change at once, learned with a fixed rate and with
   `Adapt`, beside the last label.
Run: RIVERDELTA_DATA=... python tests/benchmarks/bench_drift.py [--quick] [--json FILE]
"""

import argparse
import json
import math
import os
from functools import partial
from pathlib import Path

import numba
import numpy as np
import pandas as pd
from river.drift import ADWIN, PageHinkley
from river.drift.binary import DDM
from scipy.special import expit
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from riverdelta import Adapt, Calibration, Entity, Linear
from riverdelta.core.features import Schema
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation.drift import Drift
from riverdelta.evaluation.drift.distances import BLOCK
from riverdelta.evaluation.drift.panel import SHARES, bet
from riverdelta.evaluation.gate import Gate
from riverdelta.lab.simulator import Simulation

RUN_LENGTHS = (1e3, 1e4, 1e5)
CHANGE, AFTER, GRADUAL, RECURRING = 50_000, 50_000, 20_000, 10_000


def stream(n, seed, moved=None, shift=0.0, flip=0.0):
    """A feature, its calibrated logit and labels; `moved` float64[n] is each row's probability to be of after the change."""
    rng = np.random.default_rng(seed)
    late = np.zeros(n, bool) if moved is None else rng.random(n) < moved
    x = rng.normal(size=n) + shift * late
    z = (1.2 * x - 1.0).astype(np.float32)
    label = rng.random(n) < expit(z)
    label ^= late & (rng.random(n) < flip)
    return {"x": x.astype(np.float32)}, z, label.astype(np.float32)


class Ours:
    """`Drift` with its defaults."""

    def __init__(self, run_length=1e7):
        self.drift = Drift(Schema.of({"x": "float32"}), run_length=run_length)

    def alarms(self, columns, z, label):
        """Return the rows of the alarms."""
        found = []
        for start in range(0, len(z), BLOCK):
            part = slice(start, start + BLOCK)
            if self.drift.update({"x": columns["x"][part]}, z[part], z[part], label[part]):
                found.append(min(start + BLOCK, len(z)))
        return found


class Theirs:
    """A detector of River's on block means."""

    def __init__(self, make, error=False):
        self.detector, self.error = make(), error

    def alarms(self, columns, z, label):
        """Return the rows of the alarms."""
        value = (z > 0) != (label > 0) if self.error else np.logaddexp(0, z) - label * z
        found = []
        for block, mean in enumerate(value.reshape(-1, BLOCK).mean(1).tolist()):
            self.detector.update(mean)
            if self.detector.drift_detected:
                found.append((block + 1) * BLOCK)
        return found


DETECTORS = {
    "riverdelta": Ours,
    "ADWIN": partial(Theirs, ADWIN),
    "PageHinkley": partial(Theirs, PageHinkley),
    "DDM": partial(Theirs, DDM, True),
}


@numba.njit
def alarms_at_the_edge(steps, many, run_length, shares, seed):
    """Alarms of a panel of `many` uniform quantities, whose mean is all that it may be, in so many steps."""
    np.random.seed(seed)
    bound, weight, x = np.full(many, 0.5), np.full(many, 1.0 / many), np.empty(many)
    wealth, found = np.zeros((many, len(shares))), 0
    for _ in range(steps):
        for k in range(many):
            x[k] = np.random.random()
        if bet(x, bound, weight, shares, wealth) >= run_length:
            wealth[:] = 0.0
            found += 1
    return found


def rate(alarms, examples):
    """Alarms in an example, and the exact Poisson interval."""
    low = chi2.ppf(0.025, 2 * alarms) / 2 / examples if alarms else 0.0
    return {"alarms": alarms, "examples": examples, "rate": alarms / examples, "low": low,
            "high": chi2.ppf(0.975, 2 * alarms + 2) / 2 / examples}  # fmt: skip


def run_length(found):
    """The mean run length with its interval, as text."""
    if not found["alarms"]:
        return f"over {1 / found['high']:,.0f}"
    return f"{1 / found['rate']:,.0f} ({1 / found['high']:,.0f} to {1 / found['low']:,.0f})"


def false_alarms(streams, rows):
    """Rates on stationary streams."""
    found = {}
    for length in RUN_LENGTHS:
        steps = int(200 * length)
        found[f"panel at the edge, {length:g} steps"] = rate(alarms_at_the_edge(steps, 23, length, SHARES, 1), steps)
    made = {f"riverdelta, {length:g} examples": partial(Ours, length) for length in RUN_LENGTHS}
    made |= {f"{name}, defaults": make for name, make in DETECTORS.items()}
    for name, make in made.items():
        count = sum(len(make().alarms(*stream(rows, seed))) for seed in range(streams))
        found[name] = rate(count, streams * rows)
    return found


def changes(n):
    """How far the change has come, by kind of change and row."""
    row = np.arange(n) - CHANGE
    return {
        "abrupt": (row >= 0) * 1.0,
        "gradual": np.clip(row / GRADUAL, 0, 1),
        "recurring": ((row >= 0) & (row // RECURRING % 2 == 0)) * 1.0,
    }


def delays(streams, rates):
    """Delays by planted change and detector."""
    n = (CHANGE + AFTER) // BLOCK * BLOCK
    kinds = {"a feature moves by 1 σ": {"shift": 1.0}, "by 0.3 σ": {"shift": 0.3}, "half of the labels flip": {"flip": 0.5}}
    found = []
    for how, moved in changes(n).items():
        for what, change in kinds.items():
            for name, make in DETECTORS.items():
                seen = []
                for seed in range(streams):
                    after = [row - CHANGE for row in make().alarms(*stream(n, 1_000 + seed, moved, **change)) if row > CHANGE]
                    seen.append(after[0] if after else math.inf)
                blind = np.random.default_rng(0).exponential(1 / max(rates[name], 1e-12), 10_000)
                found.append({
                    "how": how, "what": what, "detector": name, "median": float(np.median(seen)),
                    "share": float(np.mean(np.isfinite(seen))), "blind_median": float(np.median(blind)),
                    "blind_share": float(np.mean(blind < n - CHANGE)),
                })  # fmt: skip
    return found


def learned(columns, base, label, corrections, response, reference):
    """Learn a stream block by block, respond to its alarms, and return what the served logits were worth."""
    schema = Schema.of({name: "int64" if c.dtype == np.int64 else "float32" for name, c in columns.items()})
    stack, gate, drift, left, served, alarms = Stack(corrections), Gate(), Drift(schema, reference), 0, [], 0
    stack.bind(schema)
    for start in range(0, len(label), BLOCK):
        part = slice(start, start + BLOCK)
        block, z, y = {name: c[part] for name, c in columns.items()}, base[part], label[part]
        weight = np.where(np.arange(len(y)) < left, response.rate if response else 1.0, 1.0).astype(np.float32)
        left = max(left - len(y), 0)
        corrected = stack.learn(block, z.reshape(-1, 1), y, weight)[:, 0]
        served.append(gate.serve(z, corrected, y))
        if drift.update(block, z, served[-1], y):
            alarms += 1
            if response:
                stack.inflate(response.forget)
                left = response.for_examples
    return worth(np.concatenate(served), label) | {"alarms": alarms}


def worth(z, label):
    """Log loss and AUC of logits."""
    z = np.asarray(z, np.float64)
    return {"log_loss": float(np.mean(np.logaddexp(0, z) - label * z)), "auc": float(roc_auc_score(label, z)), "alarms": 0}


def last_label(label):
    """The logit of the share of positives after a label like the last one so far, each count begun at 1."""
    counts, last, logits = np.ones((2, 2)), 0, []
    for y in label.astype(int).tolist():
        logits.append(math.log(counts[last, 1] / counts[last, 0]))
        counts[last, y] += 1
        last = y
    return np.array(logits)


def electricity(folder):
    """The electricity stream, with a base that is a logistic regression on its first fifth."""
    frame = pd.read_csv(folder / "electricity" / "elec.csv")
    label, features = frame["class"].to_numpy(np.float32), frame.drop(columns="class").astype(np.float32)
    cut = len(label) // 5
    scaled = (features - features[:cut].mean()) / features[:cut].std().replace(0, 1).clip(lower=0.01)
    model = LogisticRegression().fit(scaled[:cut], label[:cut])
    columns = {"slot": np.round(features["period"].to_numpy() * 47).astype(np.int64)}
    columns |= {name: scaled[name].to_numpy(np.float32) for name in scaled if name != "period"}
    numbers = [name for name in columns if name != "slot"]
    columns = {name: np.ascontiguousarray(column[cut:]) for name, column in columns.items()}
    base = model.decision_function(scaled).astype(np.float32)[cut:]
    return columns, base, label[cut:], lambda: [Calibration(), Linear("slot", *numbers)], 2_048


def simulated(rows):
    """Two simulated logs end to end, the second with other tastes and items; the base knows the first's click rate."""
    terms = {"rows": rows, "users": 60, "items": 80, "start": 1.0, "drift": 0.0, "user": 2.5, "item": 2.5}
    logs = [Simulation(seed=seed, **terms).generate().stream for seed in (5, 6)]
    columns = {name: np.concatenate([log.columns[name] for log in logs]) for name in ("user_id", "item_id")}
    columns["one"] = np.ones(2 * rows, np.float32)
    label = np.concatenate([log.label for log in logs])
    base = np.full(len(label), math.log(logs[0].label.mean() / (1 - logs[0].label.mean())), np.float32)
    return columns, base, label, lambda: [Calibration(), Entity("item_id", on=["one"]), Entity("user_id", on=["one"])], 8_192


def responses(folder, rows):
    """Log loss, AUC and alarms by stream and response."""
    streams = {"simulator, tastes change at half": simulated(rows)}
    if folder is not None:
        streams = {"electricity": electricity(folder)} | streams
    found = {}
    for name, (columns, base, label, corrections, reference) in streams.items():
        settings = {
            "fixed": None,
            "Adapt()": Adapt(),
            "Adapt(forget=0.1)": Adapt(forget=0.1),
            "Adapt(0.02, 4)": Adapt(0.02, 4.0),
        }
        rows_of = {how: learned(columns, base, label, corrections(), r, reference) for how, r in settings.items()}
        found[name] = {"frozen base": worth(base, label), "last label": worth(last_label(label), label)} | rows_of
    return found


def table(head, rows):
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the streams")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    streams, rows = (2, 1_000_000 // BLOCK * BLOCK) if given.quick else (20, 1_000_000 // BLOCK * BLOCK)
    folder = Path(os.environ["RIVERDELTA_DATA"]) if "RIVERDELTA_DATA" in os.environ else None
    alarms = false_alarms(streams, rows)
    table(
        ["false alarms", "in how many steps or examples", "alarms", "mean run length (95 %)"],
        [[name, f"{r['examples']:.3g}", r["alarms"], run_length(r)] for name, r in alarms.items()],
    )
    rates = {name: alarms[f"{name}, defaults"]["rate"] or alarms[f"{name}, defaults"]["high"] for name in DETECTORS}
    waits = delays(4 if given.quick else 20, rates)
    table(
        ["change", "of", "detector", "median delay", "seen", "at random: median", "seen"],
        [
            [w["how"], w["what"], w["detector"], f"{w['median']:,.0f}" if w["median"] < math.inf else "–", f"{w['share']:.0%}",
             f"{w['blind_median']:,.0f}" if w["blind_share"] > 0 else "–", f"{w['blind_share']:.0%}"]
            for w in waits
        ],
    )  # fmt: skip
    worths = responses(folder, 100_000)
    for name, settings in worths.items():
        cells = [[how, f"{r['log_loss']:.4f}", f"{r['auc']:.4f}", r["alarms"]] for how, r in settings.items()]
        table([name, "log loss", "AUC", "alarms"], cells)
    if given.json:
        given.json.write_text(json.dumps({"false_alarms": alarms, "delays": waits, "responses": worths}, indent=1))


if __name__ == "__main__":
    main()
