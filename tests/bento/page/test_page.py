"""The status page: whole without script, without anything from outside, and whatever names it is given."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from riverdelta.bento.page import chart
from riverdelta.bento.page.door import as_bearer, leads, refusal
from riverdelta.bento.page.page import Page
from riverdelta.bento.page.render import HEADERS, page
from riverdelta.bento.page.view import view
from riverdelta.errors import Forbidden, Unauthenticated

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
