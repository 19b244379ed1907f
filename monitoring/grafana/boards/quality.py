"""Quality: how good the base's and the served scores are, over all rows and by slice."""

from __future__ import annotations

from boards import panels as p
from boards.board import Rows
from boards.queries import Ask, of

_RECENT = 'window="recent"'


def quality() -> Rows:
    """Return the rows of losses and other measures."""
    loss = p.lines(
        "Log loss of the last rows",
        "Of the last 10,000 measured rows, each measured before it was learned. Lower is better; served should be below base.",
        p.NATS_ROW,
        _recent("loss"),
    )
    whole = p.lines(
        "Log loss of all rows",
        "Since the learner began. The distance between the lines is the loss saved per row.",
        p.NATS_ROW,
        Ask(of("riverdelta_prequential_loss", 'window="all"'), "{{scorer}}"),
    )
    auc = p.lines(
        "AUC of the last rows",
        "Share of pairs of a positive and a negative that are in the right order. 0.5 is chance.",
        p.NUMBER,
        _recent("auc"),
        steps=((None, p.BAD), (0.5, p.GOOD)),
    )
    calibration = p.lines(
        "Calibration of the last rows",
        "Σ score / Σ label. 1 is right; outside 0.8 to 1.2 raises RiverdeltaCalibrationOff: end the stack with Calibration().",
        p.NUMBER,
        _recent("calibration_ratio"),
        steps=((None, p.BAD), (0.8, p.GOOD), (1.2, p.BAD)),
    )
    odd = p.lines(
        "Rows clipped or left out",
        "Rows whose loss was clipped, because the base returned an extreme number, and rows left out because their score was "
        "not finite. The gate leaves out all rows with a base logit beyond ±56. Above 0: check the base's input.",
        p.ROWS,
        Ask(of("riverdelta_prequential_clipped", 'window="all"'), "{{scorer}}, clipped"),
        Ask(of("riverdelta_prequential_skipped", 'scorer="served",window="all"'), "left out"),
        Ask(of("riverdelta_gate_skipped"), "left out by the gate"),
        steps=((None, p.GOOD), (1, p.WARN)),
        low=0,
    )
    threshold = p.lines(
        "Accuracy and F1 at the threshold",
        "Of the last 10,000 measured rows; scores from RIVERDELTA_THRESHOLD on count as positive. Higher is better.",
        p.RATIO,
        Ask(of("riverdelta_prequential_accuracy", _RECENT), "{{scorer}} accuracy"),
        Ask(of("riverdelta_prequential_f1", _RECENT), "{{scorer}} F1"),
        low=0,
        high=1,
    )
    pair = p.lines(
        "Precision and recall at the threshold",
        "Of the last 10,000 measured rows: the share of predicted positives that are positive, and of positives that are "
        "predicted.",
        p.RATIO,
        Ask(of("riverdelta_prequential_precision", _RECENT), "{{scorer}} precision"),
        Ask(of("riverdelta_prequential_recall", _RECENT), "{{scorer}} recall"),
        low=0,
        high=1,
    )
    slices = p.lines(
        "Log loss by slice",
        "Of served scores, over recent examples of each slice of @online(…, slices=…), beside all rows. A slice far above is "
        "served worse: check its input.",
        p.NATS_ROW,
        Ask(_with_slices("loss"), "{{column}} {{slice}}"),
    )
    calibrated = p.lines(
        "Calibration by slice",
        "Σ score / Σ label of served scores, by slice, beside all rows. 1 is right.",
        p.NUMBER,
        Ask(_with_slices("calibration_ratio"), "{{column}} {{slice}}"),
        steps=((None, p.BAD), (0.8, p.GOOD), (1.2, p.BAD)),
    )
    return {
        "How good are the scores?": [
            (8, [(8, loss), (8, whole), (8, calibration)]),
            (8, [(6, auc), (6, threshold), (6, pair), (6, odd)]),
            (8, [(12, slices), (12, calibrated)]),
        ]
    }


def _with_slices(measure: str) -> str:
    """Return a measure of every slice, and of all rows as an additional slice, so that there is always one."""
    served = 'scorer="served"'
    whole = of(f"riverdelta_prequential_{measure}", f"{served},{_RECENT}")
    return f'{of(f"riverdelta_slice_{measure}", served)} or label_replace({whole}, "slice", "all rows", "", "")'


def _recent(measure: str) -> Ask:
    return Ask(of(f"riverdelta_prequential_{measure}", _RECENT), "{{scorer}}")
