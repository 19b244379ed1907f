"""Drift: what moved, how certain that is, its effect on the scores, and how the learner responds."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import panels as p
from boards.board import Rows, board
from boards.queries import WHO, Ask, of

#: Thresholds from which a distance is usually called a shift, and a large shift.
_SHIFT: p.Steps = ((None, p.GOOD), (0.1, p.WARN), (0.25, p.BAD))
_EVIDENCE: p.Steps = ((None, p.GOOD), (0.5, p.WARN), (1, p.BAD))
_PSI = of("riverdelta_drift_psi_ratio")


def dashboard() -> Dashboard:
    """Return the dashboard of the input stream."""
    alarmed = p.tile(
        "Does it drift?",
        "Whether drift has raised an alarm within the last reference length.",
        p.NUMBER,
        Ask(of("riverdelta_drift_alarmed")),
        said={0: ("no alarm", p.GOOD), 1: ("alarm", p.WARN)},
    )
    nearest = p.tile(
        "Nearest to an alarm",
        "Log of the highest evidence of a quantity, relative to that of an alarm. At 100 % the alarm is raised.",
        p.RATIO,
        Ask(f"max by ({WHO}) ({of('riverdelta_drift_evidence_ratio')})"),
        steps=_EVIDENCE,
        decimals=0,
    )
    shifted = p.tile(
        "Columns that shifted",
        "Columns whose population stability index is 0.1 or more. A distance alone raises no alarm.",
        p.NUMBER,
        Ask(f"sum by ({WHO}) ({_PSI} >= bool 0.1)"),
        steps=((None, p.GOOD), (1, p.WARN)),
        decimals=0,
    )
    adapting = p.tile(
        "Still at the raised rate",
        "Examples still to be learned at the raised rate, after an alarm with on_drift=Adapt(…).",
        p.ROWS,
        Ask(of("riverdelta_drift_adapting_examples")),
        decimals=0,
    )
    columns = p.bars(
        "Drift by feature, now",
        "Population stability index of each column against its reference. Up to 0.1 normal, up to 0.25 shifted, above far "
        "away: check the source of such a column. Empty until the reference is complete.",
        p.NUMBER,
        Ask(_PSI, "{{column}}"),
        steps=_SHIFT,
        high=0.5,
    )
    psi = p.lines(
        "Population stability index",
        "Of each column against its reference; `score` is the base's logit. Above 0.1 shifted, above 0.25 far away.",
        p.NUMBER,
        Ask(_PSI, "{{column}}"),
        steps=_SHIFT,
        low=0,
    )
    js = p.lines(
        "Jensen-Shannon distance",
        "Of each column from its reference: 0 identical, 1 disjoint. Unlike the index it is bounded.",
        p.NUMBER,
        Ask(of("riverdelta_drift_js_ratio"), "{{column}}"),
        steps=((None, p.GOOD), (0.1, p.WARN), (0.3, p.BAD)),
        low=0,
        high=1,
    )
    evidence = p.lines(
        "What may raise an alarm",
        "Log of each quantity's evidence relative to that of an alarm. It grows only while the quantity exceeds its "
        "tolerance; at 100 % the alarm is raised.",
        p.RATIO,
        Ask(of("riverdelta_drift_evidence_ratio"), "{{quantity}}"),
        steps=_EVIDENCE,
        low=0,
    )
    alarms = p.bars(
        "Alarms so far",
        "By quantity. loss: served scores got worse. calibration: scores are biased. A column: its values moved.",
        p.NUMBER,
        Ask(of("riverdelta_drift_alarms"), "{{quantity}}"),
        steps=((None, p.GOOD), (1, p.WARN)),
    )
    expected = p.lines(
        "Log loss to expect, without labels",
        "Of recent rows, if labels are drawn from the served probability; only as accurate as its calibration. A rise before "
        "labels arrive is the first sign of harder traffic.",
        p.NATS_ROW,
        Ask(of("riverdelta_expected_loss"), "{{scorer}}"),
    )
    seen = p.lines(
        "Log loss measured, with labels",
        "Of the last 10,000 measured rows. If served rises above what was expected, user behaviour changed, not the traffic.",
        p.NATS_ROW,
        Ask(of("riverdelta_prequential_loss", 'window="recent"'), "{{scorer}}"),
    )
    calibration = p.lines(
        "Calibration of the last rows",
        "Σ score / Σ label; 1 is right. Concept drift shows here first.",
        p.NUMBER,
        Ask(of("riverdelta_prequential_calibration_ratio", 'window="recent"'), "{{scorer}}"),
        steps=((None, p.BAD), (0.8, p.GOOD), (1.2, p.BAD)),
    )
    responses = p.lines(
        "Responses",
        "Examples still to be learned at the raised rate after an alarm with on_drift=Adapt(…). At 0 the rate is normal again.",
        p.ROWS,
        Ask(of("riverdelta_drift_adapting_examples"), "still at the raised rate"),
        low=0,
    )
    rows: Rows = {
        "": [(4, [(6, alarmed), (6, nearest), (6, shifted), (6, adapting)])],
        "What moved?": [(9, [(8, columns), (8, psi), (8, js)])],
        "How certain is it?": [(8, [(16, evidence), (8, alarms)])],
        "What does it do?": [(8, [(6, expected), (6, seen), (6, calibration), (6, responses)])],
    }
    return board("Drift", "What moved, how certain that is, its effect on the scores, and how the learner responds.", rows)
