"""Releases: releases made, the challenger on trial, and releases to roll back to."""

from __future__ import annotations

from boards import panels as p
from boards.board import Rows
from boards.queries import Ask, of


def releases() -> Rows:
    """Return the row of releases."""
    numbers = p.lines(
        "Releases",
        "The release that the tables in service come from, and the champion: the last that was promoted. A rollback goes to "
        "the champion.",
        p.NUMBER,
        Ask(of("riverdelta_release_number"), "in service"),
        Ask(of("riverdelta_champion_number"), "champion"),
        low=0,
    )
    trial = p.lines(
        "The challenger's gain over the champion",
        "With its interval. It is promoted when its lower end is above −RIVERDELTA_PROMOTE_MARGIN. Empty while no release is "
        "on trial.",
        p.NATS_ROW,
        Ask(of("riverdelta_trial_gain"), "{{bound}}"),
        steps=((None, p.BAD), (-0.002, p.GOOD)),
        interval=True,
    )
    obeyed = p.bars(
        "Commands applied",
        "How often each was applied, for an operator or the learner itself.",
        p.NUMBER,
        Ask(of("riverdelta_controls"), "{{action}}"),
    )
    kept = p.tile(
        "Releases kept",
        "On disk, to roll back to. Bounded by RIVERDELTA_KEEP_RELEASES and RIVERDELTA_MAX_RELEASE_BYTES.",
        p.NUMBER,
        Ask(of("riverdelta_releases")),
        steps=((None, p.WARN), (1, p.GOOD)),
        decimals=0,
    )
    refused = p.tile(
        "Releases refused",
        "Since the learner started. Above 0: read refused_because in GET /status; the last good one stays.",
        p.NUMBER,
        Ask(of("riverdelta_releases_refused")),
        steps=((None, p.GOOD), (1, p.BAD)),
        decimals=0,
    )
    parity = p.tile(
        "Parity of the last release",
        "Largest difference between the merged ONNX model and Python, in logits. Above 0.0001 a release is refused.",
        p.SCIENTIFIC,
        Ask(of("riverdelta_parity_max_error")),
        steps=((None, p.GOOD), (1e-4, p.BAD)),
        nothing="no release yet",
    )
    trips = p.tile(
        "Breaker trips",
        "Since the learner began. When it trips, read admission.reason in GET /status.",
        p.NUMBER,
        Ask(of("riverdelta_breaker_trips")),
        steps=((None, p.GOOD), (1, p.WARN)),
        decimals=0,
    )
    return {
        "Releases": [
            (8, [(8, numbers), (8, trial), (8, obeyed)]),
            (4, [(6, kept), (6, refused), (6, parity), (6, trips)]),
        ]
    }
