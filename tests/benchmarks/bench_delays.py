"""What late clicks and sampled negatives cost: calibration and log loss against the true probability, and examples learned.

A simulated service of one row a second, whose users and items arrive over time and whose tastes drift, serves each request with
what it has heard by then; clicks come after an exponential delay. The last quarter of the stream is judged.

  naive      silence is a negative after half the mean delay (39 % of the clicks have come); a late positive is one more row
  weighted   the same, and a late positive takes its negative back: late="weighted"
  paper      the same with the weights of Ktena et al. 2019: 1 + p for positives, (1 - p)(1 + p) for negatives
  long       weighted, and silence is a negative only after seven mean delays (99.9 % of the clicks have come)
  wait       every label, positive or negative, is learned seven mean delays after its row was scored
  k = 0.1    weighted, and a tenth of the negatives is learned: keep_negatives=0.1
  k = 0.1, 1/k     the same, but kept negatives have the weight 1/k instead of the log-odds correction
  k = 0.1, ending  as k = 0.1, with a second Calibration at the end of the stack; "weighted, ending" likewise

Then: how many labels a second are joined and learned on one core (calibration, a linear correction of 2 ids, an entity over 16
floats; 1 in 20 a positive; 1,024 labels a record) with all negatives and with a tenth of them.

Run: python tests/benchmarks/bench_delays.py [--rows 200000] [--delays 60 600 3600] [--seeds 3] [--json FILE]
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from riverdelta import Calibration, Entity, Linear, Schema, Stack
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.records import Feedback, Impressions
from riverdelta.evaluation.prequential import Prequential
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import replay

ALL_CLICKS, REQUEST_ROWS = 7.0, 64


class Weighed(Joiner):
    """A joiner whose examples have other weights than its own."""

    def __init__(self, weigh, *rules, **terms):
        super().__init__(*rules, **terms)
        self.weigh = weigh

    def push(self, sequence, record):
        made = super().push(sequence, record)
        return made and replace(made, weight=self.weigh(made))


def new_stack(ending=False):
    stack = Stack([Calibration(), Entity("user_id"), Entity("item_id"), *([Calibration()] if ending else [])])
    stack.bind(Schema.of({"user_id": "int64", "item_id": "int64"}))
    return stack


def paper(examples):
    p = LOG_LOSS.inverse_link(examples.corrected)[:, 0]
    return np.where(examples.label == 1, 1 + p, (1 - p) * (1 + p)).astype(np.float32)


def importance(examples):
    """1/k for a kept negative; a late positive takes that back: w(1 - p) = (1 - p) + p/k."""
    p = np.minimum(LOG_LOSS.inverse_link(examples.corrected)[:, 0], 0.9)
    return (examples.importance + examples.taken_back * p / (1 - p)).astype(np.float32)


def expected(logit, truth):
    """The log loss float64[N] expected where a row is positive with the probability `truth`."""
    return truth * LOG_LOSS.value(logit, 1.0) + (1 - truth) * LOG_LOSS.value(logit, 0.0)


def ways(log, delay):
    """Yield the name of each way to learn, its log, its joiner, and its stack."""
    half, whole = delay / 2, ALL_CLICKS * delay
    yield "naive", log, Joiner("silence", half, late="plain"), new_stack()
    yield "weighted", log, Joiner("silence", half), new_stack()
    yield "weighted, ending", log, Joiner("silence", half), new_stack(ending=True)
    yield "paper", log, Weighed(paper, "silence", half), new_stack()
    yield "long", log, Joiner("silence", whole), new_stack()
    yield "wait", replace(log, label_time=log.stream.time + whole), Joiner(), new_stack()
    yield "k = 0.1", log, Joiner("silence", half, keep_negatives=0.1), new_stack()
    yield "k = 0.1, ending", log, Joiner("silence", half, keep_negatives=0.1), new_stack(ending=True)
    yield "k = 0.1, 1/k", log, Weighed(importance, "silence", half, keep_negatives=0.1), new_stack()


def measure(rows, delay, intercept, seed):
    """Return for each way its calibration ratio, bias, log loss, examples and seconds, and the log losses to compare with."""
    log = Simulation(rows=rows, delay=delay, intercept=intercept, seed=seed).generate()
    base = np.full(rows, LOG_LOSS.link(log.truth.mean())[0, 0], np.float32)
    columns, last = log.stream.select("user_id", "item_id").columns, slice(int(0.75 * rows), None)
    label, truth = log.stream.label, log.truth[last]
    figures = {}
    for name, heard, joiner, stack in ways(log, delay):
        learner, given = Learner(stack, joiner, Prequential()), {"label_time": heard.label_time, "refresh_rows": REQUEST_ROWS}
        run = replay(learner, columns, base, label, log.stream.time, **given)
        scores = LOG_LOSS.inverse_link(run.corrected[last]).sum()
        figures[name] = {
            "calibration_ratio": float(scores / label[last].sum()),
            "bias": float(scores / truth.sum()) - 1.0,
            "log_loss": float(expected(run.corrected[last], truth).mean()),
            "examples": learner.examples,
            "seconds": run.seconds,
        }
    constant = {"log_loss": float(expected(base[last], truth).mean())}
    return figures | {"base": constant, "truth": {"log_loss": float(expected(LOG_LOSS.link(truth), truth).mean())}}


def throughput(keep, blocks=200, rows=1024, repeat=5):
    """Return labels a second of one core, from records in memory to tables; the best of `repeat`."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(blocks):
        ints, zeros, index = np.full(rows, number), np.zeros(rows, np.int64), np.arange(rows, dtype=np.int32)
        logit_, ids = np.full(rows, -3.0, np.float32), (rng.random((2, rows)) ** 3 * 10_000).astype(np.int64)
        columns = {"user_id": ids[0], "item_id": ids[1], "vec": rng.normal(size=(rows, 16)).astype(np.float32)}
        scored = (ints.astype(np.float64), zeros, zeros, zeros, logit_, logit_, logit_, logit_)
        records.append(Impressions(1, ints, index, *scored, columns))
        label = (rng.random(rows) < 0.05).astype(np.float32)
        records.append(Feedback(zeros + 1, ints, index, label, ints.astype(np.float64), zeros > 0, zeros))
    best = 0.0
    for _ in range(repeat):
        stack = Stack([Calibration(), Linear("user_id", "item_id"), Entity("user_id", on=["vec"])])
        joiner = Joiner(keep_negatives=keep)
        stack.bind(Schema.of({"user_id": "int64", "item_id": "int64", "vec": "float32[16]"}))
        start = time.thread_time()
        for sequence, record in enumerate(records):
            if (made := joiner.push(sequence, record)) is not None:
                stack.learn(made.columns, made.base.reshape(-1, 1), made.label, made.weight)
        best = max(best, blocks * rows / (time.thread_time() - start))
    return best


