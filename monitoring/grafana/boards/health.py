"""Health: what a scorer's state is called and what to do, by the number that riverdelta:health:state has; highest first."""

from __future__ import annotations

from boards.panels import BAD, GOOD, NOTE, WARN

#: (what is the case, how bad it is, what to do)
HEALTH: dict[int, tuple[str, str, str]] = {
    10: ("Requests fail", BAD, "Look at the workers' log, and at Serving: requests by outcome"),
    9: ("The learner is down", BAD, "Look at the service's log for why the sidecar ends; it starts again by itself"),
    8: (
        "The journal cannot be written",
        BAD,
        "Read journal.error in GET /status; make room on the disk, or fix its permissions",
    ),
    7: ("Learning is paused", BAD, "Read paused in GET /status; make room on the disk, or fix its permissions"),
    6: (
        "The breaker is open",
        BAD,
        "Read admission.reason in GET /status; when feedback is right again: riverdelta resume",
    ),
    5: ("The corrections cost more than they gain", BAD, "Run riverdelta rollback 0 --freeze; then look at what was fed back"),
    4: ("Learning is frozen", WARN, "When it should learn again: riverdelta resume"),
    3: ("The stream has drifted", WARN, "Open Drift: which quantity and which columns moved?"),
    2: ("Feedback takes over 5 s to serve", WARN, "Open Learning: do records wait? Give the sidecar a processor of its own"),
    1: ("It cannot be told yet whether it helps", NOTE, "Nothing: let it learn from more feedback"),
    0: ("Healthy: the corrections help", GOOD, "Nothing"),
}
STATES = {number: (state, color) for number, (state, color, _) in HEALTH.items()}
ADVICE = {number: (advice, color) for number, (_, color, advice) in HEALTH.items()}
