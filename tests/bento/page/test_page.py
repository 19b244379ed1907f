"""The status page: whole without script, without anything from outside, and whatever names it is given."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from riverdelta import Schema
from riverdelta.bento.page import chart
from riverdelta.bento.page.door import as_bearer, leads, refusal
from riverdelta.bento.page.page import Page
from riverdelta.bento.page.render import HEADERS, page
from riverdelta.bento.page.view import view
from riverdelta.core.errors import Forbidden, Unauthenticated
from riverdelta.evaluation.drift import Drift
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential

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


def drawn(status, releases=(), back=None):
    return page(view(status, list(releases), back, [(0.5, None)], "service:Ranker", 1_000.0) | {"address": "http://x"})


def test_a_page_of_a_service_that_has_seen_nothing_says_so(runtime):
    html = Page(runtime, "service:Ranker").draw()
    assert "No feedback has been judged yet" in html
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
    for text in ("The rollback to release 3 was refused", "The promotion of release 3 was refused", "A release was refused"):
        assert text in html
    for lie in ("Rolled back to release 3", "became the champion", "Release 3 was made"):
        assert lie not in html


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
        (given, "1,024 rows of the base's training data"),
        (Drift(schema, 1_024), "1,024 examples of the stream"),
    ):
        drift.update(*stream(20_000, 0.0))
        assert f"Against {against}: no alarm. Alarms so far: 0." in drawn({"learning": {"drift": drift.report()}})
        drift.update(*stream(3_000, 3.0))
        html = drawn({"learning": {"drift": drift.report() | {"adapting_examples": 9_000}}})
        assert "Alarms so far: 1. The next 9,000 examples count more." in html


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


def test_a_chart_has_a_line_for_each_scorer_and_says_in_words_what_it_shows():
    history = {"examples": [64, 128, 192], "base": [0.7, 0.7, 0.6], "served": [0.7, 0.5, None]}
    made = chart.losses(history, "served")
    assert made.svg.count("<polyline") == 2
    assert "over 128 examples" in made.svg
    assert chart.losses({"examples": [64], "base": [0.7], "served": [0.7]}, "served") is None
    assert chart.losses({"examples": ["x", None], "base": 3 * [0.1], "served": [HOSTILE]}, "served") is None


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
    prequential, gate = Prequential(), Gate()

    def page(base, served, label):
        base, served, label = np.float32([base, served, label])
        prequential.update(base, served, label)
        gate.update(base, base, served, label, None, np.zeros(len(base), np.int64))
        return drawn({"learning": {"prequential": prequential.report(), "gate": gate.report()}})

    before = page([0, 1], [0, 1], [0, 1])
    assert "Rows whose" not in before
    assert "Rows the gate" not in before
    html = page([3e38, np.nan, 0], [60, 0, 0], [0, 1, 1])
    assert "the gate does not judge, as their base logit is beyond ±56 or not finite: 2." in html
    for scorer in ("base", "served"):
        assert f"Rows whose {scorer} loss is above 56 nats, and counts as 56: 1." in html
    assert "Rows left out because their score is not finite: 1." in html
