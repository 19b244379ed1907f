"""Metrics: named and helped as Prometheus wants, right when several processes share them, and cheap to feed."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from riverdelta.core.errors import (
    ConfigurationError,
    InvalidInput,
    RateLimited,
    RiverdeltaError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential
from riverdelta.metrics.family import Distribution
from riverdelta.metrics.files import forget_dead_workers, page
from riverdelta.metrics.learner import GAUGES, STALE_SECONDS, TrainerMirror
from riverdelta.metrics.worker import REFUSALS, STAGES, Metrics
from riverdelta.storage.journal.base import Health, Outcome
from riverdelta.storage.registry import State

#: What one worker does; it then waits to be killed.
WORKER = """
import sys, time
import numpy as np
from riverdelta.storage.journal.base import Health, Outcome
from riverdelta.metrics.worker import Metrics
from riverdelta.storage.registry import State
metrics = Metrics(model="shop")
me = int(sys.argv[1])
metrics.provider("CPUExecutionProvider")
for _ in range(me):
    metrics.scored("grpc", 10, decode=1e-4, score=1e-3, journal=1e-4)
    metrics.answered("grpc", "score", 200, 2e-3)
metrics.answered("rest", "feedback", 503, 0.0)
metrics.feedback([Outcome.ACCEPTED] * me + [Outcome.LATE])
metrics.swapped(1e-4)
metrics.fresh(np.array([0.03, 0.3, 100.0]))
status = {"time": 1000.0, "examples": 100 * me, "published": 1000.0 - me, "swap": 3}
metrics.mirror(status, State(1, 3, 10 * me), Health(pending_rows=me, dropped_rows=2, error=None), now=1000.0)
print("ready", flush=True)
time.sleep(600)
"""


def samples(registry):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in registry.collect() for s in family.samples}


def value(registry, name, **labels):
    return samples(registry)[f"riverdelta_{name}", tuple(sorted({"model": "shop", **labels}.items()))]


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def full(registry):
    """Return a registry in which every metric has a sample."""
    metrics = Metrics(registry, "shop")
    metrics.expect({"rest": ["score"]})
    metrics.provider("CPUExecutionProvider")
    metrics.answered("rest", "score", 400, 0.01)
    metrics.mirror(status(), State(3, 12, 90), Health(0, 0, None), now=1000.0)
    return registry


def status(**changes):
    report = Prequential(window=4)
    report.update(*(np.array(c, np.float32) for c in ([0, 1, -1], [1, 2, -2], [0, 1, 0])))
    return {
        "position": 90, "examples": 40, "unmatched": 1, "waiting_rows": 7, "waiting_bytes": 9000, "read_back_rows": 2,
        "release": 3, "swap": 12, "published": 990.0,
        "releases": 2, "releases_refused": 1, "refused_because": "x", "parity_max_error": 2e-6, "paused": None, "frozen": False,
        "occupancy": {"entity_user_id/beliefs": 0.25}, "prequential": report.report(), "journal_bytes": 4096, "pid": 1,
        "time": 999.5, "learned": 36, "champion": 2, "release_bytes": 8192, "gate": {**Gate().report(), "weight": 0.75},
        "admission": {"open": True, "reason": "x", "trips": 2, "limited": 4}, "disk_free_ratio": 0.4, "journal_position": 95,
        "controls": {"release": 3, "rollback": 1}, "traffic": {
            "rows": 9, "residual": {"0.5": 0.1, "1": 2.5}, "top_changed": 0.25,
            "expected_loss": {"base": 0.7, "served": 0.5},
        },
        "drift": {
            "columns": {"user": {"psi": 0.3, "js": 0.2}}, "quantities": {"score": {"alarms": 1, "evidence": 0.5}},
            "alarmed": True, "adapting_examples": 7,
        },
        "slices": {"country": {"de": {"base": {"examples": 5, "loss": 0.6, "calibration_ratio": None}}}},
        "worth": {"labels": 9, "gain": {"mean": 0.02, "lower": -0.01, "upper": 0.05}},
        "trial": {"challenger": 3, "mean": 0.001, "lower": -0.002, "upper": 0.004},
    } | changes  # fmt: skip


@pytest.fixture
def workers(tmp_path):
    """Run three real worker processes over one folder."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(n)], env=environment, stdout=subprocess.PIPE, text=True)
        for n in (1, 2, 3)
    ]
    try:
        assert [p.stdout.readline() for p in started] == ["ready\n"] * 3
        yield started
    finally:
        for p in started:
            p.kill()
            p.wait()
            p.stdout.close()


