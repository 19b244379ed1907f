"""The status page: whole without script, without anything from outside, and whatever names it is given."""

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from riverdelta import Schema
from riverdelta.bento.page import chart
from riverdelta.bento.page.door import as_bearer, leads, refusal
from riverdelta.bento.page.page import Page
from riverdelta.bento.page.render import HEADERS, draw
from riverdelta.core.errors import Forbidden, Unauthenticated
from riverdelta.core.losses import LOG_LOSS, Multiclass, Ranking, Regression
from riverdelta.evaluation.drift import Drift
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.history import History
from riverdelta.evaluation.worth import Worth
from riverdelta.serving.health import health

HOSTILE = '"><script>alert(1)</script>'


class Parts(HTMLParser):
    """The tags of a page with their attributes, and the text of each script and style."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.inline, self._inside = [], {"script": [], "style": []}, None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag if tag in self.inline else None
        if self._inside:
            self.inline[tag].append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.inline[self._inside][-1] += data


def drawn(status, releases=(), back=0, loss=LOG_LOSS):
    given = {"releases": list(releases), "back": back, "fresh": [0.5, None], "target": "service:Ranker"}
    return draw(status | {"health": health(status, loss)._asdict()}, 1_000.0, loss, **given)


def text_of(html):
    """The words of a page, with single spaces between them."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_page_of_a_service_that_has_seen_nothing_says_so(runtime):
    runtime.plane._began = time.monotonic()
    html = Page(runtime, "service:Ranker").draw()
    assert "Starting: waiting for the learner&#39;s first report." in html
    assert "No label yet for a row scored by these tables." in html
    assert "riverdelta rollback" in html


def test_names_of_any_kind_are_text_and_nothing_else():
    learning = {
        "drift": {
            "watching": True, "alarmed": True, "columns": {HOSTILE: {"psi": 0.3, "js": 0.2}},
            "quantities": {HOSTILE: {"evidence": 0.5, "alarms": 1}},
        },
        "events": [{"position": 1, "time": 990.0, "action": HOSTILE, "details": {HOSTILE: HOSTILE}}],
    }  # fmt: skip
    html = drawn({"name": HOSTILE, "learning": learning, "provider": HOSTILE})
    assert "alert(1)" in html
    parts = Parts(html)
    assert len(parts.inline["script"]) == 1
    assert "alert(1)" not in parts.inline["script"][0]


def test_an_event_that_was_refused_says_so_and_never_that_it_happened():
    refused = {"release": 3, "position": 9, "promote": True, "refused": "there is no release 3; there are: 0"}
    events = [{"position": 10, "time": 990.0, "action": action, "details": refused} for action in ("rollback", "promote")]
    events.append({"position": 11, "time": 990.0, "action": "release", "details": {"refused": "they differ"}})
    html = drawn({"learning": {"events": events}})
    assert html.count("there is no release 3; there are: 0") == 2
    text = text_of(html)
    for event in ("Rollback to release 3", "Promotion of release 3", "Release"):
        assert f"{event} was refused" in text
    assert text.count("Rollback to release 3") == text.count("Promotion of release 3") == 1


def test_the_way_back_is_a_line_that_is_not_refused():
    learning = {"guard": "release", "champion": 4}
    assert "riverdelta rollback 2 --promote --service" in drawn({"learning": learning}, back=2)
    assert "--promote" not in drawn({"learning": learning}, back=4)
    assert "--promote" not in drawn({"learning": learning | {"guard": "live"}}, back=2)


def test_drift_says_what_it_is_measured_against_and_what_is_done_about_it():
    schema, rng = Schema.of({"x": "float32"}), np.random.default_rng(0)

    def stream(rows, shift):
        x = rng.normal(shift, 1.0, rows).astype(np.float32)
        return {"x": x}, x, x, (rng.random(rows) < 1 / (1 + np.exp(-x))).astype(np.float32)

    columns, base, _, label = stream(1_024, 0.0)
    given = Drift(schema, 1_024, given=Drift.reference_of(schema, columns, base, label))
    for drift, against in (
        (given, "1,024 rows of the reference profile"),
        (Drift(schema, 1_024), "1,024 examples of the stream"),
    ):
        drift.update(*stream(20_000, 0.0))
        assert f"Against {against}: no alarm. Alarms so far: 0." in text_of(drawn({"learning": {"drift": drift.report()}}))
        drift.update(*stream(3_000, 3.0))
        html = drawn({"learning": {"drift": drift.report() | {"adapting_examples": 9_000}}})
        assert "Alarms so far: 1. The next 9,000 examples are learned at a higher rate." in text_of(html)


