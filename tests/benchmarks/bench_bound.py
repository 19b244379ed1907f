"""Whether the gate's bound holds: excess over the better expert and bound, in nats over the stream, on every stream tried.

1. Every stream of `streams.py`, as it is and under each attack of `riverdelta replay --attack`, at every lag, replayed as that
   command does it (breaker on). The excess is reckoned here from the logits that were served, in float64.
2. The adversaries of tests/gate: experts that are better, equal, mild and wild; labels at random, constant, true, turned at the
   worst moment, and alternating with the delay; labels at once and late.
3. Weighted examples, through the joiner and the learner, a row at a time: the first rows of every stream, with the corrected
   logits of 1. at no lag, and the adversaries of tests/gate/test_weighted.py; negatives kept 1 in 10 and 1 in 50, explicit
   labels at once, and silence whose negatives late positives take back; the same with labels of weights from 0 to 100.
4. Every other loss (tests/evaluation/gate/test_tasks.py): classes, lists shown in full and in part with clicks, grades and
   propensities down to 0.01, squares with and without a range, and counts; labels drawn, alternating and turned at the worst
   moment, at once and late, with rows taken back; in the unit of the loss.
5. The first 5,000 rows of the public data sets of `riverdelta replay --dataset`, with their bases and corrections: their own
   labels, and those of the second half dealt out at random; known at once, 8 and 100 rows or lists later, and as late as that
   command takes them.
The last line counts the streams whose excess is above the bound, or whose bound is above the worst case by more than the
rounding of float32 logits: it must be 0.
Run: RIVERDELTA_DATA=... python tests/benchmarks/bench_bound.py [--quick] [--part N ...] [--json FILE]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from streams import FOLDER, available

from riverdelta.core.settings import Settings
from riverdelta.evaluation.gate import Gate
from riverdelta.lab.attacks import KINDS
from riverdelta.lab.datasets.find import NAMES, cache_of, data_set, folder_of
from riverdelta.learning.admission import Admission
from riverdelta.learning.learner import new_learner
from riverdelta.learning.observers import Observer
from riverdelta.learning.replay import replay
from riverdelta.serving.frozen import score_with_base

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation" / "gate"))
import test_gate as adversary
import test_tasks as tasks
import test_weighted as weighted_adversary

LAGS = {"none": (0, 0.0), "8 rows": (8, 0.0), "100 rows": (100, 0.0), "a day": (0, 86_400.0)}
RESIDUALS = ("better", "equal", "wild", "mild")
SOURCES = 8
KEEPS = (0.1, 0.02)
#: So many rows of a public data set.
ROWS = 5_000


def excess(label, base, corrected, served):
    """What the served logits cost over those of the better expert, in nats over all rows."""
    losses = [float((np.logaddexp(0, z, dtype=float) - label * z).sum()) for z in (served, base, corrected)]
    return losses[0] - min(losses[1:])


def row(stream, attack, lag, over, gate):
    """A line of the tables."""
    report = gate.report()
    return {"stream": stream, "attack": attack, "lag": lag, "rows": report["examples"], "excess": over,
            "reported": report["excess"], "bound": report["bound"], "worst_case": report["worst_case"]}  # fmt: skip


def replayed(quick):
    """Yield each stream, attack and lag."""
    for prepared in available(quick):
        for kind in (None, *KINDS):
            if kind == "drift" and not prepared.keys:
                continue
            stream, base = prepared.stream, prepared.base
            source = np.arange(len(stream), dtype=np.int64) % SOURCES + 1
            if kind:
                done, base = prepared.attacked(kind, sources=SOURCES)
                stream, source = done.stream, done.source
            for lag, (rows, seconds) in LAGS.items():
                admission = Admission.of(prepared.keys, Settings())
                run, learner = prepared.replayed(stream, base, admission, source, rows, seconds)
                over = excess(stream.label, run.base, run.corrected, run.served)
                yield row(stream.name, kind or "none", lag, over, learner.gate)


def adversaries(quick):
    """Yield each kind of experts, of labels, and delay."""
    for delay in (0, 10) if quick else (0, 1, 10, 100, 1_000):
        for residuals in RESIDUALS:
            for kind in adversary.KINDS:
                rng, gate = np.random.default_rng([delay, RESIDUALS.index(residuals)]), Gate()
                base, corrected = adversary.experts(residuals, adversary.N, rng)
                label = adversary.labels(kind, base, corrected, rng, delay or 50)
                if delay:
                    served = adversary.run(gate, base, corrected, label, delay)
                else:
                    served = gate.serve(base, corrected, label)
                over = excess(label, base, corrected, served)
                yield row(f"{residuals} experts", kind, f"{delay} rows" if delay else "none", over, gate)


def weighted(quick):
    """Yield each stream and adversary of weighted examples."""
    count = 500 if quick else 4_000
    streams = []
    for prepared in available(quick):
        run, _ = prepared.replayed(prepared.stream, prepared.base)
        streams.append((prepared.stream.name, "none", run.base[:count], run.corrected[:count], prepared.stream.label[:count]))
    for residuals in RESIDUALS:
        if residuals in ("equal", "mild") and quick:
            continue
        for kind, labels in weighted_adversary.STREAMS.items():
            rng = np.random.default_rng(RESIDUALS.index(residuals))
            base, corrected = adversary.experts(residuals, count, rng)
            streams.append((f"{residuals} experts", kind, base, corrected, labels(base, corrected, rng).astype(np.float32)))
    for name, kind, base, corrected, label in streams:
        sizes = np.array(weighted_adversary.SENT["of all sizes"])
        for keep, sent in [(keep, sent) for keep in KEEPS for sent in (None, sizes)]:
            rng = np.random.default_rng(0)
            explicit = weighted_adversary.Service(keep_negatives=keep)
            explicit.explicit(base, corrected, label, None if sent is None else rng.choice(sent, len(label)))
            silent = weighted_adversary.Service(**weighted_adversary.SILENCE, keep_negatives=keep)
            silent.silent(base, corrected, label, np.random.default_rng(0), sent)
            shown = f"{name}, {keep:.0%} of negatives" + ("" if sent is None else ", weights to 100")
            for lag, service in (("none", explicit), ("silence, late positives", silent)):
                yield row(shown, kind, lag, service.excess(), service.learner.gate)


def of_tasks(quick):
    """Yield each loss, kind of labels, and delay."""
    count = 400 if quick else 4_000
    for name, loss in tasks.LOSSES.items():
        for kind in tasks.KINDS:
            for seed in range(1 if quick else 4):
                columns = tasks.stream(loss, kind, count, seed)
                shown = np.random.default_rng(seed).random(len(columns[0])) < 0.6
                shown[:: tasks.SIZE] = True
                for part in (None, shown) if loss.lists else (None,):
                    for delay, back in ((0, 0), (10, 0), (100, 0), (100, 3)):
                        gate = Gate(loss)
                        over = tasks.run(gate, columns, delay, back, part)
                        lag = (f"{delay} examples" if delay else "none") + (", 1 in 3 taken back" if back else "")
                        yield row(f"{name} {seed}" + (", shown in part" if part is not None else ""), kind, lag, over, gate)


class Served(Observer):
    """What a learner's examples cost as served, by the base and corrected, in the loss's unit: reckoned in float64."""

    def __init__(self, loss):
        self.loss, self.costs = loss, np.zeros(3)

    def on_examples(self, position, examples):
        rows, label, weight = examples.measured()
        for at, raw in enumerate((examples.served, examples.base, examples.corrected)):
            lost = self.loss.value(raw[rows], label, **examples.lists(rows))
            self.costs[at] += float((weight.astype(float) * lost).sum())

    @property
    def excess(self):
        return self.costs[0] - min(self.costs[1:])


def public(quick):
    """Yield each public data set that there is data for, with its own labels and with dealt ones, at each lag."""
    for name in NAMES if FOLDER and not quick else ():
        if not (FOLDER / name).is_dir():
            continue
        data, work = data_set(name), cache_of(name)
        split = data.load(folder_of(name), work)
        definition, stream = data.definition(data.trained(split.first, work)), split.later[:ROWS]
        order = np.arange(len(stream)) if stream.group is None else np.unique(stream.group, return_inverse=True)[1]
        half, dealt = len(stream) // 2, stream.label.copy()
        dealt[half:] = np.random.default_rng(0).permutation(dealt[half:])
        for kind, label in (("its own", stream.label), ("dealt from the middle on", dealt)):
            for rows, seconds in dict.fromkeys([(0, 0.0), (8, 0.0), (100, 0.0), (data.lag_rows, data.lag_seconds)]):
                learner, time = new_learner(definition, Settings()), stream.time if seconds else order.astype(float)
                learner.observers["served"] = served = Served(definition.loss)
                base, columns = score_with_base(definition, stream.columns, learner.stack.reads)
                lists = {"propensity": stream.propensity, "group": stream.group}
                replay(learner, columns, base, label, time, label_time=time + rows + seconds, **lists)
                lag = f"{seconds:,.0f} s" if seconds else f"{rows} examples" if rows else "none"
                yield row(name, kind, lag, served.excess, learner.gate)


PARTS = (replayed, adversaries, weighted, of_tasks, public)


def show(lines):
    """Print a Markdown table as the lines come, and return them."""
    print("\n| stream | labels | lag | rows | excess | bound | worst case |\n|---|---|---|---:|---:|---:|---:|")
    kept = []
    for r in lines:
        kept.append(r)
        numbers = [f"{r['rows']:,}", *(f"{r[name]:,.1f}" for name in ("excess", "bound", "worst_case"))]
        print(f"| {r['stream']} | {r['attack']} | {r['lag']} | " + " | ".join(numbers) + " |", flush=True)
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small simulated stream, and fewer delays")
    parser.add_argument("--part", type=int, nargs="+", choices=range(1, len(PARTS) + 1), help="only these of the above")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    parts = PARTS if options.part is None else [PARTS[number - 1] for number in options.part]
    found = [r for part in parts for r in show(part(options.quick))]
    if not found:
        parser.error("no data set is in the folder RIVERDELTA_DATA; set it, or leave out --part")
    rounding = weighted_adversary.ROUNDING / min(KEEPS)
    broken = [r for r in found if not r["excess"] <= r["bound"] <= r["worst_case"] + rounding * r["rows"]]
    closest = max(found, key=lambda r: r["excess"] / r["bound"])
    share = closest["excess"] / closest["bound"]
    print(f"\n{len(found)} streams; excess above the bound on {len(broken)}. The nearest has {share:.0%} of its bound:")
    print(f"{closest['stream']}, labels {closest['attack']}, lag {closest['lag']}")
    if options.json:
        options.json.write_text(json.dumps({"streams": found, "broken": len(broken)}, indent=1) + "\n")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
