"""TrainerMirror: the learner's status as metrics, exported by every worker."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from riverdelta.core.age import age
from riverdelta.metrics.family import Family, Labelled

#: A learner whose status is older than this many seconds is down; it writes four a second, and a release takes a while.
STALE_SECONDS = 10.0
_BOUNDS = ("mean", "lower", "upper")


def reports(status: Mapping[str, Any], now: float) -> bool:
    """Return whether the learner that wrote a status runs at `now` (Unix seconds), as far as its date can show.

    >>> [reports({"time": time}, now=100.0) for time in (99.0, 101.0, 80.0, 3_700.0)]
    [True, True, False, False]
    """
    silent = age(status.get("time") or 0.0, now)
    return silent is not None and silent <= STALE_SECONDS


#: By path in the status, the metric's name and help. A step in braces is a label, whose values are the keys at that place;
#: `{bound}` has the values of `_BOUNDS`.
GAUGES = {
    "frozen": ("learning_frozen", "Whether an operator froze learning, 0 or 1"),
    "position": ("learned_position", "Journal position up to which records are learned, in records"),
    "journal_position": ("journal_position", "Newest record in the journal, in records"),
    "examples": ("examples_joined", "Examples joined with their label, in examples"),
    "learned": ("examples_learned", "Examples learned, in examples"),
    "unmatched": ("labels_unmatched", "Accepted labels whose impression could not be found, in rows"),
    "kept_negatives": ("negatives_kept", "Negatives that became examples, in rows"),
    "dropped_negatives": ("negatives_dropped", "Negatives that sampling left out, in rows"),
    "waiting_rows": ("joiner_rows", "Impressions in memory that wait for feedback, in rows"),
    "waiting_bytes": ("joiner_bytes", "Memory of impressions and showings that wait for feedback, in bytes"),
    "read_back_rows": ("joiner_read_back", "Labels since the start whose row was read back from the journal, in rows"),
    "journal_bytes": ("journal_bytes", "Size of the journal on disk, in bytes"),
    "disk_free_ratio": ("disk_free_ratio", "Free share of the file system that holds the journal, a ratio"),
    "release": ("release_number", "Release that the tables in service come from, a number"),
    "champion": ("champion_number", "Release that was promoted last, a number"),
    "release_bytes": ("release_bytes", "Size of all releases on disk, in bytes"),
    "swap": ("swap_number", "Newest tables published, a number"),
    "releases": ("releases", "Releases kept on disk, in releases"),
    "releases_refused": ("releases_refused", "Releases refused since the learner started, in releases"),
    "parity_max_error": ("parity_max_error", "Largest difference between the last release and Python, in raw outputs"),
    "occupancy.{table}": ("table_occupancy_ratio", "Used share of a hashed table, a ratio"),
    "controls.{action}": ("controls", "Commands applied so far, in records"),
    "gate.weight": ("gate_weight_ratio", "Weight of the corrected probability in the served mixture, a ratio"),
    "gate.rate": ("gate_learning_rate_ratio", "Rate of the gate, 1 without delay and with weights up to 1, a ratio"),
    "gate.skipped": (
        "gate_skipped",
        "Rows that the gate leaves out: a base output not finite or too large to have a bounded loss, in rows",
    ),
    "gate.delay": ("gate_delay_examples", "Most labels in flight while a row was served, in rows"),
    "gate.gain": ("gate_gain", "Weighted loss that serving has saved over the base alone, in units of the loss"),
    "gate.excess": ("gate_excess", "Excess of the served weighted loss over that of the better expert, in units of the loss"),
    "gate.bound": ("gate_bound", "Upper bound of the excess, in units of the loss"),
    "admission.open": ("breaker_open", "Whether the breaker has stopped learning, 0 or 1"),
    "admission.trips": ("breaker_trips", "Times the breaker has tripped, in times"),
    "admission.limited": ("updates_limited", "Examples not learned because an entity reached its limit, in rows"),
    "admission.senders.capped": (
        "weight_capped", "Weight of the examples not learned because their sender exceeded its share, in rows",
    ),
    "admission.senders.usual.{sender}": ("sender_share_ratio", "Usual share of a sender of what is learned, a ratio"),
    "held.rows": ("held_examples", "Examples that the breaker holds until `riverdelta resume`, in rows"),
    "held.dropped": ("held_examples_dropped", "Held examples dropped because RIVERDELTA_HELD_BYTES was full, in rows"),
    "drift.alarmed": ("drift_alarmed", "Whether drift raised an alarm within the last reference length, 0 or 1"),
    "drift.adapting_examples": ("drift_adapting_examples", "Examples yet to be learned at a raised rate, in rows"),
    "drift.columns.{column}.psi": (
        "drift_psi_ratio", "Population stability index of a column against its reference, a ratio",
    ),
    "drift.columns.{column}.js": ("drift_js_ratio", "Jensen-Shannon distance of a column from its reference, a ratio"),
    "intervals.{slice}.coverage": ("interval_coverage_ratio", "Recent labels within the interval that was served, a ratio"),
    "intervals.{slice}.width": ("interval_width", "Mean width of recent intervals, in labels"),
    "drift.quantities.{quantity}.alarms": ("drift_alarms", "Drift alarms so far, in alarms"),
    "drift.quantities.{quantity}.evidence": (
        "drift_evidence_ratio", "Log of a drift detector's evidence relative to that of an alarm, a ratio",
    ),
    "traffic.top_changed": (
        "top_changed_ratio", "Requests of 2 rows or more whose best row the corrections changed, a ratio",
    ),
    "traffic.residual.{share}": ("residual", "Size of the correction of recent rows, in raw outputs"),
    "traffic.expected_loss.{scorer}": (
        "expected_loss", "Loss expected for recent rows without their labels, in units of the loss a row",
    ),
    "slices.{column}.{slice}.{scorer}.examples": ("slice_examples", "Examples of a slice, in rows"),
    "slices.{column}.{slice}.{scorer}.loss": (
        "slice_loss", "Prequential loss of a slice's recent examples by weight, in units of the loss a row",
    ),
    "slices.{column}.{slice}.{scorer}.calibration_ratio": (
        "slice_calibration_ratio", "Sum of scores over sum of labels for a slice's recent examples, by weight, a ratio",
    ),
    "worth.gain.{bound}": (
        "row_gain", "Loss that the tables in service save over the base with its interval, in units of the loss a row",
    ),
    "trial.{bound}": ("trial_gain", "The challenger's gain over the champion, with its interval, in units of the loss a row"),
} | {
    f"prequential.{{window}}.{{scorer}}.{measure}": (f"prequential_{measure}", f"Prequential {text}")
    for measure, text in {
        "loss": "loss, a mean by the labels' weights, in units of the loss a row",
        "clipped": "weight of rows whose loss is clipped to its bound, in rows",
        "calibration_ratio": "sum of scores over sum of labels, by weight, a ratio",
        "threshold": "threshold from which a score counts as positive, a ratio",
        "examples": "examples measured, in rows",
        "skipped": "examples left out because they were not finite, in rows",
    }.items()
}  # fmt: skip
#: The measures of the task; `{class}` is empty for a measure of all classes.
GAUGES["prequential.{window}.{scorer}.{measure}.{class}"] = (
    "measure", "Prequential measure of the task, such as auc, macro_f1 or mae, also of simple predictions, a number",
)  # fmt: skip
#: The prequential values with a metric of their own.
_OWN = frozenset(path.rsplit(".", 1)[1] for path in GAUGES if path.startswith("prequential."))
#: Classes that a measure is exported for; the mean of all others is that of the class `other`.
_CLASSES = 50


class TrainerMirror:
    """The learner's status as gauges of every worker; the latest value counts.

    The learner is another process and its counts must not be summed over workers, so they are gauges, without `_total`; `rate`
    works on them nevertheless, since they only grow.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, model: str = "") -> None:
        family = Family(registry, model)

        def new(name: str, text: str, *labels: str) -> Labelled[Gauge]:
            return family.of(Gauge, name, text, *labels, multiprocess_mode="mostrecent")

        self._up = new("sidecar_up", "Whether the learner wrote its status in the last 10 seconds, 0 or 1").labels()
        self._paused = new("learning_paused", "Whether the learner is waiting for a disk or a journal, 0 or 1").labels()
        self._gauges: dict[tuple[str, ...], Labelled[Gauge]] = {}
        for path, (name, text) in GAUGES.items():
            steps = tuple(path.split("."))
            labels = [step[1:-1] for step in steps if step.startswith("{")]
            self._gauges[steps] = new(name, text, *labels)
            if not labels:
                self._gauges[steps].labels()

    def update(self, status: Mapping[str, Any], now: float) -> None:
        """Export a status at time `now` (Unix seconds); a missing value stays as it was, and null becomes NaN."""
        self._up.set(reports(status, now))
        if not status:
            return
        self._paused.set(status.get("paused") is not None)
        for steps, gauge in self._gauges.items():
            for labels, value in _values(status, steps):
                gauge.labels(*labels).set(math.nan if value is None else float(value))


