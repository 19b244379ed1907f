"""What `Calibration` makes of a ranking base whose scores are not log probabilities: its temperature and the list log loss.

2,000 lists of 10 rows with one click each, drawn from the softmax of a relevance; the base knows it with noise, on each scale.
"Best" is the temperature that has the least loss on the second thousand lists, which every column is about.
"""

import numpy as np

from riverdelta import Calibration, Ranking, Schema, Stack
from riverdelta.evaluation.gate import Gate

LISTS, ROWS, LOSS = 2_000, 10, Ranking()
SCALES = {
    "log probabilities": lambda z: z,
    "0 to 40, as of BM25": lambda z: np.clip(12 + 6 * z, 0, 40),
    "-1 to 1, as cosines": lambda z: np.clip(0.3 + 0.15 * z, -1, 1),
    "0 to 100": lambda z: np.clip(50 + 20 * z, 0, 100),
}


def loss_of(score, click):
    """The list log loss of the second thousand lists."""
    rows = slice(LISTS * ROWS // 2, None)
    group = np.repeat(np.arange(LISTS // 2), ROWS)
    return 2.0 * float(LOSS.value(score.ravel()[rows], click.ravel()[rows], group).sum()) / LISTS


def main():
    """Print a line for each scale and prior variance."""
    rng = np.random.default_rng(0)
    relevance = rng.normal(size=(LISTS, ROWS))
    known = relevance + 0.5 * rng.normal(size=relevance.shape)
    share = np.exp(relevance) / np.exp(relevance).sum(axis=1, keepdims=True)
    click = np.stack([rng.multinomial(1, each) for each in share]).astype(np.float32)
    group, ones = np.repeat(np.arange(LISTS), ROWS), np.ones(LISTS * ROWS, np.float32)
    print(f"{'scores':22}{'base':>8}{'best':>8}{'at':>8}{'variance':>10}{'corrected':>11}{'at':>8}{'served':>8}")
    for name, scaled in SCALES.items():
        base = scaled(known).astype(np.float32).reshape(-1, 1)
        best = min(np.geomspace(1e-3, 30, 500), key=lambda t, base=base: loss_of(t * base, click))
        for variance in (0.1, 10.0):
            stack = Stack([Calibration(variance=variance)], LOSS)
            stack.bind(Schema())
            corrected = stack.learn({}, base, click.ravel(), ones, group=group)
            served = Gate(LOSS).serve(base, corrected, click.ravel(), ones, group)
            temperature = 1.0 + float(stack.corrections[0].served["line"].values[0, 1])
            found = loss_of(base, click), loss_of(best * base, click), loss_of(corrected, click), loss_of(served, click)
            print(
                f"{name:22}{found[0]:8.3f}{found[1]:8.3f}{best:8.3f}{variance:10g}"
                f"{found[2]:11.3f}{temperature:8.3f}{found[3]:8.3f}"
            )


if __name__ == "__main__":
    main()