def test_its_one_script_and_its_one_style_are_the_ones_that_its_policy_allows(runtime):
    parts = Parts(Page(runtime, "service:Ranker").draw())
    for kind in ("script", "style"):
        (text,) = parts.inline[kind]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    for tag, attributes in parts.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}, (tag, attributes)
        for name in ("src", "href"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or ""), (tag, attributes)


def test_a_chart_has_a_line_for_each_scorer_times_below_and_words_for_who_cannot_see_it():
    history = {"time": [60.0, 3_660.0, 7_260.0], "base": [0.7, 0.7, 0.6], "served": [0.7, 0.5, 0.4]}
    made = chart.losses(history, "served", LOG_LOSS)
    for scorer in ("base", "served"):
        assert made.count(f'<path class="{scorer}"') == 1
    assert re.findall(r'text class="across" x="([\d.]+)%"[^>]*>([^<]*)', made) == [
        ("24.17", "00:30"), ("49.17", "01:00"), ("74.17", "01:30"), ("99.17", "02:00"),
    ]  # fmt: skip
    assert "log loss in nats a row at 3 times: base from 0.7000 to 0.6000, served from 0.7000 to 0.4000" in made
    assert "since" not in made
    assert chart.losses({"time": [1.0], "base": [0.7], "served": [0.7]}, "served", LOG_LOSS) is None
    assert chart.losses({"time": [1.0, 2.0], "base": [0.7, 0.6], "served": [0.7, None]}, "served", LOG_LOSS) is None


def test_a_chart_stays_in_its_frame_when_the_clock_was_set_back():
    history = {"time": [1_000.0, 9_999.0, 400.0, 700.0], "base": [0.7, 0.6, 0.5, 0.4], "served": [0.6] * 4}
    made = chart.losses(history, "served", LOG_LOSS, now=1_000.0)
    places = [
        float(x)
        for path in re.findall(r'<path class="base[^"]*" d="([^"]*)"', made)
        for x in re.findall(r"[ML]([-\d.]+)", path)
    ]
    assert places == sorted(places)
    assert (min(places), max(places)) == (0.0, 100.0)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 59.0, 3_600.0, 86_400.0, 1e6, 1e9])
def test_a_chart_of_any_length_has_a_few_times(seconds):
    history = {"time": [1e9, 1e9 + seconds], "base": [0.7, 0.7], "served": [0.7, 0.7]}
    times = re.findall(r'text class="across"[^>]*>([^<]*)', chart.losses(history, "served", LOG_LOSS))
    assert 1 <= len(times) <= 5
    assert len(set(times)) == len(times)


def test_a_chart_ends_now_and_has_gaps_where_no_labels_came_and_a_burst_is_one_point():
    times = [100.0, 101.0, 102.0, 103.0, 1_900.0, 1_901.0, 1_902.0]
    history = {"time": times, "base": [0.5, 0.7, 0.5, 0.7, 0.3, 0.3, 0.3], "served": [0.2] * 7}
    made = chart.losses(history, "served", LOG_LOSS, now=3_700.0)
    (line,), (dots,) = (re.findall(rf'<path class="{kind}" d="([^"]*)"', made) for kind in ("base", "base dot"))
    assert (line, dots) == ("M0.04 0.02M50.03 74.99", "M0.04 0.02h.01M50.03 74.99h.01")
    steady = {name: values[:4] for name, values in history.items()}
    (base,) = re.findall(r'<path class="base" d="([^"]*)"', chart.losses(steady, "served", LOG_LOSS, now=104.0))
    assert base.count("M") == 1
    assert base.count("L") == 3


