"""Health: a scorer's condition and what to do, by the value of riverdelta:health:state; highest first."""

from __future__ import annotations

from boards.panels import BAD, GOOD, NOTE, WARN

#: (condition, severity, what to do)
HEALTH: dict[int, tuple[str, str, str]] = {
    10: ("Requests fail", BAD, "Look at the workers' log, and at Serving: requests by outcome"),
    9: ("The learner is down", BAD, "Look in the service's log for why the sidecar exits; it restarts by itself"),
    8: (
        "The journal cannot be written",
        BAD,
        "Read journal.error in GET /status; make room on the disk, or fix its permissions",
    ),
    7: ("Learning is paused", BAD, "Read paused in GET /status; make room on the disk, or fix its permissions"),
    6: (
        "The breaker is open",
        BAD,
        "Read admission.reason in GET /status; then type riverdelta resume to learn what is held, or riverdelta resume --skip",
    ),
    5: ("The corrections cost more than they gain", BAD, "Run riverdelta rollback 0 --freeze; then check the feedback"),
    4: ("Learning is frozen", WARN, "To learn again: riverdelta resume"),
    3: ("The stream has drifted", WARN, "Open Drift: which quantity and which columns moved?"),
    2: ("Feedback takes more than 5 s to serve", WARN, "Open Learning: is there a backlog? Give the sidecar its own core"),
    1: ("Not known yet whether it helps", NOTE, "Nothing: let it learn from more feedback"),
    0: ("Healthy: the corrections help", GOOD, "Nothing"),
}
STATES = {number: (state, color) for number, (state, color, _) in HEALTH.items()}
ADVICE = {number: (advice, color) for number, (_, color, advice) in HEALTH.items()}