def merged(folder):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return registry


def test_values_of_several_processes_add_up(workers, tmp_path, monkeypatch):
    registry = merged(tmp_path)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert page() == generate_latest(registry)
    assert value(registry, "rows_scored_total", transport="grpc") == 60
    assert value(registry, "requests_total", transport="grpc", endpoint="score", outcome="ok") == 6
    assert value(registry, "requests_total", transport="rest", endpoint="feedback", outcome="unavailable") == 3
    assert value(registry, "feedback_refused_total", reason="unavailable") == 3
    assert value(registry, "feedback_total", outcome="accepted") == 6
    assert value(registry, "feedback_total", outcome="late") == 3
    assert value(registry, "impressions_dropped_total") == 6
    assert value(registry, "request_seconds_count", transport="grpc", stage="total") == 6
    assert value(registry, "request_seconds_sum", transport="grpc", stage="score") == pytest.approx(6e-3)
    assert value(registry, "swaps_total", outcome="taken") == 3
    assert value(registry, "swap_seconds_count") == 3
    assert value(registry, "freshness_seconds_bucket", le="0.05") == 3
    assert value(registry, "freshness_seconds_bucket", le="60.0") == 6
    assert value(registry, "freshness_seconds_count") == 9
    assert value(registry, "journal_pending_rows") == 6
    assert value(registry, "live_age_seconds") == 3
    assert value(registry, "live_position") == 10


def test_what_the_learner_says_is_repeated_once_however_many_workers_repeat_it(workers, tmp_path):
    registry = merged(tmp_path)
    assert value(registry, "examples_joined") in {100, 200, 300}
    assert value(registry, "sidecar_up") == 1
    assert ("riverdelta_parity_max_error", (("model", "shop"),)) not in samples(registry)


def test_a_killed_workers_counts_stay_and_its_live_gauges_go(workers, tmp_path, monkeypatch):
    workers[1].send_signal(signal.SIGKILL)
    workers[1].wait()
    assert value(merged(tmp_path), "execution_provider", provider="CPUExecutionProvider") == 3
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert forget_dead_workers() == [workers[1].pid]
    assert forget_dead_workers() == []
    registry = merged(tmp_path)
    assert value(registry, "execution_provider", provider="CPUExecutionProvider") == 2
    assert value(registry, "journal_pending_rows") == 4
    assert value(registry, "rows_scored_total", transport="grpc") == 60


