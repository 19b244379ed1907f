"""Health: one number says the worst that is the case, and the words for it are those of `GET /status`."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click import Context
from panels import dashboards

from boards.health import ADVICE, HEALTH, STATES
from riverdelta.cli.main import main
from riverdelta.serving.health import health

RULES = sorted((Path(__file__).parents[2] / "monitoring" / "prometheus" / "rules").glob("*.yml"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian: apt-get install prometheus)")

#: A service that is well, with every series that the rule reads, a minute apart.
WELL = {
    'riverdelta_requests_total{endpoint="score",outcome="ok"}': "0+90x30",
    'riverdelta_requests_total{endpoint="score",outcome="internal"}': "0x30",
    "riverdelta_sidecar_up": "1x30",
    "riverdelta_journal_failing": "0x30",
    "riverdelta_learning_paused": "0x30",
    "riverdelta_breaker_open": "0x30",
    "riverdelta_learning_frozen": "0x30",
    "riverdelta_drift_alarmed": "0x30",
    'riverdelta_row_gain{bound="lower"}': "0.1x30",
    'riverdelta_row_gain{bound="upper"}': "0.2x30",
    'riverdelta_freshness_seconds_bucket{le="0.5"}': "0+60x30",
    'riverdelta_freshness_seconds_bucket{le="+Inf"}': "0+60x30",
}
#: By state: what is other there.
CASES = {
    10: {'riverdelta_requests_total{endpoint="score",outcome="internal"}': "0+10x30"},
    9: {"riverdelta_sidecar_up": "0x30"},
    8: {"riverdelta_journal_failing": "1x30"},
    7: {"riverdelta_learning_paused": "1x30"},
    6: {"riverdelta_breaker_open": "1x30"},
    5: {'riverdelta_row_gain{bound="lower"}': "-0.2x30", 'riverdelta_row_gain{bound="upper"}': "-0.1x30"},
    4: {"riverdelta_learning_frozen": "1x30"},
    3: {"riverdelta_drift_alarmed": "1x30"},
    2: {'riverdelta_freshness_seconds_bucket{le="0.5"}': "0x30", 'riverdelta_freshness_seconds_bucket{le="10.0"}': "0+60x30"},
    1: {'riverdelta_row_gain{bound="lower"}': "-0.1x30"},
    0: {},
}
#: The same as a status, for the states that the page knows.
STATUSES = {
    9: {"sidecar": {"alive": False, "silent_seconds": 20.0}, "learning": {"position": 1}},
    8: {"journal": {"error": "database or disk is full"}},
    7: {"learning": {"paused": "no space left"}},
    6: {"learning": {"admission": {"open": True, "reason": "flood"}}},
    5: {"learning": {"worth": {"gain": {"lower": -0.2, "upper": -0.1, "mean": -0.15}, "labels": 640}}},
    4: {"learning": {"frozen": True}},
    3: {"learning": {"drift": {"alarmed": True}}},
    0: {"learning": {"worth": {"gain": {"lower": 0.1, "upper": 0.2, "mean": 0.15}, "labels": 640}}},
}


def of(name):
    """A series as promtool's input, of one model."""
    metric, _, labels = name.partition("{")
    return f'{metric}{{job="j",instance="i",model="m"{"," + labels if labels else "}"}'


def promtool_finds(number, series, folder):
    asked = {"expr": "riverdelta:health:state", "eval_time": "20m"}
    given = [{"series": of(name), "values": values} for name, values in series.items()]
    expected = [{"labels": '{__name__="riverdelta:health:state", job="j", instance="i", model="m"}', "value": number}]
    group = {"interval": "1m", "input_series": given, "promql_expr_test": [{**asked, "exp_samples": expected}]}
    test = folder / "test.yml"
    test.write_text(json.dumps({"rule_files": list(map(str, RULES)), "evaluation_interval": "1m", "tests": [group]}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(test)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("number", CASES)
def test_the_rule_names_the_state_of_a_service(number, tmp_path):
    promtool_finds(number, WELL | CASES[number], tmp_path)


@needs_promtool
@pytest.mark.parametrize("number", sorted(CASES, reverse=True)[:-1])
def test_the_worst_of_all_that_is_the_case_counts(number, tmp_path):
    below = [case for other, case in sorted(CASES.items()) if other < number]
    series = WELL
    for case in [*below, CASES[number]]:
        series = series | case
    promtool_finds(number, series, tmp_path)


@needs_promtool
def test_what_was_never_judged_cannot_be_told_yet(tmp_path):
    nothing = {f'riverdelta_row_gain{{bound="{bound}"}}': "NaN " * 31 for bound in ("lower", "upper")}
    idle = {name: "0x30" for name in WELL if "_bucket" in name or "requests" in name}
    promtool_finds(1, WELL | nothing | idle, tmp_path)


def test_every_number_of_the_rule_has_words_and_advice_worst_first():
    (rule,) = [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if rule.get("record") == "riverdelta:health:state"
    ]
    named = [int(number) for number in re.findall(r"^(?:or )?(\d+) [*-]", rule["expr"].replace("  ", ""), re.MULTILINE)]
    assert named == list(HEALTH) == list(CASES) == sorted(CASES, reverse=True)
    assert all(state and advice for state, _, advice in HEALTH.values())
    assert len({state for state, _ in STATES.values()}) == len(STATES)
    assert STATES.keys() == ADVICE.keys()


@pytest.mark.parametrize("number", STATUSES)
def test_the_words_are_those_of_the_status(number):
    status = {"sidecar": {"alive": True}, "learning": {"position": 1}} | STATUSES[number]
    assert HEALTH[number][0].lower() in health(status).sentence.lower()


def test_the_advice_names_commands_that_there_are():
    advice = [advice for _, _, advice in HEALTH.values()]
    told = [panel["options"]["content"] for panel in dashboards()["overview"]["panels"] if panel["type"] == "text"]
    commands = {name for text in (*advice, *told) for name in re.findall(r"riverdelta (\w+)", text)}
    assert {"rollback", "resume", "freeze", "releases"} <= commands
    assert commands <= set(main.list_commands(Context(main)))
