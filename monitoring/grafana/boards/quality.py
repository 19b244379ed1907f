"""Quality: how good the base's and the served scores are, over all rows and by slice."""

from __future__ import annotations

from boards import panels as p
from boards.board import Rows
from boards.queries import Ask, of

_RECENT = 'window="recent"'


def quality() -> Rows:
    """Return the rows of losses and other measures."""
    loss = p.lines(
        "Loss of the last rows",
        "Of the last 10,000 measured rows, each measured before it was learned, in the unit of the loss: nats for log losses, "
        "squared units of the label for numbers. Lower is better; served should be below base.",
        p.LOSS_ROW,
        _recent("loss"),
    )
    whole = p.lines(
        "Loss of all rows",
        "Since the learner began. The distance between the lines is the loss saved per row.",
        p.LOSS_ROW,
        Ask(of("riverdelta_prequential_loss", 'window="all"'), "{{scorer}}"),
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
        "not finite. The gate leaves out rows whose base output is too large. Above 0: check the base's input.",
        p.ROWS,
        Ask(of("riverdelta_prequential_clipped", 'window="all"'), "{{scorer}}, clipped"),
        Ask(of("riverdelta_prequential_skipped", 'scorer="served",window="all"'), "left out"),
        Ask(of("riverdelta_gate_skipped"), "left out by the gate"),
        steps=((None, p.GOOD), (1, p.WARN)),
        low=0,
    )
    task = p.lines(
        "$measure of the last rows",
        "Measure of the task over the last 10,000 measured rows: the base, the served outputs and simple predictions, such "
        "as the last label; recall by class has a line for each. Served should be better than base and than all of these.",
        p.NUMBER,
        Ask(of("riverdelta_measure", f'measure=~"$measure",{_RECENT}'), "{{scorer}} {{class}}"),
    )
    task = task.repeat("measure").repeat_direction("h").max_per_row(3)
    slices = p.lines(
        "Loss by slice",
        "Of served scores, over recent examples of each slice of @online(…, slices=…), beside all rows. A slice far above is "
        "served worse: check its input.",
        p.LOSS_ROW,
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
            (8, [(8, loss), (8, whole), (8, odd)]),
            (8, [(24, slices)]),
            (8, [(24, task)]),
        ],
        "Are probabilities calibrated? (labels 0 and 1)": [(8, [(12, calibration), (12, calibrated)])],
    }


def _with_slices(measure: str) -> str:
    """Return a measure of every slice, and of all rows as an additional slice, so that there is always one."""
    served = 'scorer="served"'
    whole = of(f"riverdelta_prequential_{measure}", f"{served},{_RECENT}")
    return f'{of(f"riverdelta_slice_{measure}", served)} or label_replace({whole}, "slice", "all rows", "", "")'


def _recent(measure: str) -> Ask:
    return Ask(of(f"riverdelta_prequential_{measure}", _RECENT), "{{scorer}}")