def test_there_is_nothing_to_forget_outside_multiprocess_mode(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    assert forget_dead_workers() == []


def test_every_metric_has_a_name_and_a_help_that_say_its_unit(full):
    unit = re.compile(r", (in \w+( a row)?|0 or 1|a ratio|a number)$")
    for family in full.collect():
        assert re.fullmatch(r"riverdelta_[a-z0-9]+(_[a-z0-9]+)*", family.name)
        assert unit.search(family.documentation), f"{family.name}: {family.documentation!r} does not end with its unit"
        for word in ("seconds", "bytes", "rows", "ratio"):
            if family.name.endswith(f"_{word}"):
                assert word in family.documentation
        parts = set(family.name.split("_"))
        assert not parts & {"ms", "us", "s", "sec", "kb", "mb", "gauge", "counter", "histogram", "summary"}, family.name
        assert family.type == "counter" or not family.name.endswith(("_total", "_count", "_sum", "_bucket"))


def test_promtool_finds_nothing_to_say(full):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; the rules of the test above stand in for it")
    done = subprocess.run([promtool, "check", "metrics"], input=generate_latest(full), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_labels_have_a_fixed_set_of_values(full):
    names = {label for family in full.collect() for s in family.samples for label in s.labels}
    assert names == {
        "transport", "stage", "endpoint", "outcome", "reason", "kind", "provider", "table", "scorer", "window", "le", "model",
        "column", "quantity", "slice", "bound", "share", "action", "sender",
    }  # fmt: skip
    assert len(samples(full)) < 600


def test_series_of_rare_events_exist_before_the_first(registry):
    Metrics(registry, "shop")
    assert {value(registry, "feedback_total", outcome=o.value) for o in Outcome} == {0}
    assert {value(registry, "feedback_refused_total", reason=r) for r in REFUSALS} == {0}
    assert value(registry, "swaps_total", outcome="refused") == 0


def test_each_stage_of_a_request_has_its_own_time_and_only_a_good_answer_a_total(registry):
    metrics = Metrics(registry, "shop")
    metrics.scored("rest", 5, decode=0.5, score=1.5, journal=0.25)
    metrics.encoded("rest", 0.125)
    metrics.answered("rest", "score", 200, 2.5)
    metrics.answered("rest", "score", 413, 9.0)
    metrics.answered("rest", "status", 200, 9.0)
    sums = {s: value(registry, "request_seconds_sum", transport="rest", stage=s) for s in STAGES}
    assert sums == {"decode": 0.5, "score": 1.5, "journal": 0.25, "encode": 0.125, "total": 2.5}
    assert value(registry, "rows_scored_total", transport="rest") == 5


def test_feedback_has_a_time_of_its_own(registry):
    metrics = Metrics(registry, "shop")
    metrics.expect({"grpc": ["score", "feedback"]})
    metrics.answered("grpc", "feedback", 200, 0.02)
    assert value(registry, "feedback_seconds_sum", transport="grpc") == 0.02
    assert value(registry, "request_seconds_count", transport="grpc", stage="total") == 0


@pytest.mark.parametrize("values", [[], [0.01, 0.010001, 1e9, 0.0], [math.nan, 0.2, math.inf, -1.0]])
def test_many_values_at_once_count_as_one_by_one(values):
    many, single = CollectorRegistry(), CollectorRegistry()
    Distribution("x", "x", buckets=(0.01, 1.0), registry=many).observe_many(np.array(values, np.float64))
    one_by_one = Histogram("x", "x", buckets=(0.01, 1.0), registry=single)
    for v in values:
        if math.isfinite(v):
            one_by_one.observe(v)
    expected = {k: v for k, v in samples(single).items() if k[0] != "x_created"}
    assert {k: v for k, v in samples(many).items() if k[0] != "x_created"} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidInput, "invalid"),
        (Unauthenticated, "invalid"),
        (RateLimited, "invalid"),
        (Unsupported, "invalid"),
        (TooLarge, "too_large"),
        (Unavailable, "unavailable"),
        (ConfigurationError, "internal"),
        (RiverdeltaError, "internal"),
    ],
)
def test_a_refused_request_counts_by_whose_fault_it_is(registry, error, reason):
    metrics = Metrics(registry, "shop")
    metrics.answered("oip_rest", "feedback", error.http_status, 0.1)
    metrics.answered("oip_rest", "score", error.http_status, 0.1)
    for endpoint in ("feedback", "score"):
        assert value(registry, "requests_total", transport="oip_rest", endpoint=endpoint, outcome=reason) == 1
    assert value(registry, "feedback_refused_total", reason=reason) == 1


def test_a_failing_journal_is_counted_when_it_begins_to_fail_and_shown_while_it_does(registry):
    metrics = Metrics(registry, "shop")
    for health in (
        Health(5, 0, None),
        Health(9, 0, "OperationalError: database or disk is full"),
        Health(9, 30, "OperationalError: database or disk is full"),
        Health(0, 30, None),
        Health(1, 30, "OSError: input/output error"),
    ):
        metrics.mirror({}, State(0, 0, 0), health, now=0.0)
    assert value(registry, "journal_errors_total", kind="full_disk") == 1
    assert value(registry, "journal_errors_total", kind="other") == 1
    assert value(registry, "impressions_dropped_total") == 30
    assert value(registry, "journal_failing") == 1
    assert value(registry, "journal_pending_rows") == 1