def test_every_rollback_promotion_and_rebase_has_a_mark_and_its_name_where_there_is_room():
    history = {"time": [0.0, 500.0], "base": [0.7, 0.6], "served": [0.7, 0.5]}
    given = [
        ("rollback", -1.0),
        ("rollback", 100.0),
        ("freeze", 200.0),
        ("promote", 560.0),
        ("rebase", 600.0),
        ("rollback", 999.0),
    ]
    made = chart.losses(history, "served", LOG_LOSS, [{"action": action, "time": time} for action, time in given], now=1_000.0)
    assert re.findall(r'<path class="(since[^"]*)" d="M([\d.]+)', made) == [
        ("since before", "99.90"), ("since before", "60.00"), ("since before", "56.00"), ("since", "10.00"),
    ]  # fmt: skip
    assert re.findall(r'<text class="since[^"]*"[^>]*>([^<]*)', made) == ["rollback", "rebase", "rollback"]


SINCE = {"action": "rollback", "release": 2, "position": 900, "time": 600.0}


def test_after_a_rollback_no_gain_of_other_tables_is_called_a_gain():
    rng = np.random.default_rng(0)
    base = rng.normal(size=4_000).astype(np.float32)
    label, ones = (base > 0).astype(np.float32), np.ones(4_000, np.float32)
    history, worth = History(), Worth()
    history.update(base, 3 * base, label, ones, np.linspace(0.0, 1_000.0, 4_000))
    worth.update(base, 3 * base, label, ones)
    status = {"sidecar": {"alive": True}, "release": 2, "swap": 7, "position": 901}
    learning = {"position": 901, "history": history.report(), "guard": "live"}
    before = text_of(drawn(status | {"learning": learning | {"worth": worth.report()}}))
    assert "Healthy: the corrections help." in before
    worth.begin(SINCE)
    worth.update(base[:200], base[:200] + np.float32(0.01), label[:200], ones[:200])
    html = drawn(status | {"learning": learning | {"worth": worth.report()}})
    after = text_of(html)
    assert "200 labels since the rollback, too few to say whether the corrections help." in after
    assert "the corrections help." not in after.replace("too few to say whether the corrections help.", "")
    assert "4,000" not in after
    assert (
        "Serving now: release 2 and everything learned since (swap 7), after the rollback of 1970-01-01 00:10:00 UTC." in after
    )
    assert '<path class="since before"' in html
    behind = text_of(drawn(status | {"position": 899, "learning": learning | {"worth": worth.report()}}))
    assert "(swap 7), still without the rollback" in behind


def test_after_a_rebase_the_page_says_so_instead_of_waiting_for_a_first_label():
    worth, since = Worth(), {"action": "rebase", "release": 1, "position": 900, "time": 600.0}
    worth.begin(since)
    event = {"position": 900, "time": 600.0, "action": "rebase", "details": {"release": 1, "examples": 920}}
    learning = {"position": 900, "worth": worth.report(), "events": [event]}
    text = text_of(drawn({"sidecar": {"alive": True}, "release": 1, "position": 900, "learning": learning}))
    assert "Learning: waiting for the first label since the rebase." in text
    assert "after the rebase of 1970-01-01 00:10:00 UTC" in text
    assert "Rebase to release 1 · examples: 920" in text.replace("&middot;", "·") or "Rebase to release 1 examples: 920" in text


@pytest.mark.parametrize(("labels", "shown"), [(1, False), (99, False), (100, True)])
def test_no_measure_is_shown_of_a_few_labels(labels, shown):
    worth = Worth()
    worth.update(*(np.full(labels, value, np.float32) for value in (0.0, 1.0, 1.0, 1.0)))
    html = drawn({"learning": {"position": 1, "worth": worth.report()}})
    assert ("0.3799" in html) == shown
    assert (f"Measures are shown from 100 labels on; so far {labels}." in text_of(html)) != shown


def test_two_gains_over_the_same_labels_agree_or_the_page_says_why_not():
    worth, ones = Worth(), np.ones(300, np.float32)
    base = np.zeros(300, np.float32)
    worth.update(base, base + 1, ones, ones)
    assert "without it" not in drawn({"learning": {"position": 1, "worth": worth.report()}})
    worth.update(base[:10] - 9, base[:10], ones[:10], ones[:10])
    text = text_of(drawn({"sidecar": {"alive": True}, "learning": {"position": 1, "worth": worth.report()}}))
    assert "counts as at most ±2.0 nats. With this limit the gain is 0.4321; without it," in text
    limited, full = re.search(r"With this limit the gain is ([\d.]+); without it, .* it is ([\d.]+)\.", text).groups()
    assert f"save {limited} nats" in text
    assert f"{full} 310" in text


