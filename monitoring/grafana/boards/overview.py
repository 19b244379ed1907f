"""Overview: does it help, is it fresh, is it healthy, does it drift, and what to do."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import panels as p
from boards.board import Rows, board
from boards.health import ADVICE, STATES
from boards.queries import Ask, of

_GAIN = "riverdelta_row_gain"
_SURELY = f"""({of(_GAIN, 'bound="lower"')} > bool 0) - ignoring (bound) ({of(_GAIN, 'bound="upper"')} < bool 0)"""
_COMMANDS = """
| when | run, with `--service service.py:Ranker` |
|---|---|
| scores are worse than before | `riverdelta rollback`: serve the champion and continue learning from it |
| scores are worse than the base's | `riverdelta rollback 0 --freeze`, or restart with `RIVERDELTA_SERVE=base` |
| feedback is wrong | `riverdelta freeze`; once it is right again `riverdelta resume` |
| which release to roll back to | `riverdelta releases`; `riverdelta diff A B` shows how two differ |

`GET /` of a service shows the same for that service; the alerts' runbook lines are in
`monitoring/prometheus/rules/alerts.yml`.
"""


def dashboard() -> Dashboard:
    """Return the dashboard to open first."""
    verdict = p.tile(
        "Does it help?",
        "Whether serving saves log loss over the base alone, by an interval that is valid however often it is read. Yes: its "
        "lower end is above 0. No: its upper end is below 0; roll back.",
        p.NUMBER,
        Ask(_SURELY),
        said={1: ("yes", p.GOOD), 0: ("not known yet", p.NOTE), -1: ("no", p.BAD)},
        to="Learning",
    )
    fresh = p.tile(
        "How fresh is it?",
        "Seconds from feedback to the tables that score, in 95 of 100 cases of the last 5 minutes. Below 1 s is normal; "
        "above 5 s look at the backlog and at the CPU load of the host.",
        p.SECONDS,
        Ask(of("riverdelta:freshness_seconds:p95_5m")),
        steps=((None, p.GOOD), (1, p.WARN), (5, p.BAD)),
        nothing="no feedback",
        answer=True,
        to="Learning",
    )
    healthy = p.tile(
        "Is it healthy?",
        "The worst current condition, riverdelta:health:state. No answer: Prometheus gets no metrics from the service.",
        p.NUMBER,
        Ask(of("riverdelta:health:state")),
        said=STATES,
        nothing="no answer",
        to="Serving",
    )
    drifts = p.tile(
        "Does it drift?",
        "Whether drift has raised an alarm within the last reference length. If so, open Drift: which columns moved?",
        p.NUMBER,
        Ask(of("riverdelta_drift_alarmed")),
        said={0: ("no alarm", p.GOOD), 1: ("alarm", p.WARN)},
        to="Drift",
    )
    todo = p.tile(
        "What to do?",
        "Advice for the current condition. Commands take --service, such as service.py:Ranker.",
        p.NUMBER,
        Ask(of("riverdelta:health:state")),
        said=ADVICE,
        nothing="Check that the service runs and that Prometheus may read /metrics",
    )
    saved = p.lines(
        "Log loss saved over the base",
        "Log loss of the base less that of the served scores, on the same rows, with its interval. Above 0 it helps; if all "
        "of the interval is below 0, roll back.",
        p.NATS_ROW,
        Ask(of(_GAIN), "{{bound}}"),
        steps=((None, p.BAD), (0, p.GOOD)),
        interval=True,
    )
    losses = p.lines(
        "Log loss of the last rows",
        "Of the last 10,000 measured rows: the base alone, and the served scores. Lower is better; served should be below "
        "base.",
        p.NATS_ROW,
        Ask(of("riverdelta_prequential_loss", 'window="recent"'), "{{scorer}}"),
    )
    moved = p.bars(
        "What drifts?",
        "Population stability index of the columns that moved most from their reference. Up to 0.1 normal, from 0.25 far "
        "away: check the source of such a column.",
        p.NUMBER,
        Ask(f"topk by (job, instance, model) (6, {of('riverdelta_drift_psi_ratio')})", "{{column}}"),
        steps=((None, p.GOOD), (0.1, p.WARN), (0.25, p.BAD)),
        high=0.5,
    )
    freshness = p.lines(
        "From feedback to service",
        "Seconds within which 50 % and 95 % of the feedback was in the tables that score. Above 5 s scores lag behind users.",
        p.SECONDS,
        Ask(of("riverdelta:freshness_seconds:p50_5m"), "50 %"),
        Ask(of("riverdelta:freshness_seconds:p95_5m"), "95 %"),
        steps=((None, p.GOOD), (5, p.BAD)),
        low=0,
    )
    traffic = p.lines(
        "Rows scored, examples learned",
        "Rows scored and examples learned a second. If nothing is learned although feedback arrives, look at Learning.",
        p.ROWS_SECOND,
        Ask(of("riverdelta:rows_scored:rate5m"), "scored"),
        Ask(of("riverdelta:examples_learned:rate5m"), "learned"),
        low=0,
    )
    weight = p.tile(
        "Weight of the corrections",
        "Weight of the corrected probability in the served mixture. The gate adapts it to the losses of served rows: near 1 "
        "the corrections serve, near 0 the base.",
        p.RATIO,
        Ask(of("riverdelta_gate_weight_ratio")),
        steps=((None, p.WARN), (0.5, p.GOOD)),
        decimals=1,
    )
    latency = p.tile(
        "Scoring, 99 of 100 within",
        "Of the last 5 minutes, for the slowest transport. Above 0.25 s look at Serving for the stage.",
        p.SECONDS,
        Ask(f"max by (job, instance, model) ({of('riverdelta:request_seconds:p99_5m')} >= 0)"),
        steps=((None, p.GOOD), (0.1, p.WARN), (0.25, p.BAD)),
        nothing="no requests",
    )
    failing = p.tile(
        "Requests that fail",
        "Share of scoring and feedback requests of the last 5 minutes that failed with a server error. Above 1 %: look at "
        "the workers' log.",
        p.RATIO,
        Ask(of("riverdelta:request_failures:ratio5m")),
        steps=((None, p.GOOD), (0.001, p.WARN), (0.01, p.BAD)),
        decimals=2,
        nothing="no requests",
    )
    waiting = p.tile(
        "Backlog",
        "Records written to the journal but not learned yet. A few are normal; above 1,000 and growing, the learner does not "
        "keep up.",
        p.RECORDS,
        Ask(of("riverdelta:journal_backlog:records")),
        steps=((None, p.GOOD), (100, p.WARN), (1000, p.BAD)),
        decimals=0,
    )
    history = p.states(
        "State over time",
        "The worst condition at each time, in the terms of the status page.",
        Ask(of("riverdelta:health:state")),
        STATES,
    )
    rows: Rows = {
        "": [
            (4, [(6, verdict), (6, fresh), (6, healthy), (6, drifts)]),
            (3, [(24, todo)]),
            (8, [(8, saved), (8, losses), (8, moved)]),
            (4, [(6, weight), (6, latency), (6, failing), (6, waiting)]),
        ],
        "Over time": [
            (8, [(12, freshness), (12, traffic)]),
            (4, [(24, history)]),
            (6, [(24, p.note("The way back", "What an operator can run, and when.", _COMMANDS))]),
        ],
    }
    return board("Overview", "Does it help, is it fresh, is it healthy, does it drift, and what to do.", rows)
