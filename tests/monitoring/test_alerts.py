"""The rules, by promtool: each alert fires for what it is about, stays silent beside it, and says what to do."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from riverdelta.metrics.worker import Metrics

PROMETHEUS = Path(__file__).parents[2] / "monitoring" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian: apt-get install prometheus)")

#: By alert: the series of a service that has the fault and of one that is well, as {name{labels}: values}, a minute apart.
CASES = {
    "RiverdeltaLearnerDown": ({"riverdelta_sidecar_up": "0x60"}, {"riverdelta_sidecar_up": "1x60"}),
    "RiverdeltaLearningPaused": ({"riverdelta_learning_paused": "1x60"}, {"riverdelta_learning_paused": "0x60"}),
    "RiverdeltaNoSwaps": (
        {"riverdelta_examples_learned": "0+100x60", 'riverdelta_swaps_total{outcome="taken"}': "5x60"},
        {"riverdelta_examples_learned": "0+100x60", 'riverdelta_swaps_total{outcome="taken"}': "0+60x60"},
    ),
    "RiverdeltaWorseThanBase": (
        {'riverdelta_row_gain{bound="upper"}': "-0.01x60", 'riverdelta_row_gain{bound="lower"}': "-0.03x60"},
        {'riverdelta_row_gain{bound="upper"}': "0.01x60", 'riverdelta_row_gain{bound="lower"}': "-0.03x60"},
    ),
    "RiverdeltaBreakerOpen": ({"riverdelta_breaker_open": "1x60"}, {"riverdelta_breaker_open": "0x60"}),
    "RiverdeltaHeldDropped": (
        {"riverdelta_held_examples_dropped": "0x30 1x30"},
        {"riverdelta_held_examples_dropped": "7x60", "riverdelta_held_examples": "0+9x60"},
    ),
    "RiverdeltaSenderCapped": (
        {"riverdelta_weight_capped": "0+50x60", "riverdelta_examples_joined": "0+100x60"},
        {"riverdelta_weight_capped": "0+1x60", "riverdelta_examples_joined": "0+100x60"},
    ),
    "RiverdeltaFeedbackVolume": (
        {'riverdelta_feedback_total{outcome="accepted"}': "0+10x1440 14450+50x120",
         'riverdelta_rows_scored_total{transport="rest"}': "0+100x1560"},
        # At night there are few of both.
        {'riverdelta_feedback_total{outcome="accepted"}': "0+100x1440 144010+10x120",
         'riverdelta_rows_scored_total{transport="rest"}': "0+1000x1440 1440100+100x120"},
    ),
    "RiverdeltaFreshnessSlow": (
        {'riverdelta_freshness_seconds_bucket{le="5.0"}': "0x60", 'riverdelta_freshness_seconds_bucket{le="10.0"}': "0+60x60",
         'riverdelta_freshness_seconds_bucket{le="+Inf"}': "0+60x60"},
        {'riverdelta_freshness_seconds_bucket{le="0.1"}': "0+60x60",
         'riverdelta_freshness_seconds_bucket{le="+Inf"}': "0+60x60"},
    ),
    "RiverdeltaBacklogGrowing": (
        {"riverdelta_journal_position": "2000+100x60", "riverdelta_learned_position": "100x60"},
        {"riverdelta_journal_position": "2000+100x60", "riverdelta_learned_position": "1990+100x60"},
    ),
    "RiverdeltaLabelsUnmatched": ({"riverdelta_labels_unmatched": "0x30 1x30"}, {"riverdelta_labels_unmatched": "3x60"}),
    "RiverdeltaLabelsExpired": (
        # One label of 30 million.
        {'riverdelta_feedback_total{outcome="accepted"}': "0+1e6x60",
         'riverdelta_feedback_total{outcome="expired"}': "0x29 1x30"},
        {'riverdelta_feedback_total{outcome="accepted"}': "0+90x60", 'riverdelta_feedback_total{outcome="late"}': "0+10x60",
         'riverdelta_feedback_total{outcome="expired"}': "7x60"},
    ),
    "RiverdeltaFeedbackRefused": (
        {'riverdelta_feedback_total{outcome="accepted"}': "0+97x60",
         'riverdelta_feedback_total{outcome="bad_id"}': "0+1x60",
         'riverdelta_feedback_total{outcome="out_of_range"}': "0+1x60",
         'riverdelta_feedback_total{outcome="impression_lost"}': "0+1x60"},
        {'riverdelta_feedback_total{outcome="accepted"}': "0+990x60",
         'riverdelta_feedback_total{outcome="duplicate"}': "0+90x60",
         'riverdelta_feedback_total{outcome="conflict"}': "0+90x60",
         'riverdelta_feedback_total{outcome="late"}': "0+90x60",
         'riverdelta_feedback_total{outcome="bad_id"}': "0+9x60"},
    ),
    "RiverdeltaJournalFailing": ({"riverdelta_journal_failing": "1x60"}, {"riverdelta_journal_failing": "0x60"}),
    "RiverdeltaDiskNearlyFull": ({"riverdelta_disk_free_ratio": "0.05x60"}, {"riverdelta_disk_free_ratio": "0.5x60"}),
    "RiverdeltaDrift": ({"riverdelta_drift_alarmed": "1x60"}, {"riverdelta_drift_alarmed": "0x60"}),
    "RiverdeltaCalibrationOff": (
        {'riverdelta_prequential_calibration_ratio{scorer="served",window="recent"}': "1.5x60",
         'riverdelta_prequential_examples{scorer="served",window="recent"}': "9000x60"},
        {'riverdelta_prequential_calibration_ratio{scorer="served",window="recent"}': "1.5x60",
         'riverdelta_prequential_examples{scorer="served",window="recent"}': "90x60"},
    ),
    "RiverdeltaNotFinite": (
        {'riverdelta_rows_not_finite_total{scorer="served"}': "0+1x60"},
        {'riverdelta_rows_not_finite_total{scorer="served"}': "7x60"},
    ),
    "RiverdeltaErrors": (
        {'riverdelta_requests_total{endpoint="score",outcome="ok"}': "0+90x60",
         'riverdelta_requests_total{endpoint="score",outcome="internal"}': "0+10x60"},
        {'riverdelta_requests_total{endpoint="score",outcome="ok"}': "0+90x60",
         'riverdelta_requests_total{endpoint="score",outcome="invalid"}': "0+10x60"},
    ),
    "RiverdeltaSlow": (
        {'riverdelta_request_seconds_bucket{transport="rest",stage="total",le="0.25"}': "0x60",
         'riverdelta_request_seconds_bucket{transport="rest",stage="total",le="1.0"}': "0+60x60",
         'riverdelta_request_seconds_bucket{transport="rest",stage="total",le="+Inf"}': "0+60x60"},
        {'riverdelta_request_seconds_bucket{transport="rest",stage="total",le="0.25"}': "0+60x60",
         'riverdelta_request_seconds_bucket{transport="rest",stage="total",le="+Inf"}': "0+60x60"},
    ),
    "RiverdeltaReleaseRefused": (
        {"riverdelta_releases_refused": "0x30 1x30"}, {"riverdelta_releases_refused": "3x60"},
    ),
}  # fmt: skip


def rules():
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def of(series, model):
    """A series as promtool's input, of one model."""
    name, _, labels = series.partition("{")
    return f'{name}{{job="riverdelta",instance="host:3000",model="{model}"{"," + labels if labels else "}"}'


