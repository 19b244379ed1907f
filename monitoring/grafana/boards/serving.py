"""Serving: latency by transport and stage, throughput, errors, the journal's writers and the provider."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import panels as p
from boards.board import Rows, board
from boards.queries import Ask, each, of, quantile, rate

_REQUEST = "riverdelta_request_seconds"
_PARTS = 'stage!="total"'
_SLOW: p.Steps = ((None, p.GOOD), (0.25, p.BAD))
_SHARE: p.Steps = ((None, p.GOOD), (0.01, p.BAD))


def dashboard() -> Dashboard:
    """Return the dashboard for the operators of the service."""
    requests = p.lines(
        "Requests by outcome",
        "Scoring and feedback requests a second. Invalid, conflict and too_large are client errors, internal and unavailable "
        "server errors: look at the workers' log.",
        p.REQUESTS_SECOND,
        Ask(of("riverdelta:requests:rate5m"), "{{endpoint}}, {{outcome}}"),
        low=0,
    )
    shares = p.lines(
        "Requests that fail or are refused",
        "Share of requests that failed with a server error, or were refused with a client error. Failures above 1 % raise "
        "RiverdeltaErrors.",
        p.RATIO,
        Ask(of("riverdelta:request_failures:ratio5m"), "failed"),
        Ask(of("riverdelta:request_refusals:ratio5m"), "refused"),
        steps=_SHARE,
        low=0,
    )
    rows = p.lines(
        "Rows scored",
        "Rows scored a second, by transport. `python` is a call within the process.",
        p.ROWS_SECOND,
        Ask(each("transport", rate("riverdelta_rows_scored_total")), "{{transport}}"),
        low=0,
        stacked=True,
    )
    unscored = p.lines(
        "Rows without a score",
        "Rows a second whose base score, or served score, was NaN; RIVERDELTA_NOT_FINITE sets the answer for them. Any raises "
        "RiverdeltaNotFinite: the workers' log names the first.",
        p.ROWS_SECOND,
        Ask(each("scorer", rate("riverdelta_rows_not_finite_total")), "{{scorer}}"),
        steps=((None, p.GOOD), (0.001, p.WARN)),
        low=0,
    )
    latency = p.lines(
        "Time of a scoring request",
        "Seconds in which half, and 99 of 100, are answered, by transport. 99 of 100 above 0.25 s raises RiverdeltaSlow: "
        "compare the stages; add workers, or send smaller requests.",
        p.SECONDS,
        Ask(f"{of('riverdelta:request_seconds:p50_5m')} >= 0", "{{transport}} 50 %"),
        Ask(f"{of('riverdelta:request_seconds:p99_5m')} >= 0", "{{transport}} 99 %"),
        steps=_SLOW,
        low=0,
    )
    spent = p.lines(
        "Where the time goes",
        "Mean seconds of each stage of a scoring request: decode the request, score it by ONNX Runtime, append its "
        "impressions to the journal, encode the answer. Score should dominate.",
        p.SECONDS,
        Ask(
            f"{each('stage', rate(f'{_REQUEST}_sum', _PARTS))} / ({each('stage', rate(f'{_REQUEST}_count', _PARTS))} > 0)",
            "{{stage}}",
        ),
        low=0,
        stacked=True,
    )
    slowest = p.lines(
        "The slow ones by stage",
        "Seconds in which 99 of 100 requests pass a stage. A slow score stage needs more cores, a slow journal stage a "
        "faster disk.",
        p.SECONDS,
        Ask(quantile(0.99, _REQUEST, "stage", _PARTS), "{{stage}}"),
        steps=_SLOW,
        low=0,
    )
    feedback = p.lines(
        "Time until feedback is durable",
        "Seconds in which 99 of 100 feedback requests are on disk and answered. Above 0.25 s look at the disk.",
        p.SECONDS,
        Ask(f"{of('riverdelta:feedback_seconds:p99_5m')} >= 0", "99 %"),
        steps=_SLOW,
        low=0,
    )
    outcomes = p.lines(
        "Feedback by outcome",
        "Items a second. Accepted is learned; duplicate, conflict, late and expired are not; bad_id and out_of_range are "
        "the sender's fault; impression_lost means that rows were dropped.",
        "count:items/s",
        Ask(each("outcome", rate("riverdelta_feedback_total")), "{{outcome}}"),
        low=0,
    )
    lost = p.lines(
        "Feedback items refused permanently",
        "Share of items that are bad_id, out_of_range, expired or impression_lost, over 15 minutes. Above 1 % raises "
        "RiverdeltaFeedbackRefused.",
        p.RATIO,
        Ask(of("riverdelta:feedback_refused:ratio15m"), "refused"),
        steps=_SHARE,
        low=0,
    )
    refused = p.lines(
        "Feedback requests refused",
        "Requests a second that were refused entirely, by reason. Above 0 clients lose feedback unless they send it again.",
        p.REQUESTS_SECOND,
        Ask(each("reason", rate("riverdelta_feedback_refused_total")), "{{reason}}"),
        steps=((None, p.GOOD), (0.001, p.BAD)),
        low=0,
    )
    failing = p.states(
        "Can the journal be written?",
        "Whether a worker cannot write the journal. Scoring continues, impressions may be dropped: make room on the disk, or "
        "fix its permissions.",
        Ask(of("riverdelta_journal_failing")),
        {0: ("yes", p.GOOD), 1: ("no", p.BAD)},
    )
    errors = p.tile(
        "Journal failures",
        "Times the journal began to fail, in the time shown. Above 0: read journal.error in GET /status.",
        p.NUMBER,
        Ask(each("", f"increase({of('riverdelta_journal_errors_total')}[$__range])")),
        steps=((None, p.GOOD), (0.5, p.BAD)),
        decimals=0,
    )
    dropped = p.tile(
        "Impressions dropped",
        "Dropped while the journal failed, in the time shown. Their feedback cannot be learned.",
        p.ROWS,
        Ask(f"increase({of('riverdelta_impressions_dropped_total')}[$__range])"),
        steps=((None, p.GOOD), (0.5, p.BAD)),
        decimals=0,
    )
    pending = p.lines(
        "Impressions not durable yet",
        "Rows in memory that the next commit writes. If it only grows, the disk does not keep up.",
        p.ROWS,
        Ask(of("riverdelta_journal_pending_rows"), "waiting"),
        low=0,
    )
    disk = p.lines(
        "Free space of the journal's disk",
        "Share of the file system. Below 10 % raises RiverdeltaDiskNearlyFull: make room, or lower "
        "RIVERDELTA_JOURNAL_MAX_BYTES.",
        p.RATIO,
        Ask(of("riverdelta_disk_free_ratio"), "free"),
        steps=((None, p.BAD), (0.1, p.GOOD)),
        low=0,
        high=1,
    )
    size = p.lines(
        "Journal and releases on disk",
        "Bytes. Both are bounded by settings: RIVERDELTA_JOURNAL_MAX_BYTES and RIVERDELTA_MAX_RELEASE_BYTES.",
        p.BYTES,
        Ask(of("riverdelta_journal_bytes"), "journal"),
        Ask(of("riverdelta_release_bytes"), "releases"),
        low=0,
    )
    provider = p.bars(
        "Workers by execution provider",
        "Workers on each provider of ONNX Runtime. CPUExecutionProvider instead of CUDA: the device did not work at start.",
        "count:workers",
        Ask(of("riverdelta_execution_provider"), "{{provider}}"),
    )
    swaps = p.lines(
        "New tables taken and refused",
        "By all workers, a second. If none are taken while examples are learned, scores become stale; refused tables were "
        "damaged or did not fit: look at the workers' log.",
        "count:swaps/s",
        Ask(each("outcome", rate("riverdelta_swaps_total")), "{{outcome}}"),
        low=0,
    )
    swapped = p.lines(
        "Time to put new tables into service",
        "Seconds in which 99 of 100 swaps finish. Requests do not wait for it; above 0.1 s freshness suffers.",
        p.SECONDS,
        Ask(quantile(0.99, "riverdelta_swap_seconds"), "99 %"),
        steps=((None, p.GOOD), (0.1, p.WARN)),
        low=0,
    )
    behind = p.lines(
        "Age of the tables in service",
        "Seconds since the oldest tables in service were published. It grows while nothing is learned; with steady feedback "
        "it stays below a few seconds.",
        p.SECONDS,
        Ask(of("riverdelta_live_age_seconds"), "oldest"),
        low=0,
    )
    layout: Rows = {
        "Throughput and errors": [(8, [(6, requests), (6, shares), (6, rows), (6, unscored)])],
        "Latency": [(8, [(8, latency), (8, spent), (8, slowest)])],
        "Feedback": [(8, [(6, feedback), (6, outcomes), (6, lost), (6, refused)])],
        "Workers": [(8, [(6, provider), (6, swaps), (6, swapped), (6, behind)])],
        "Journal": [(4, [(12, failing), (6, errors), (6, dropped)]), (8, [(8, pending), (8, disk), (8, size)])],
    }
    return board("Serving", "Latency by transport and stage, throughput, errors, the journal and the provider.", layout)
