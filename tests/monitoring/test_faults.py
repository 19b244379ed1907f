"""Alerts in a real Prometheus: of scorers that each have a fault, the right alert fires and no other does."""

import time
from contextlib import ExitStack

import planted as f
import pytest
import scorers as s
from real import Prometheus, needs_prometheus
from test_alerts import alerts

from riverdelta.sidecar import status

#: By alert: how its fault is planted, and the settings and the size of requests of the scorer that gets it.
FAULTS = {
    "RiverdeltaLearnerDown": (f.lose_the_learner, {}, {}),
    "RiverdeltaLearningPaused": (f.pause_the_learner, {}, {}),
    "RiverdeltaNoSwaps": (f.lose_sight_of_new_tables, {}, {}),
    "RiverdeltaWorseThanBase": (f.spite_the_corrections, {"breaker": "off", "drift_run_length": 0}, {}),
    "RiverdeltaBreakerOpen": (f.stop_clicking, {"drift_run_length": 0}, {}),
    "RiverdeltaHeldDropped": (f.hold_everything, {"held_bytes": 1_000, "drift_run_length": 0}, {}),
    "RiverdeltaSenderCapped": (f.flood, {"drift_run_length": 0}, {}),
    "RiverdeltaFreshnessSlow": (f.see_old_records_alone, {}, {}),
    "RiverdeltaBacklogGrowing": (f.read_nothing, {}, {}),
    "RiverdeltaLabelsUnmatched": (f.lose_impressions, {}, {}),
    "RiverdeltaLabelsExpired": (f.label_again_what_is_retired, {"segment_bytes": 1, "journal_max_bytes": 1}, {}),
    "RiverdeltaFeedbackRefused": (f.send_ids_of_another_service, {}, {}),
    "RiverdeltaJournalFailing": (f.fill_the_journal, {}, {}),
    "RiverdeltaDiskNearlyFull": (f.fill_the_disk, {}, {}),
    "RiverdeltaDrift": (f.shift_a_feature, {"drift_reference_examples": 2_048}, {"rows": 256}),
    "RiverdeltaCalibrationOff": (f.label_seldom, {"corrected": False, "breaker": "off", "drift_run_length": 0}, {"rows": 256}),
    "RiverdeltaNotFinite": (f.send_what_has_no_score, {}, {}),
    "RiverdeltaErrors": (f.send_what_it_cannot_score, {}, {}),
    "RiverdeltaSlow": (f.slow_down, {}, {}),
    "RiverdeltaReleaseRefused": (f.skew_the_export, {"entity": s.Skewed, "release_seconds": 4.0}, {}),
}
#: It compares with a day before, which in the haste of this test is 48 minutes: `test_alerts.py` has it.
OF_TWO_DAYS = {"RiverdeltaFeedbackVolume"}
WELL = "well"
#: How much each scorer has learned before its fault is planted; and the most that an alert may take from then on.
QUIET_ROWS, PATIENCE_SECONDS = 1_500, 240.0


@pytest.fixture
def scorers(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "_SECONDS", 2.0)
    made = {}
    with ExitStack() as stack:
        for name, (_, settings, traits) in {WELL: (None, {}, {}), **FAULTS}.items():
            made[name] = s.Scorer(name, tmp_path, **settings)
            stack.callback(made[name].close)
            vars(made[name]).update(traits)
        stack.callback(s.Traffic(list(made.values())).close)
        yield made


def quiet(scorer):
    """Whether a scorer has learned so much that a change of its stream will be seen."""
    watching = scorer.trainer.learner.adaptation.report().get("watching", True)
    return watching and scorer.trainer.learner.examples >= QUIET_ROWS


def firing(prometheus):
    return {(alert, model) for alert, model, state in prometheus.alerts() if state == "firing"}


def test_every_alert_has_its_fault():
    assert alerts().keys() == FAULTS.keys() | OF_TWO_DAYS


@needs_prometheus
def test_each_fault_makes_its_alert_fire_and_no_other_and_a_scorer_that_is_well_has_none(scorers, tmp_path):
    with ExitStack() as stack:
        prometheus = Prometheus(tmp_path / "prometheus", [f"127.0.0.1:{scorer.port}" for scorer in scorers.values()])
        stack.callback(prometheus.close)
        # While kernels are compiled at the start, learners lag and may say so.
        started = time.monotonic() + PATIENCE_SECONDS
        while not all(quiet(scorer) for scorer in scorers.values()) or (firing(prometheus) and time.monotonic() < started):
            time.sleep(0.5)
        assert set(prometheus.targets().values()) == {"up"}
        assert firing(prometheus) == set()
        for name, (plant, _, _) in FAULTS.items():
            plant(scorers[name])
        expected, fired = {(name, name) for name in FAULTS}, set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while fired != expected and time.monotonic() < deadline:
            # What fires after a scorer's own alert may follow from the same fault: what came first is judged.
            told = {model for _, model in fired}
            fired |= {(a, model) for a, model, state in prometheus.alerts() if state == "firing" and model not in told}
            time.sleep(0.25)
        assert sorted(fired) == sorted(expected), prometheus.alerts()