def test_a_column_is_normal_only_once_it_was_compared():
    drift = Drift(Schema.of({"x": "float32"}), 1_024)
    text = text_of(drawn({"learning": {"drift": drift.report()}}))
    assert "The reference is still being collected." in text
    assert "The columns are compared once enough examples have followed the reference." in text
    assert "normal" not in text.partition("Drift by feature")[2]
    assert "Evidence" not in text
    x, ones = np.random.default_rng(0).normal(size=3_000).astype(np.float32), np.ones(3_000, np.float32)
    drift.update({"x": x}, x, x, ones)
    text = text_of(drawn({"learning": {"drift": drift.report()}})).partition("Drift by feature")[2]
    assert "normal" in text
    assert "%; score 0%." in re.sub(r"score \d+%", "score 0%", text)


def test_a_rollback_to_what_serves_says_what_it_does_and_is_not_offered_where_it_does_nothing():
    live = drawn({"release": 1, "learning": {"guard": "live", "champion": 1}}, back=1)
    assert "Roll back to release 1, undoing what was learned since" in text_of(live)
    other = drawn({"release": 2, "learning": {"guard": "live", "champion": 1}}, back=1)
    assert "Roll back to release 1 Type" in text_of(other)
    champion = drawn({"release": 1, "learning": {"guard": "release", "champion": 1}}, back=1)
    assert "riverdelta rollback" not in champion
    assert "riverdelta freeze --service" in champion


def test_events_are_named_in_words_and_what_is_not_known_is_a_dash():
    events = [{"position": 1, "time": 990.0, "action": action, "details": {}} for action in ("rotate-key", "drift", "freeze")]
    text = text_of(drawn({"learning": {"events": events}}))
    for name in ("Key rotation", "Drift alarm", "Freeze"):
        assert name in text
    assert "Bytes" not in text


def test_every_gain_has_its_number_of_labels_beside_it():
    worth = Worth()
    worth.update(*(np.float32(column) for column in (300 * [0.0], 300 * [1.0], 300 * [1.0], 300 * [1.0])))
    releases = [{"release": 1, "gain_on_champion": 0.25, "trial_examples": 77, "verdict": "promoted"}]
    gate = {"gain": 0.5, "weight": 0.5, "excess": 0.0, "bound": 9.0, "examples": 88}
    text = text_of(drawn({"learning": {"position": 1, "worth": worth.report(), "gate": gate}}, releases))
    assert "log loss 0.6931 0.3133 0.3799 300" in text
    assert "0.2500 77 promoted" in text
    assert "0.5000 nats over 88 labels" in text


def test_a_browsers_password_is_a_bearer_token_on_the_page_alone():
    given = "Basic " + base64.b64encode(b"anybody:score-token-of-the-shop").decode()
    assert as_bearer([given]) == ["Bearer score-token-of-the-shop"]
    assert leads("GET", "/")
    assert not leads("POST", "/")
    assert not leads("GET", "/status")


@pytest.mark.parametrize(("error", "asks"), [(Unauthenticated("no token"), True), (Forbidden("not this one"), False)])
def test_a_refusal_asks_for_a_token_only_where_one_is_missing(error, asks):
    headers, body = refusal(error, {})
    assert ("WWW-Authenticate" in headers) == asks
    assert str(error) in body.decode()
    assert headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


def test_rows_that_no_loss_can_show_are_named_where_there_are_any():
    worth, gate = Worth(), Gate()

    def page(base, served, label):
        base, served, label = np.float32([base, served, label])
        worth.update(base, served, label, np.ones_like(label))
        gate.update(base, base, served, label, None, np.zeros(len(base), np.int64))
        return text_of(drawn({"learning": {"worth": worth.report(), "gate": gate.report()}}))

    before = page([0, 1], [0, 1], [0, 1])
    assert "Rows whose" not in before
    assert "Rows that the gate" not in before
    text = page([3e38, np.nan, 0], [60, 0, 0], [0, 1, 1])
    assert "Rows that the gate skips because their base output is too large or not finite: 2." in text
    for scorer in ("base", "served"):
        assert f"Rows whose {scorer} loss is clipped to 56.0: 1." in text
    assert "Rows skipped because their score is not finite: 1." in text


