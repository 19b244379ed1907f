"""The dashboards: they are what their code makes, Grafana's models take them, and every panel can be read and asked."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from panels import DASHBOARDS, dashboards, expressions, filled
from prometheus_client import CollectorRegistry

from boards.board import board
from boards.files import files
from boards.panels import lines
from boards.queries import Ask
from riverdelta.metrics.worker import Metrics

GRAFANA = DASHBOARDS.parent
RULES = sorted((GRAFANA.parent / "prometheus" / "rules").glob("*.yml"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian: apt-get install prometheus)")
#: What the SDK's model of an annotation lacks.
UNMODELLED = {"titleFormat", "textFormat", "tagKeys"}
CHOSEN = 'job=~"$job",instance=~"$instance",model=~"$model"'
each_board = pytest.mark.parametrize("name", files())


def panels(name):
    return dashboards()[Path(name).stem]["panels"]


def asking(name):
    return [panel for panel in panels(name) if "targets" in panel]


def rules():
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


@each_board
def test_the_checked_in_dashboard_is_what_its_code_makes(name):
    assert (DASHBOARDS / name).read_text() == files()[name], "run `make dashboards`"


def test_no_other_file_lies_beside_them():
    assert {path.name for path in DASHBOARDS.iterdir()} == files().keys()


@each_board
def test_the_models_of_grafana_take_it_and_lose_nothing(name):
    register_default_plugins()
    given = json.loads((DASHBOARDS / name).read_text())
    taken = json.loads(json.dumps(Dashboard.from_json(given), cls=JSONEncoder))
    for event in given["annotations"]["list"]:
        assert all(event.pop(key) for key in UNMODELLED)
    assert taken == given


def test_each_has_a_name_of_its_own_and_links_to_all():
    boards = dashboards().values()
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == 4
    for made in boards:
        assert made["description"]
        (link,) = made["links"]
        assert link["type"] == "dashboards"
        assert link["includeVars"]
        assert link["keepTime"]
        assert set(link["tags"]) <= set(made["tags"])


def test_all_let_choose_the_models_among_those_that_are_served():
    for made in dashboards().values():
        variables = {each["name"]: each for each in made["templating"]["list"]}
        assert list(variables)[:4] == ["datasource", "job", "instance", "model"]
        assert variables["datasource"]["type"] == "datasource"
        for name in variables.keys() - {"datasource"}:
            assert re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variables[name]["query"])[3] == name
            assert variables[name]["multi"]
            assert variables[name]["includeAll"]
            assert variables[name]["allValue"] == ".+"


def test_a_panel_is_repeated_for_each_measure_that_the_chosen_models_have():
    (panel,) = [panel for made in dashboards().values() for panel in made["panels"] if "repeat" in panel]
    (variable,) = [v for v in dashboards()["learning"]["templating"]["list"] if v["name"] == panel["repeat"] == "measure"]
    assert variable["query"].startswith("label_values(riverdelta_measure{")
    assert 'measure=~"$measure"' in panel["targets"][0]["expr"]


@each_board
def test_every_panel_says_what_it_is_and_in_which_unit_and_from_where_it_is_bad(name):
    for panel in panels(name):
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert len(panel["description"]) > 20, panel["title"]
        if panel["type"] == "text":
            continue
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        first, *others = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert first is None
        assert others == sorted(set(others)), panel["title"]


@each_board
def test_panels_fill_the_grid_and_none_lies_on_another(name):
    taken, ids = set(), [panel["id"] for panel in panels(name)]
    for panel in panels(name):
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert cells
        assert not cells & taken, panel["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert taken == {(x, y) for x in range(24) for y in range(height)}
    assert len(set(ids)) == len(ids)


def test_an_overview_fits_on_a_screen_with_its_answers_first():
    tiles = [panel for panel in panels("overview.json") if panel["gridPos"]["y"] == 0]
    assert [tile["title"] for tile in tiles] == ["Does it help?", "How fresh is it?", "Is it healthy?", "Does it drift?"]
    (todo,) = [panel for panel in panels("overview.json") if panel["title"] == "What to do?"]
    # 24 units of a grid are 900 pixels.
    assert todo["gridPos"]["y"] + todo["gridPos"]["h"] <= 8


@each_board
def test_every_series_is_of_the_chosen_models_and_says_whose_it_is(name):
    for panel in asking(name):
        for target in panel["targets"]:
            assert re.findall(r"(riverdelta[a-z0-9_:]+)", target["expr"]), panel["title"]
            for metric, matchers in re.findall(r"(riverdelta[a-z0-9_:]+)(.{0,60})", target["expr"]):
                assert matchers.startswith("{" + CHOSEN), (panel["title"], metric)
            assert target["legendFormat"].endswith("{{model}} · {{instance}}"), panel["title"]
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_nothing_that_is_asked_for_or_recorded_adds_up_or_pairs_scorers_of_one_instance():
    recorded = [
        rule["expr"] for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
    ]
    for expression in [asked.expression for made in dashboards().values() for asked in expressions(made)] + recorded:
        for kept in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", expression):
            assert {"job", "instance", "model"} <= set(kept.replace(" ", "").split(",")), expression
        assert not re.search(r"\b(?:sum|min|max|avg|count|topk|group) ?\(", expression), expression
        for left_out in re.findall(r"\b(?:without|ignoring) ?\(([^)]*)\)", expression):
            assert "model" not in left_out, expression


def known():
    """The labels of every metric and of every recorded series, by name."""
    registry = CollectorRegistry()
    Metrics(registry, "shop")
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    labels = {
        family.name + suffix: {*registry._names_to_collectors[family.name]._labelnames, "job", "instance", "le"}
        for family in registry.collect()
        for suffix in suffixes[family.type]
    }
    for rule in rules():
        if "record" in rule:
            labels[rule["record"]] = set().union(*labels.values())
    return labels


@each_board
def test_every_expression_asks_for_metrics_and_labels_that_there_are(name):
    there = known()
    every = set().union(*there.values())
    made = dashboards()[Path(name).stem]
    for asked in expressions(made):
        for metric, matchers in re.findall(r"(riverdelta[a-z0-9_:]+)\{([^}]*)\}", asked.expression):
            assert metric in there, asked
            assert set(re.findall(r"(\w+)[!=]~?\"", matchers)) <= there[metric], asked
    for panel in asking(name):
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= every, panel["title"]


@needs_promtool
def test_promtool_parses_every_expression(tmp_path):
    asked = sorted({each.expression for made in dashboards().values() for each in expressions(made)})
    rules = [{"record": f"asked:{number}", "expr": expression} for number, expression in enumerate(asked)]
    path = tmp_path / "asked.yml"
    path.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_variable_that_nobody_fills_in_is_refused():
    assert filled("x[${__range}] y[$__interval]", __interval="5s") == "x[1h] y[5s]"
    with pytest.raises(KeyError, match="unheard_of"):
        filled("x[$unheard_of]")


def test_a_board_numbers_its_panels_in_the_order_of_reading():
    def line(title):
        return lines(title, "A line.", "s", Ask("x", "x"))

    made = board("Two", "Two lines.", {"": [(4, [(24, line("a"))])], "row": [(8, [(12, line("b")), (12, line("c"))])]})
    at = [(p.id_val, p.title, p.grid_pos.x, p.grid_pos.y, p.grid_pos.w, p.grid_pos.h) for p in made.panels]
    assert at == [(1, "a", 0, 0, 24, 4), (2, "row", 0, 4, 24, 1), (3, "b", 0, 5, 12, 8), (4, "c", 12, 5, 12, 8)]


#: By alert: the panel that draws the same limit, and the limit.
LIMITS = {
    "RiverdeltaFreshnessSlow": ("overview", "How fresh is it?", 5),
    "RiverdeltaBacklogGrowing": ("overview", "Backlog", 1000),
    "RiverdeltaDiskNearlyFull": ("serving", "Free space of the journal's disk", 0.1),
    "RiverdeltaFeedbackRefused": ("serving", "Feedback items refused permanently", 0.01),
    "RiverdeltaErrors": ("serving", "Requests that fail or are refused", 0.01),
    "RiverdeltaSlow": ("serving", "Time of a scoring request", 0.25),
    "RiverdeltaCalibrationOff": ("learning", "Calibration of the last rows", 1.2),
}


@pytest.mark.parametrize("alert", LIMITS)
def test_a_panel_draws_the_limit_of_its_alert(alert):
    name, title, limit = LIMITS[alert]
    (panel,) = [panel for panel in panels(f"{name}.json") if panel["title"] == title]
    assert limit in [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    (rule,) = [rule for rule in rules() if rule.get("alert") == alert]
    assert re.search(rf"[<>] {re.escape(str(limit))}\b", rule["expr"])
    drawn = {metric for target in panel["targets"] for metric in re.findall(r"riverdelta[a-z0-9_:]+", target["expr"])}
    assert any(metric in rule["expr"] for metric in drawn)