def test_the_mirror_repeats_a_status_that_went_through_json(registry):
    TrainerMirror(registry, "shop").update(json.loads(json.dumps(status())), now=1000.0)
    assert value(registry, "sidecar_up") == 1
    assert value(registry, "learning_paused") == 0
    assert value(registry, "examples_joined") == 40
    assert value(registry, "examples_learned") == 36
    assert value(registry, "champion_number") == 2
    assert value(registry, "gate_weight_ratio") == 0.75
    assert value(registry, "gate_bound") > 0
    assert value(registry, "gate_skipped") == 0
    assert value(registry, "breaker_open") == 1
    assert value(registry, "breaker_trips") == 2
    assert value(registry, "updates_limited") == 4
    assert value(registry, "joiner_rows") == 7
    assert value(registry, "parity_max_error") == 2e-6
    assert value(registry, "table_occupancy_ratio", table="entity_user_id/beliefs") == 0.25
    assert value(registry, "prequential_auc", scorer="served", window="recent") == 1.0
    assert value(registry, "prequential_examples", scorer="base", window="all") == 3
    assert value(registry, "prequential_threshold", scorer="base", window="all") == 0.5
    assert value(registry, "journal_position") - value(registry, "learned_position") == 5
    assert value(registry, "disk_free_ratio") == 0.4
    assert [value(registry, "controls", action=a) for a in ("release", "rollback")] == [3, 1]
    assert value(registry, "residual", share="1") == 2.5
    assert value(registry, "top_changed_ratio") == 0.25
    assert value(registry, "expected_loss", scorer="served") == 0.5
    assert value(registry, "drift_psi_ratio", column="user") == 0.3
    assert value(registry, "drift_evidence_ratio", quantity="score") == 0.5
    assert value(registry, "drift_adapting_examples") == 7
    assert value(registry, "slice_loss", column="country", slice="de", scorer="base") == 0.6
    assert math.isnan(value(registry, "slice_calibration_ratio", column="country", slice="de", scorer="base"))
    assert [value(registry, "row_gain", bound=b) for b in ("lower", "mean", "upper")] == [-0.01, 0.02, 0.05]
    assert value(registry, "trial_gain", bound="lower") == -0.002


def test_a_trial_that_ended_leaves_no_interval(registry):
    mirror = TrainerMirror(registry, "shop")
    mirror.update(status(), now=1000.0)
    mirror.update(status(trial=None), now=1001.0)
    assert math.isnan(value(registry, "trial_gain", bound="mean"))
    assert value(registry, "row_gain", bound="mean") == 0.02


def test_two_scorers_share_a_registry_and_only_the_label_tells_them_apart(registry):
    shop, search = Metrics(registry, "shop"), Metrics(registry, "search")
    shop.swapped(1e-4)
    shop.fresh(np.array([0.03]))
    search.mirror(status(position=7), State(3, 12, 5), Health(0, 0, None), now=1000.0)
    assert [value(registry, "swaps_total", model=m, outcome="taken") for m in ("shop", "search")] == [1, 0]
    assert [value(registry, "learned_position", model=m) for m in ("shop", "search")] == [0, 7]
    assert (shop.freshness(0.5), search.freshness(0.5)) == (0.05, None)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))
    assert all('model="shop"' in line or 'model="search"' in line for line in lines)


def test_a_scorer_that_is_made_again_goes_on_counting_where_it_was(registry):
    Metrics(registry, "shop").swapped(1e-4)
    before = samples(registry).keys()
    Metrics(registry, "shop").swapped(1e-4)
    assert value(registry, "swaps_total", outcome="taken") == 2
    assert samples(registry).keys() == before


def test_registries_have_metrics_of_their_own_and_scorers_can_be_made_by_many_threads(registry):
    other = CollectorRegistry()
    Metrics(other, "shop").swapped(1e-4)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: Metrics(registry, f"shop{n % 4}"), range(16)))
    for each in made:
        each.swapped(1e-4)
    assert [value(registry, "swaps_total", model=f"shop{n}", outcome="taken") for n in range(4)] == [4] * 4


def test_live_age_is_that_of_what_this_worker_serves_and_grows_while_it_is_behind(registry):
    metrics, well = Metrics(registry, "shop"), Health(0, 0, None)
    metrics.mirror({}, State(0, 0, 0), well, now=10.0)
    assert value(registry, "live_age_seconds") == 0
    metrics.mirror(status(swap=12, published=990.0), State(3, 12, 90), well, now=1000.0)
    assert value(registry, "live_age_seconds") == 10
    metrics.mirror(status(swap=14, published=1001.0), State(3, 13, 95), well, now=1002.0)
    assert value(registry, "live_age_seconds") == 12
    metrics.mirror(status(swap=14, published=1001.0), State(3, 15, 99), well, now=1003.0)
    assert value(registry, "live_age_seconds") == 2
    assert value(registry, "live_position") == 99