def test_numbers_are_measured_in_their_own_unit_and_the_gain_in_typical_losses():
    loss = Regression()
    worth, y = Worth(loss=loss), np.random.default_rng(0).normal(3_000.0, 900.0, 400).astype(np.float32)
    worth.update(y[:, None] + 200, y[:, None] + 100, y, np.ones_like(y))
    html = text_of(drawn({"sidecar": {"alive": True}, "learning": {"position": 1, "worth": worth.report()}}, loss=loss))
    assert f"Task: regression, measured by {loss.name} in squared units of the label." in html
    assert "typical losses of the base a row" in html
    assert "AUC" not in html
    assert "nats" not in html


def test_a_ranking_counts_lists():
    loss, group, label = Ranking(), np.repeat(np.arange(200), 2), np.tile(np.float32([0, 1]), 200)
    worth = Worth(loss=loss)
    worth.update(np.zeros((400, 1)), np.tile([[0.0], [1.0]], (200, 1)), label, np.ones_like(label), group=group)
    text = text_of(drawn({"sidecar": {"alive": True}, "learning": {"position": 1, "worth": worth.report()}}, loss=loss))
    assert "nats of list log loss a list" in text
    assert "over 200 lists" in text
    assert "a row" not in text


def test_what_was_learned_about_positions_is_shown():
    def shown(examination):
        return text_of(drawn({"learning": {"position": 1, "lists": {"lists": 50, "examination": examination}}}, loss=Ranking()))

    text = shown({"positions": [1.0, 0.5, 0.25], "lists": 1200})
    assert "Examination by position position examined 0 1.0000 1 0.5000 2 0.2500 How likely" in text
    assert "clicks of 1,200 lists." in text
    many = shown({"positions": [1.0] * 20 + [0.75, 0.125], "lists": 9})
    assert "19 1.0000 How likely" in many
    assert "The last of 22 positions has 0.1250." in many
    assert "Examination" not in shown(None)


def test_intervals_are_shown_by_slice():
    found = {"labels": 400, "declared": 0.9, "coverage": 0.875, "below": 0.0625, "above": 0.0625, "width": 12.5}
    learning = {"position": 1, "intervals": {"centre": found}}
    html = drawn({"sidecar": {"alive": True}, "learning": learning}, loss=Regression())
    assert "centre 0.9000 0.8750 0.0625 0.0625 12.5000 400" in text_of(html)
    assert "Intervals" not in drawn({"sidecar": {"alive": True}, "learning": {"position": 1}}, loss=Regression())


def test_simple_predictions_stand_beside_base_and_served():
    measures = {"examples": 300, "loss": 0.7, "accuracy": 0.25, "macro_f1": 0.125}
    recent = {"base": measures, "served": measures | {"accuracy": 0.5}, "last_label": {"accuracy": 0.375}}
    learning = {"position": 1, "prequential": {"recent": recent}}
    text = text_of(drawn({"learning": learning}, loss=Multiclass(["cat", "dog"])))
    assert "Task: multiclass of 2 classes, measured by log loss in nats." in text
    assert "log loss accuracy macro F1 base 0.7000 0.2500 0.1250 served 0.7000 0.5000 0.1250 last label – 0.3750 –" in text
    assert "Over the last 300 labels" in text
    assert "Beside simple predictions" not in text_of(drawn({"learning": {"prequential": {"recent": {"base": measures}}}}))


def test_recall_is_listed_for_twenty_classes_and_names_are_text():
    recall = {"<b>": 0.25} | {f"class {k}": 0.5 for k in range(19)} | {"rare": 1.0, "rarer": 0.0, "unseen": None}
    learning = {"prequential": {"recent": {scorer: {"recall": recall} for scorer in ("base", "served")}}}
    html = drawn({"learning": learning}, loss=Multiclass(tuple(recall)))
    assert "&lt;b&gt;</th><td>0.2500</td><td>0.2500</td><td>0.0000</td>" in html
    assert "mean of 3 other classes 0.5000 0.5000 0.0000" in text_of(html)
    assert "rarer" not in html