def _values(found: Any, steps: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the labels and the value at each end of a path; nothing if the status lacks it."""
    if not steps:
        if not isinstance(found, Mapping):
            yield (), found
        return
    step, rest = steps[0], steps[1:]
    inside: Mapping[str, Any]
    if step == "{class}":
        inside = _few(found) if isinstance(found, Mapping) else {"": found}
    else:
        inside = found if isinstance(found, Mapping) else {}
    if not step.startswith("{"):
        if step in inside:
            yield from _values(inside[step], rest)
        return
    for name in _BOUNDS if step == "{bound}" else inside:
        if step == "{measure}" and name in _OWN:
            continue
        for labels, value in _values(inside.get(name), rest):
            yield (name, *labels), value


def _few(classes: Mapping[str, float | None]) -> Mapping[str, float | None]:
    """Return the values of the first classes, and the mean of those of all others as `other`.

    >>> _few({"a": 0.5, "b": None})
    {'a': 0.5, 'b': None}
    >>> few = _few({f"{k}": float(k >= 50) for k in range(90)})
    >>> len(few), few["49"], few["other"]
    (51, 0.0, 1.0)
    """
    names = list(classes)
    if len(names) <= _CLASSES:
        return classes
    rest = [value for name in names[_CLASSES:] if (value := classes[name]) is not None]
    return {name: classes[name] for name in names[:_CLASSES]} | {"other": sum(rest) / len(rest) if rest else None}
