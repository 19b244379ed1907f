"""Overview: is it helping, is it fresh, is it healthy, does it drift, and what is to be done."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import panels as p
from boards.board import Rows, board
from boards.health import ADVICE, STATES
from boards.queries import Ask, of

_GAIN = "riverdelta_gain_row_nats"
_SURELY = f"""({of(_GAIN, 'bound="lower"')} > bool 0) - ignoring (bound) ({of(_GAIN, 'bound="upper"')} < bool 0)"""
_COMMANDS = """
| when | run, with `--service service.py:Ranker` |
|---|---|
| scores are worse than before | `riverdelta rollback`: serve the champion and learn on from it |
| scores are worse than the base's | `riverdelta rollback 0 --freeze`, or restart with `RIVERDELTA_SERVE=base` |
| feedback is wrong | `riverdelta freeze`; when it is right again `riverdelta resume` |
| which release to go back to | `riverdelta releases`; `riverdelta diff A B` says what they differ in |

`GET /` of the service shows the same of one service; the alerts' runbook lines are in `monitoring/prometheus/rules/alerts.yml`.
"""


def dashboard() -> Dashboard:
    """Return the dashboard that is opened first."""
    verdict = p.tile(
        "Does it help?",
        "Whether serving surely saves log loss over the base alone, by an interval that holds however often one looks. Yes:"
        " its lower end is above 0. No: its upper end is below 0; roll back.",
        p.NUMBER,
        Ask(_SURELY),
        said={1: ("yes", p.GOOD), 0: ("cannot be told yet", p.NOTE), -1: ("no", p.BAD)},
        to="Learning",
    )
    fresh = p.tile(
        "How fresh is it?",
        "Seconds from feedback to the tables that score, in 95 of 100 cases of the last 5 minutes. Under 1 s is usual; "
        "above 5 s look at the records that wait and at the processors of the host.",
        p.SECONDS,
        Ask(of("riverdelta:freshness_seconds:p95_5m")),
        steps=((None, p.GOOD), (1, p.WARN), (5, p.BAD)),
        nothing="no feedback",
        answer=True,
        to="Learning",
    )
    healthy = p.tile(
        "Is it healthy?",
        "The worst that is the case now: riverdelta:health:state. No answer: Prometheus gets no metrics of the service.",
        p.NUMBER,
        Ask(of("riverdelta:health:state")),
        said=STATES,
        nothing="no answer",
        to="Serving",
    )
    drifts = p.tile(
        "Does it drift?",
        "Whether drift has raised an alarm within the last reference's length. Then open Drift: which columns moved?",
        p.NUMBER,
        Ask(of("riverdelta_drift_alarmed")),
        said={0: ("no alarm", p.GOOD), 1: ("alarm", p.WARN)},
        to="Drift",
    )
    todo = p.tile(
        "What to do?",
        "What follows from the state. Commands take --service, as in service.py:Ranker.",
        p.NUMBER,
        Ask(of("riverdelta:health:state")),
        said=ADVICE,
        nothing="See whether the service runs and whether Prometheus may read /metrics",
    )
    saved = p.lines(
        "Log loss saved over the base",
        "Log loss of the base less that of what was served, on the same rows, with its interval. Above 0 it helps; when the"
        " whole interval is below 0, roll back.",
        p.NATS_ROW,
        Ask(of(_GAIN), "{{bound}}"),
        steps=((None, p.BAD), (0, p.GOOD)),
        interval=True,
    )
    losses = p.lines(
        "Log loss of the last rows",
        "Of the last 10,000 judged rows: the base alone, and what was served. Lower is better; served should lie below base.",
        p.NATS_ROW,
        Ask(of("riverdelta_prequential_log_loss", 'window="recent"'), "{{scorer}}"),
    )
    moved = p.bars(
        "What drifts?",
        "Population stability index of the columns that moved most from their reference. Up to 0.1 as usual, from 0.25 far "
        "away; look at what feeds such a column.",
        p.NUMBER,
        Ask(f"topk by (job, instance, model) (6, {of('riverdelta_drift_psi_ratio')})", "{{column}}"),
        steps=((None, p.GOOD), (0.1, p.WARN), (0.25, p.BAD)),
        high=0.5,
    )
    freshness = p.lines(
        "From feedback to service",
        "Seconds in which half, and 95 of 100, of the feedback was in the tables that score. Above 5 s scores follow users "
        "late.",
        p.SECONDS,
        Ask(of("riverdelta:freshness_seconds:p50_5m"), "50 %"),
        Ask(of("riverdelta:freshness_seconds:p95_5m"), "95 %"),
        steps=((None, p.GOOD), (5, p.BAD)),
        low=0,
    )
    traffic = p.lines(
        "Rows scored, examples learned",
        "Rows that got a score, and those that got their label and were learned, a second. Learned at 0 with feedback "
        "coming: look at Learning.",
        p.ROWS_SECOND,
        Ask(of("riverdelta:rows_scored:rate5m"), "scored"),
        Ask(of("riverdelta:examples_learned:rate5m"), "learned"),
        low=0,
    )
    weight = p.tile(
        "Weight of the corrections",
        "Share of the corrected probability in the served one. The gate moves it by the losses of what was served: near 1 "
        "the corrections are trusted, near 0 the base serves.",
        p.RATIO,
        Ask(of("riverdelta_gate_weight_ratio")),
        steps=((None, p.WARN), (0.5, p.GOOD)),
        decimals=1,
    )
    latency = p.tile(
        "Scoring, 99 of 100 within",
        "Of the last 5 minutes, the slowest transport. Above 0.25 s pages wait: see Serving for the stage.",
        p.SECONDS,
        Ask(f"max by (job, instance, model) ({of('riverdelta:request_seconds:p99_5m')} >= 0)"),
        steps=((None, p.GOOD), (0.1, p.WARN), (0.25, p.BAD)),
        nothing="no requests",
    )
    failing = p.tile(
        "Requests that fail",
        "Share of scoring and feedback requests that failed by a fault of the service, of the last 5 minutes. Above 1 %: "
        "look at the workers' log.",
        p.RATIO,
        Ask(of("riverdelta:request_failures:ratio5m")),
        steps=((None, p.GOOD), (0.001, p.WARN), (0.01, p.BAD)),
        decimals=2,
        nothing="no requests",
    )
    waiting = p.tile(
        "Records that wait",
        "Written to the journal and not learned yet. A few are usual; above 1,000 and growing, the learner does not keep up.",
        p.RECORDS,
        Ask(of("riverdelta:journal_backlog:records")),
        steps=((None, p.GOOD), (100, p.WARN), (1000, p.BAD)),
        decimals=0,
    )
    history = p.states(
        "State over time",
        "The worst that was the case at each time, in the words of the status page.",
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
    return board("Overview", "Is it helping, is it fresh, is it healthy, does it drift, and what is to be done.", rows)