def test_null_becomes_nan_and_what_is_missing_stays(registry):
    mirror = TrainerMirror(registry, "shop")
    mirror.update(status(), now=1000.0)
    mirror.update({"time": 1000.0, "parity_max_error": None, "paused": "the disk is full"}, now=1001.0)
    assert math.isnan(value(registry, "parity_max_error"))
    assert value(registry, "learning_paused") == 1
    assert value(registry, "examples_joined") == 40


@pytest.mark.parametrize("old", [{}, {"time": 1000.0 - STALE_SECONDS - 0.1}])
def test_a_learner_that_stopped_writing_is_down(registry, old):
    mirror = TrainerMirror(registry, "shop")
    mirror.update(status(time=1000.0), now=1000.0)
    mirror.update(old, now=1000.0)
    assert value(registry, "sidecar_up") == 0


def test_every_measure_of_a_report_has_its_gauge():
    measures = {path.rpartition(".")[2] for path in GAUGES if path.startswith("prequential.")}
    assert measures == set(Prequential().report()["all"]["base"])


def of(registry, name, **labels):
    return registry.get_sample_value(f"riverdelta_{name}", {"model": "shop", **labels})


def test_a_status_dated_in_the_future_is_no_sign_of_life_and_a_small_skew_is(registry):
    mirror = TrainerMirror(registry, "shop")
    for dated, up in ((1_000.0, 1), (1_004.0, 1), (4_600.0, 0), (math.inf, 0), (math.nan, 0), (980.0, 0)):
        mirror.update(status(time=dated), now=1_000.0)
        assert of(registry, "sidecar_up") == up, dated


def test_tables_published_in_the_future_get_older_from_now_on(registry):
    metrics, well = Metrics(registry, "shop"), Health(0, 0, None)
    for now, age in ((1_000.0, 0.0), (1_030.0, 30.0), (500.0, 0.0), (560.0, 60.0)):
        metrics.mirror(status(swap=3, published=4_600.0), State(3, 3, 1), well, now)
        assert of(registry, "live_age_seconds") == age, now
    metrics.mirror(status(swap=4, published=550.0), State(3, 4, 1), well, 560.0)
    assert of(registry, "live_age_seconds") == 10.0


def test_feedback_received_in_the_future_has_no_age_and_after_a_small_skew_it_is_fresh(registry):
    metrics = Metrics(registry, "shop")
    metrics.fresh(np.array([-3_600.0, -1.0, 2.0]))
    assert (of(registry, "freshness_seconds_count"), of(registry, "freshness_seconds_sum")) == (2.0, 2.0)


def test_a_workers_own_figures_are_those_of_its_metrics(registry):
    metrics = Metrics(registry, "ranker")
    metrics.scored("rest", rows=3, decode=0.25, score=0.5, journal=0.125)
    metrics.scored("grpc", rows=4, decode=0.25, score=1.5, journal=0.125)
    metrics.encoded("grpc", 0.25)
    metrics.answered("rest", "score", 200, 1.0)
    metrics.answered("grpc", "score", 400, 8.0)
    metrics.feedback([Outcome.ACCEPTED, Outcome.BAD_ID])
    scored, fed = metrics.figures("score"), metrics.figures("feedback")
    assert (scored.rows, scored.spent["compute_infer"], scored.spent["compute_input"]) == (7, (2, 2.0), (2, 0.5))
    assert (scored.spent["success"], scored.spent["fail"], scored.spent["compute_output"]) == ((1, 1.0), (1, 0.0), (1, 0.25))
    assert (fed.rows, fed.last, fed.spent["success"], fed.spent["fail"]) == (1, 0.0, (0, 0.0), (0, 0.0))
    assert scored.last > 0


def test_feedback_is_counted_by_the_name_of_its_sender_and_that_of_others_together():
    registry = CollectorRegistry()
    metrics = Metrics(registry, "ranker", ["shop", "app"])
    metrics.feedback([Outcome.ACCEPTED, Outcome.BAD_ID], "shop")
    metrics.feedback([Outcome.ACCEPTED])
    found = {
        sender: registry.get_sample_value("riverdelta_sender_feedback_total", {"model": "ranker", "sender": sender})
        for sender in ("shop", "app", "other")
    }
    assert found == {"shop": 2, "app": 0, "other": 1}
