"""Updates: the gate, examples learned and not learned, and the size of the corrections."""

from __future__ import annotations

from boards import panels as p
from boards.board import Rows
from boards.queries import Ask, each, of, rate


def updates() -> Rows:
    """Return the rows of the gate, of updates and of corrections."""
    weight = p.lines(
        "Weight of the corrections",
        "Weight of the corrected probability in the served mixture. The gate adapts it to the losses of served rows; near 0 "
        "the base serves.",
        p.RATIO,
        Ask(of("riverdelta_gate_weight_ratio"), "weight"),
        steps=((None, p.WARN), (0.5, p.GOOD)),
        low=0,
        high=1,
    )
    excess = p.lines(
        "What can it cost?",
        "Excess: the loss of the served mixture over the better of base and corrections. It cannot exceed the bound, "
        "whatever the labels.",
        p.LOSS,
        Ask(of("riverdelta_gate_excess"), "excess"),
        Ask(of("riverdelta_gate_bound"), "bound"),
    )
    gain = p.lines(
        "What has it gained?",
        "Total loss saved over the base alone. It should rise; a fall is a cost.",
        p.LOSS,
        Ask(of("riverdelta_gate_gain"), "gain"),
        steps=((None, p.BAD), (0, p.GOOD)),
    )
    delay = p.lines(
        "Labels in flight",
        "Most labels in flight while a row was served: the later they arrive, the slower the gate adapts and the larger its "
        "bound.",
        p.ROWS,
        Ask(of("riverdelta_gate_delay_examples"), "delay"),
        low=0,
    )
    learned = p.lines(
        "Examples joined and learned",
        "Examples joined with their label, and learned, and what one sender's cap took from their weight, a second. Joined "
        "but not learned: learning is frozen, or the breaker is open.",
        p.ROWS_SECOND,
        Ask(rate("riverdelta_examples_joined"), "joined"),
        Ask(of("riverdelta:examples_learned:rate5m"), "learned"),
        Ask(rate("riverdelta_weight_capped"), "weight capped"),
        low=0,
    )
    waiting = p.lines(
        "Backlog",
        "Records written to the journal but not learned yet. Above 1,000 and growing raises RiverdeltaBacklogGrowing: give "
        "the sidecar its own core.",
        p.RECORDS,
        Ask(of("riverdelta:journal_backlog:records"), "waiting"),
        steps=((None, p.GOOD), (1000, p.BAD)),
        low=0,
    )
    joiner = p.lines(
        "Impressions in memory",
        "Impressions and showings that wait for feedback, about RIVERDELTA_WAITING_BYTES at most; older impressions are read "
        "back from the journal when their label arrives.",
        p.BYTES,
        Ask(of("riverdelta_joiner_bytes"), "in memory"),
        low=0,
    )
    lost = p.lines(
        "Rows that are not learned",
        "A second: labels whose impression was not found, negatives that sampling left out, and examples of entities at "
        "their limit. Unmatched is 0 unless the journal is damaged.",
        p.ROWS_SECOND,
        Ask(rate("riverdelta_labels_unmatched"), "unmatched"),
        Ask(rate("riverdelta_negatives_dropped"), "negatives left out"),
        Ask(rate("riverdelta_updates_limited"), "over the limit"),
        low=0,
    )
    held = p.lines(
        "Held by the breaker",
        "Examples that wait for `riverdelta resume`, and those dropped because RIVERDELTA_HELD_BYTES was full: what is dropped "
        "is never learned.",
        p.ROWS,
        Ask(of("riverdelta_held_examples"), "held"),
        Ask(of("riverdelta_held_examples_dropped"), "dropped"),
        low=0,
    )
    senders = p.lines(
        "Feedback by sender",
        "Feedback items a second by the name of their sender. One that sends far more than usual raises "
        "RiverdeltaSenderCapped: compare it with the day before.",
        p.ROWS_SECOND,
        Ask(each("sender", rate("riverdelta_sender_feedback_total")), "{{sender}}"),
        low=0,
    )
    stopped = p.lines(
        "Does it learn?",
        "1 while the learner is down, waits for a disk, is frozen, or the breaker is open. The Overview says what to do.",
        p.NUMBER,
        Ask(f"1 - {of('riverdelta_sidecar_up')}", "down"),
        Ask(of("riverdelta_learning_paused"), "paused"),
        Ask(of("riverdelta_learning_frozen"), "frozen"),
        Ask(of("riverdelta_breaker_open"), "breaker open"),
        steps=((None, p.GOOD), (1, p.BAD)),
        low=0,
        high=1,
    )
    residual = p.lines(
        "Size of the corrections",
        "Quantiles of |corrected output − base output| over recent rows. After a jump check the feedback.",
        p.NUMBER,
        Ask(of("riverdelta_residual"), "share {{share}}"),
        low=0,
    )
    changed = p.lines(
        "Best row changed",
        "Share of requests with 2 rows or more whose best row the corrections changed. 0: users get what the base alone "
        "would show.",
        p.RATIO,
        Ask(of("riverdelta_top_changed_ratio"), "changed"),
        low=0,
        high=1,
    )
    occupancy = p.lines(
        "Occupancy of the tables",
        "Used share of each hashed table: the probability that a new id shares a slot with another. Above 50 % give it more "
        "slots.",
        p.RATIO,
        Ask(of("riverdelta_table_occupancy_ratio"), "{{table}}"),
        steps=((None, p.GOOD), (0.5, p.WARN), (0.9, p.BAD)),
        low=0,
        high=1,
    )
    return {
        "The gate": [(8, [(6, weight), (6, excess), (6, gain), (6, delay)])],
        "Updates": [(8, [(8, learned), (8, waiting), (8, stopped)]), (8, [(6, joiner), (6, lost), (6, held), (6, senders)])],
        "Corrections": [(8, [(8, residual), (8, changed), (8, occupancy)])],
    }
