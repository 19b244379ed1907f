"""Learning: losses, the gate, what is learned and how fast, the size of the corrections, releases."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import panels as p
from boards.board import Rows, board
from boards.queries import Ask, of, rate

_RECENT = 'window="recent"'


def _recent(measure: str) -> Ask:
    return Ask(of(f"riverdelta_prequential_{measure}", _RECENT), "{{scorer}}")


def dashboard() -> Dashboard:
    """Return the dashboard of those who own the model."""
    return board(
        "Learning", "Losses, the gate, updates, corrections and releases.", {**_quality(), **_updates(), **_releases()}
    )


def _quality() -> Rows:
    loss = p.lines(
        "Log loss of the last rows",
        "Of the last 10,000 judged rows, each judged before it was learned. Lower is better; served should lie below base.",
        p.NATS_ROW,
        _recent("log_loss"),
    )
    whole = p.lines(
        "Log loss of all rows",
        "Since the learner began. The distance of the lines is what the corrections have saved a row.",
        p.NATS_ROW,
        Ask(of("riverdelta_prequential_log_loss", 'window="all"'), "{{scorer}}"),
    )
    auc = p.lines(
        "AUC of the last rows",
        "Share of pairs of a positive and a negative that are in the right order. 0.5 is chance.",
        p.NUMBER,
        _recent("auc"),
        steps=((None, p.BAD), (0.5, p.GOOD)),
    )
    calibration = p.lines(
        "Calibration of the last rows",
        "Σ score / Σ label. 1 is right; outside 0.8 to 1.2 raises RiverdeltaCalibrationOff: end the stack with Calibration().",
        p.NUMBER,
        _recent("calibration_ratio"),
        steps=((None, p.BAD), (0.8, p.GOOD), (1.2, p.BAD)),
    )
    threshold = p.lines(
        "Accuracy and F1 at the threshold",
        "Of the last 10,000 judged rows, with scores from RIVERDELTA_THRESHOLD on counted as positive. Higher is better.",
        p.RATIO,
        Ask(of("riverdelta_prequential_accuracy", _RECENT), "{{scorer}} accuracy"),
        Ask(of("riverdelta_prequential_f1", _RECENT), "{{scorer}} F1"),
        low=0,
        high=1,
    )
    pair = p.lines(
        "Precision and recall at the threshold",
        "Of the last 10,000 judged rows: how many of those called positive are, and how many of the positive are called so.",
        p.RATIO,
        Ask(of("riverdelta_prequential_precision", _RECENT), "{{scorer}} precision"),
        Ask(of("riverdelta_prequential_recall", _RECENT), "{{scorer}} recall"),
        low=0,
        high=1,
    )
    slices = p.lines(
        "Log loss by slice",
        "What was served, over the last examples of each slice of @online(…, slices=…), beside all rows. One that stands "
        "out is served worse: look at what feeds it.",
        p.NATS_ROW,
        Ask(_with_slices("log_loss"), "{{column}} {{slice}}"),
    )
    calibrated = p.lines(
        "Calibration by slice",
        "Σ score / Σ label of what was served, by slice, beside all rows. 1 is right.",
        p.NUMBER,
        Ask(_with_slices("calibration_ratio"), "{{column}} {{slice}}"),
        steps=((None, p.BAD), (0.8, p.GOOD), (1.2, p.BAD)),
    )
    return {
        "How good are the scores?": [
            (8, [(8, loss), (8, whole), (8, calibration)]),
            (8, [(8, auc), (8, threshold), (8, pair)]),
            (8, [(12, slices), (12, calibrated)]),
        ]
    }


def _with_slices(measure: str) -> str:
    """A measure of every slice, and of all rows as a slice of its own: there is one where none is declared."""
    served = 'scorer="served"'
    whole = of(f"riverdelta_prequential_{measure}", f"{served},{_RECENT}")
    return f'{of(f"riverdelta_slice_{measure}", served)} or label_replace({whole}, "slice", "all rows", "", "")'


def _updates() -> Rows:
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
        "Rows that wait for feedback",
        "Impressions that the joiner keeps, up to RIVERDELTA_WAITING_ROWS.",
        p.ROWS,
        Ask(of("riverdelta_joiner_backlog_rows"), "waiting"),
        low=0,
    )
    lost = p.lines(
        "Rows that are not learned",
        "A second: labels whose impression had left the joiner, shown rows that left it before their window closed, "
        "negatives that sampling left out, and updates kept back because an entity had enough. Unmatched above 0: raise "
        "RIVERDELTA_WAITING_ROWS.",
        p.ROWS_SECOND,
        Ask(rate("riverdelta_labels_unmatched"), "unmatched"),
        Ask(rate("riverdelta_rows_unmatured"), "unmatured"),
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
        "Used share of each hashed table. Above 50 % ids begin to share slots: give the correction more of them.",
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


def _releases() -> Rows:
    numbers = p.lines(
        "Releases",
        "The release that the tables in service come from, and the champion: the last that passed its test. A rollback goes"
        " to the champion.",
        p.NUMBER,
        Ask(of("riverdelta_release_number"), "in service"),
        Ask(of("riverdelta_champion_number"), "champion"),
        low=0,
    )
    trial = p.lines(
        "The challenger's gain on the champion",
        "With its interval. It is promoted when its lower end is above −RIVERDELTA_PROMOTE_MARGIN. Nothing is drawn while "
        "no release is tried.",
        p.NATS_ROW,
        Ask(of("riverdelta_trial_nats"), "{{bound}}"),
        steps=((None, p.BAD), (-0.002, p.GOOD)),
        band=("lower", "upper"),
    )
    obeyed = p.bars(
        "Controls obeyed",
        "How often each was asked for and obeyed, by an operator or by the learner itself.",
        p.NUMBER,
        Ask(of("riverdelta_controls"), "{{action}}"),
    )
    kept = p.tile(
        "Releases kept",
        "On disk, to go back to. Bounded by RIVERDELTA_KEEP_RELEASES and RIVERDELTA_MAX_RELEASE_BYTES.",
        p.NUMBER,
        Ask(of("riverdelta_releases")),
        steps=((None, p.WARN), (1, p.GOOD)),
        decimals=0,
    )
    refused = p.tile(
        "Releases refused",
        "Since the learner's start. Any: read refused_because in GET /status; the last good one stays.",
        p.NUMBER,
        Ask(of("riverdelta_releases_refused")),
        steps=((None, p.GOOD), (1, p.BAD)),
        decimals=0,
    )
    parity = p.tile(
        "Parity of the last release",
        "Largest difference of the merged ONNX model from Python, in logits. Above 0.0001 a release is refused.",
        p.LOGITS,
        Ask(of("riverdelta_parity_max_logit")),
        steps=((None, p.GOOD), (1e-4, p.BAD)),
        nothing="no release yet",
    )
    trips = p.tile(
        "Breaker openings",
        "Since the learner began. When it opens, read admission.reason in GET /status.",
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
