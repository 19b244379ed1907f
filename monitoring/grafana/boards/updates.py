"""Updates: the gate, what is learned and what is not, and how far the corrections go."""

from __future__ import annotations

from boards import panels as p
from boards.board import Rows
from boards.queries import Ask, of, rate


def updates() -> Rows:
    """Return the rows of the gate, of updates and of corrections."""
    weight = p.lines(
        "Weight of the corrections",
        "Share of the corrected probability in the served one. The gate moves it by the losses of what was served; near 0 "
        "the base serves.",
        p.RATIO,
        Ask(of("riverdelta_gate_weight_ratio"), "weight"),
        steps=((None, p.WARN), (0.5, p.GOOD)),
        low=0,
        high=1,
    )
    excess = p.lines(
        "What can it cost?",
        "Excess: what serving the mixture has lost over the better of base and corrections. It cannot pass the bound, "
        "whatever the labels are.",
        p.NATS,
        Ask(of("riverdelta_gate_excess_nats"), "excess"),
        Ask(of("riverdelta_gate_bound_nats"), "bound"),
    )
    gain = p.lines(
        "What has it gained?",
        "Log loss that serving has saved over the base alone, all in all. It should rise; a fall is a cost.",
        p.NATS,
        Ask(of("riverdelta_gate_gain_nats"), "gain"),
        steps=((None, p.BAD), (0, p.GOOD)),
    )
    delay = p.lines(
        "Labels on the way",
        "Most labels that were on the way while a row was served: the later they come, the slower the gate moves and the "
        "larger its bound.",
        p.ROWS,
        Ask(of("riverdelta_gate_delay_examples"), "delay"),
        low=0,
    )
    learned = p.lines(
        "Examples joined and learned",
        "Rows that got their label, and those that were learned, a second. Joined and not learned: learning is frozen, or "
        "the breaker is open.",
        p.ROWS_SECOND,
        Ask(rate("riverdelta_examples_joined"), "joined"),
        Ask(of("riverdelta:examples_learned:rate5m"), "learned"),
        low=0,
    )
    waiting = p.lines(
        "Records that wait",
        "Written to the journal and not learned yet. Above 1,000 and growing raises RiverdeltaBacklogGrowing: give the "
        "sidecar a processor of its own.",
        p.RECORDS,
        Ask(of("riverdelta:journal_backlog:records"), "waiting"),
        steps=((None, p.GOOD), (1000, p.BAD)),
        low=0,
    )
    joiner = p.lines(
        "Impressions in memory",
        "Impressions and showings that wait for feedback, about RIVERDELTA_WAITING_BYTES at most; older impressions are read "
        "back from the journal when their label comes.",
        p.BYTES,
        Ask(of("riverdelta_joiner_bytes"), "in memory"),
        low=0,
    )
    lost = p.lines(
        "Rows that are not learned",
        "A second: labels whose impression could not be found, negatives that sampling left out, and updates kept back because "
        "an entity had enough. Unmatched is 0 unless the journal is damaged.",
        p.ROWS_SECOND,
        Ask(rate("riverdelta_labels_unmatched"), "unmatched"),
        Ask(rate("riverdelta_negatives_dropped"), "negatives left out"),
        Ask(rate("riverdelta_updates_limited"), "kept back"),
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
        "|corrected logit − base logit| of recent rows: so large a share of them is corrected by no more than this. A jump:"
        " look at what was fed back.",
        p.LOGITS,
        Ask(of("riverdelta_residual_logits"), "share {{share}}"),
        low=0,
    )
    changed = p.lines(
        "Best row changed",
        "Share of requests of 2 rows or more whose best row the corrections changed. 0: users see what the base alone would"
        " show.",
        p.RATIO,
        Ask(of("riverdelta_top_changed_ratio"), "changed"),
        low=0,
        high=1,
    )
    occupancy = p.lines(
        "Occupancy of the tables",
        "Used share of each hashed table: how likely it is that a new id shares a slot with another. Above 50 % give it "
        "more slots.",
        p.RATIO,
        Ask(of("riverdelta_table_occupancy_ratio"), "{{table}}"),
        steps=((None, p.GOOD), (0.5, p.WARN), (0.9, p.BAD)),
        low=0,
        high=1,
    )
    return {
        "The gate": [(8, [(6, weight), (6, excess), (6, gain), (6, delay)])],
        "Updates": [(8, [(8, learned), (8, waiting), (8, stopped)]), (8, [(12, joiner), (12, lost)])],
        "Corrections": [(8, [(8, residual), (8, changed), (8, occupancy)])],
    }