def test_every_alert_has_a_case_and_says_what_follows_and_what_to_do():
    assert alerts().keys() == CASES.keys()
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), name
        assert rule["annotations"].keys() == {"summary", "consequence", "runbook"}, name


def test_every_expression_asks_for_metrics_that_there_are():
    registry = CollectorRegistry()
    Metrics(registry, "shop")
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    known = {f.name + suffix for f in registry.collect() for suffix in suffixes[f.type]}
    known |= {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        asked = set(re.findall(r"riverdelta[a-z0-9_:]+", rule["expr"]))
        assert asked <= known, rule
    for bad, good in CASES.values():
        assert {series.partition("{")[0] for series in {**bad, **good}} <= known


@needs_promtool
def test_promtool_accepts_the_rules_and_the_configuration():
    for what, path in (("rules", RULES), ("config", [PROMETHEUS / "prometheus.yml"])):
        done = subprocess.run([PROMTOOL, "check", what, *map(str, path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("name", CASES)
def test_it_fires_for_the_fault_alone_and_for_no_service_that_is_well(name, tmp_path):
    bad, good = CASES[name]
    series = [{"series": of(s, model), "values": v} for model, part in (("bad", bad), ("good", good)) for s, v in part.items()]
    # Right after its fault began an alert with a `for` still waits; at half an hour it fires, and no other does. One compares
    # with a day before.
    at = {"RiverdeltaFeedbackVolume": "25h50m"}.get(name, "35m")
    asked = {"expr": 'count by (alertname, model) (ALERTS{alertstate="firing"})', "eval_time": at}
    expected = {"labels": f'{{alertname="{name}", model="bad"}}', "value": 1}
    group = {"interval": "1m", "input_series": series, "promql_expr_test": [{**asked, "exp_samples": [expected]}]}
    test = tmp_path / "test.yml"
    test.write_text(json.dumps({"rule_files": list(map(str, RULES)), "evaluation_interval": "1m", "tests": [group]}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(test)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
