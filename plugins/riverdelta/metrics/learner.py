"""TrainerMirror: what the learner says of itself, repeated as metrics by every worker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from riverdelta.core.log_loss import BOUND
from riverdelta.metrics.family import Family, Labelled

#: A learner whose status is older than this counts as down; it writes four a second, and a large release takes a while.
STALE_SECONDS = 10.0
_BOUNDS = ("mean", "lower", "upper")
#: By part of the status ("" is the whole), its keys: the metric's name and help.
_SINGLE: dict[str, dict[str, tuple[str, str]]] = {
    "": {
        "frozen": ("learning_frozen", "Whether an operator froze learning, 0 or 1"),
        "position": ("learned_position", "Journal position that has been learned, in records"),
        "journal_position": ("journal_position", "Newest record in the journal, in records"),
        "examples": ("examples_joined", "Rows that got their label, in rows"),
        "learned": ("examples_learned", "Examples learned, in rows"),
        "unmatched": ("labels_unmatched", "Accepted labels whose impression could not be found, in rows"),
        "kept_negatives": ("negatives_kept", "Negatives that became examples, in rows"),
        "dropped_negatives": ("negatives_dropped", "Negatives that sampling left out, in rows"),
        "waiting_rows": ("joiner_rows", "Impressions in memory that wait for feedback, in rows"),
        "waiting_bytes": ("joiner_bytes", "Memory of impressions and showings that wait for feedback, in bytes"),
        "read_back_rows": (
            "joiner_read_back",
            "Labels since the start whose row was read back from the journal, in rows",
        ),
        "journal_bytes": ("journal_bytes", "Size of the journal on disk, in bytes"),
        "disk_free_ratio": ("disk_free_ratio", "Free share of the file system that holds the journal, a ratio"),
        "release": ("release_number", "Release that the tables in service come from, a number"),
        "champion": ("champion_number", "Release that passed its test last, a number"),
        "release_bytes": ("release_bytes", "Size of all releases on disk, in bytes"),
        "swap": ("swap_number", "Newest tables published, a number"),
        "releases": ("releases", "Releases kept on disk, in releases"),
        "releases_refused": ("releases_refused", "Releases refused since the learner's start, in releases"),
        "parity_max_logit": ("parity_max_logit", "Largest difference of the last release from Python, in logits"),
    },
    "gate": {
        "weight": ("gate_weight_ratio", "Weight of the corrected probability in the served one, a ratio"),
        "rate": ("gate_learning_rate_ratio", "Rate of the gate, 1 without delay and with weights up to 1, a ratio"),
        "skipped": (
            "gate_skipped",
            f"Rows that the gate does not judge, as their base logit is beyond ±{BOUND:g} or a logit is not finite, in rows",
        ),
        "delay": ("gate_delay_examples", "Most labels on the way while a row was served, in rows"),
        "gain": ("gate_gain_nats", "Log loss that serving has saved over the base alone, in nats"),
        "excess": ("gate_excess_nats", "Log loss of what was served over that of the better expert, in nats"),
        "bound": ("gate_bound_nats", "What the excess cannot pass, in nats"),
    },
    "admission": {
        "open": ("breaker_open", "Whether the breaker keeps examples from being learned, 0 or 1"),
        "trips": ("breaker_trips", "Times the breaker has opened, in times"),
        "limited": ("updates_limited", "Examples kept back because an entity had enough, in rows"),
    },
    "drift": {
        "alarmed": ("drift_alarmed", "Whether drift raised an alarm within the last reference's length, 0 or 1"),
        "adapting_examples": ("drift_adapting_examples", "Examples yet to be learned at a raised rate, in rows"),
    },
    "traffic": {
        "top_changed": ("top_changed_ratio", "Requests of 2 rows or more whose best row the corrections changed, a ratio"),
    },
}
#: By path in the status, what stands under each name there: the label that takes the name, and the metric's name and help.
_NAMED: dict[tuple[str, ...], tuple[str, str, str]] = {
    ("occupancy",): ("table", "table_occupancy_ratio", "Used share of a hashed table, a ratio"),
    ("controls",): ("action", "controls", "Controls obeyed so far, in records"),
    ("traffic", "residual"): ("share", "residual_logits", "Size of the correction of recent rows, in logits"),
    ("traffic", "expected_log_loss"): (
        "scorer", "expected_log_loss", "Log loss expected of recent rows without their labels, in nats a row",
    ),
}  # fmt: skip
#: The same for what has measures under each name: part of the status, then the label, and each measure's name and help.
_MEASURED: dict[tuple[str, str], tuple[str, dict[str, tuple[str, str]]]] = {
    ("drift", "columns"): (
        "column",
        {
            "psi": ("drift_psi_ratio", "Population stability index of a column against its reference, a ratio"),
            "js": ("drift_js_ratio", "Jensen-Shannon distance of a column from its reference, a ratio"),
        },
    ),
    ("drift", "quantities"): (
        "quantity",
        {
            "alarms": ("drift_alarms", "Drift alarms so far, in alarms"),
            "evidence": ("drift_evidence_ratio", "Log of a drift detector's evidence over that of an alarm, a ratio"),
        },
    ),
}
_PREQUENTIAL = {
    "log_loss": "log loss, in nats a row",
    "clipped": f"rows whose log loss counts as {BOUND:g} nats, the most that one may, in rows",
    "calibration_ratio": "sum of scores over sum of labels, a ratio",
    "auc": "area under the ROC curve, a ratio",
    "auc_error": "most by which the AUC may be off, a ratio",
    "accuracy": "accuracy at the threshold, a ratio",
    "precision": "precision at the threshold, a ratio",
    "recall": "recall at the threshold, a ratio",
    "f1": "F1 at the threshold, a ratio",
    "threshold": "threshold from which a score counts as positive, a ratio",
    "examples": "examples judged, in rows",
    "skipped": "examples that were not finite and left out, in rows",
}
_SLICE = {
    "examples": ("slice_examples", "Examples of a slice, in rows"),
    "log_loss": ("slice_log_loss", "Prequential log loss of a slice's recent examples, in nats a row"),
    "calibration_ratio": ("slice_calibration_ratio", "Sum of scores over sum of labels of a slice's recent examples, a ratio"),
}


class TrainerMirror:
    """What the learner says of itself in its status, which every worker reads and repeats: the most recent word counts.

    The learner is another process, and no worker may add its counts up, so they are gauges, without `_total`; `rate` works
    on them all the same, since they only grow.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, model: str = "") -> None:
        new = Family(registry, model)

        def labelled(name: str, text: str, *labels: str) -> Labelled[Gauge]:
            return new.gauges(name, text, "mostrecent", *labels)

        self._up = new.gauge("sidecar_up", "Whether the learner wrote its status in the last 10 seconds, 0 or 1")
        self._paused = new.gauge("learning_paused", "Whether the learner waits for a disk or a journal, 0 or 1")
        self._single = {part: {key: new.gauge(*made) for key, made in keys.items()} for part, keys in _SINGLE.items()}
        self._named = {path: labelled(name, text, label) for path, (label, name, text) in _NAMED.items()}
        self._measured = {
            path: {key: labelled(*made, label) for key, made in keys.items()} for path, (label, keys) in _MEASURED.items()
        }
        self._prequential = {
            measure: labelled(f"prequential_{measure}", f"Prequential {text}", "scorer", "window")
            for measure, text in _PREQUENTIAL.items()
        }
        self._slices = {measure: labelled(*made, "column", "slice", "scorer") for measure, made in _SLICE.items()}
        self._gain = labelled(
            "gain_row_nats", "Log loss that serving saves over the base with its interval, in nats a row", "bound"
        )
        self._trial = labelled("trial_nats", "The challenger's gain on the champion with its interval, in nats a row", "bound")

    def update(self, status: Mapping[str, Any], now: float) -> None:
        """Repeat a status at time `now` (Unix seconds); what it lacks stays as it was, and null becomes NaN."""
        self._up.set(now - float(status.get("time") or 0.0) <= STALE_SECONDS)
        if not status:
            return
        self._paused.set(status.get("paused") is not None)
        for part, gauges in self._single.items():
            values = status.get(part, {}) if part else status
            for key in gauges.keys() & values.keys():
                gauges[key].set(_number(values[key]))
        for path, named in self._named.items():
            for name, value in _under(status, path).items():
                named.labels(name).set(_number(value))
        for path, measured in self._measured.items():
            for name, values in _under(status, path).items():
                for key in measured.keys() & values.keys():
                    measured[key].labels(name).set(_number(values[key]))
        for window, scorers in status.get("prequential", {}).items():
            for scorer, values in scorers.items():
                for key in self._prequential.keys() & values.keys():
                    self._prequential[key].labels(scorer, window).set(_number(values[key]))
        for column, slices in status.get("slices", {}).items():
            for name, scorers in slices.items():
                for scorer, values in scorers.items():
                    for key in self._slices.keys() & values.keys():
                        self._slices[key].labels(column, name, scorer).set(_number(values[key]))
        if "history" in status:
            _set_interval(self._gain, _under(status, ("history", "difference")))
        if "trial" in status:
            _set_interval(self._trial, status["trial"] or {})


def _set_interval(gauge: Labelled[Gauge], found: Mapping[str, Any]) -> None:
    for bound in _BOUNDS:
        gauge.labels(bound).set(_number(found.get(bound)))


def _under(status: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """What stands at a path, empty where it leads nowhere."""
    for name in path:
        status = status.get(name) or {}
    return status


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