def mean(runs):
    """Average the figures of several seeds."""
    return {
        name: {figure: float(np.mean([run[name][figure] for run in runs])) for figure in figures}
        for name, figures in runs[0].items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--delays", type=float, nargs="+", default=[60.0, 600.0, 3600.0], help="mean delays in seconds")
    parser.add_argument("--intercepts", type=float, nargs="+", default=[0.3, -2.0], help="logits: how often rows are clicked")
    parser.add_argument("--seeds", type=int, default=3, help="figures are averages of so many streams")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = []
    for intercept in options.intercepts:
        for delay in options.delays:
            figures = mean([measure(options.rows, delay, intercept, seed) for seed in range(options.seeds)])
            table.append({"intercept": intercept, "delay_seconds": delay, "ways": figures})
            print(
                f"\nintercept {intercept:g}, mean delay {delay:g} s: log loss of the base {figures['base']['log_loss']:.4f},",
                end="",
            )
            print(f" of the truth {figures['truth']['log_loss']:.4f}")
            print(f"{'':20} {'calibration':>11} {'bias':>8} {'log loss':>9} {'examples':>9} {'seconds':>8}")
            for name, f in figures.items():
                if "bias" in f:
                    ratio, bias = f"{f['calibration_ratio']:11.4f}", f"{f['bias']:8.2%}"
                    print(f"{name:20} {ratio} {bias} {f['log_loss']:9.4f} {f['examples']:9,.0f} {f['seconds']:8.2f}")
    rates = {str(keep): throughput(keep) for keep in (1.0, 0.1)}
    print(f"\nlabels a second: {rates['1.0']:,.0f} with all negatives, {rates['0.1']:,.0f} with a tenth of them")
    if options.json:
        options.json.write_text(json.dumps({"streams": table, "labels_per_second": rates}, indent=2))


if __name__ == "__main__":
    main()
