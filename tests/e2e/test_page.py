"""The status page in a real browser: readable in both colour schemes, on a phone, without script, and fresh with it."""

import itertools
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from riverdelta.bento.page.render import draw
from riverdelta.core.losses import LOG_LOSS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")

#: The least contrast of all texts, by WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of relative luminances.
CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { while (e) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c)) return c; e = e.parentElement; } return "rgb(255, 255, 255)"; };
  const texts = [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.closest("svg, script, style") &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return [texts.length, Math.min(...texts.map(e => { const a = light(getComputedStyle(e).color), b = light(behind(e));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }))];
})()"""


class Browser:
    """A headless Chromium, spoken to by its DevTools protocol through a pipe."""

    def __init__(self, folder):
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]
        # Chromium reads from file 3 and writes to file 4.
        script = f'exec "$@" 3<&{theirs} 4>&{answers}'
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(["bash", "-c", script, "bash", *command], pass_fds=(theirs, answers), **quiet)
        os.close(theirs)
        os.close(answers)
        self._numbers, self._rest, self.events = itertools.count(1), b"", []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    _session: dict = {}

    def __call__(self, method, **params):
        number = next(self._numbers)
        os.write(self._out, json.dumps({"id": number, "method": method, "params": params, **self._session}).encode() + b"\0")
        while (said := self._read()).get("id") != number:
            self.events.append(said)
        assert "error" not in said, said
        return said["result"]

    def _read(self):
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 16)
            assert part, "the browser is gone"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def open(self, url):
        """Go to an address and wait until it is loaded."""
        self.events.clear()
        self("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._read())

    def ask(self, expression):
        """Return the value of an expression in the page."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self):
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture
def page(browser, server, http):
    rng = np.random.default_rng(0)
    for _ in range(12):
        columns = {"user_id": rng.integers(0, 9, 32), "item_id": rng.integers(0, 9, 32), "hour": np.zeros(32, np.float32)}
        _, impressions, _ = http.score(columns)
        http.feedback([f"{impressions}.{i}" for i in range(32)], (rng.random(32) < 0.5).astype(np.float32))
    browser("Emulation.setScriptExecutionDisabled", value=False)
    return f"http://127.0.0.1:{server.port}/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_it_is_readable_in_both_schemes_at_any_width(browser, page, scheme, width):
    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    browser.open(page)
    texts, contrast = browser.ask(CONTRAST)
    assert texts > 40
    assert contrast >= 4.5
    assert browser.ask("document.documentElement.scrollWidth") <= width
    red, *_ = map(float, browser.ask("getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g)"))
    assert (red > 200) == (scheme == "light")


def test_nothing_but_the_service_is_asked_and_nothing_is_complained_about(browser, page):
    browser.open(page)
    browser.ask("new Promise(done => setTimeout(done, 300))")
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith((page, "data:")) for url in asked)
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [e for e in browser.events if e.get("method") in complaints] == []


def test_without_script_everything_is_there(browser, page):
    browser("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    text = browser.ask("document.body.innerText")
    for said in ("Does it help?", "What can it cost?", "How fresh is it?", "Drift by feature", "Last events", "Roll back to"):
        assert said in text


def test_with_script_it_refreshes_itself_and_keeps_what_is_open(browser, page):
    browser.open(page)
    browser.ask("document.querySelector('details').open = true; document.querySelector('main').dataset.old = 'yes'")
    fresh = "document.querySelector('main').dataset.old === undefined"
    waited = f"new Promise(done => {{ const t = setInterval(() => {fresh} && (clearInterval(t), done(true)), 50) }})"
    assert browser.ask(waited)
    assert browser.ask("document.querySelector('details').open")


def test_nothing_of_a_full_page_is_cut_off_on_a_phone(browser, tmp_path):
    verdicts = ["on trial", "promoted by hand", "undecided", "rejected", "promoted"]
    rows = {"time": 0.0, "loss_served": 0.6, "gain_on_champion": -0.0123, "trial_examples": 123_456}
    releases = [
        {"release": i, "champion": i == 0, "serving": i == 1, "verdict": each, **rows} for i, each in enumerate(verdicts)
    ]
    history = {"time": [0.0, 1.0, 500.0], "base": [0.7, 0.6, 0.5], "served": [0.6, 0.5, 0.4]}
    events = [
        {"position": i, "time": time, "action": "rollback", "details": {"release": 1}} for i, time in enumerate((9.0, 999.0))
    ]
    status = {"name": "ranker", "learning": {"history": history, "events": events}, "health": {"level": "good"}}
    given = {"releases": releases, "back": 1, "fresh": [0.1, 2.0], "target": "service:Ranker"}
    (tmp_path / "page.html").write_text(draw(status, 1_000.0, LOG_LOSS, **given), "utf-8")
    browser("Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=1, mobile=True)
    browser.open((tmp_path / "page.html").as_uri())
    assert browser.ask("[...document.querySelectorAll('section')].filter(s => s.scrollWidth > s.clientWidth).length") == 0
    inside = """[...document.querySelectorAll('text')].filter(t => t.checkVisibility()).every(t => {
      const a = t.getBoundingClientRect(), b = t.closest('section').getBoundingClientRect();
      return b.left <= a.left && a.right <= b.right; })"""
    assert browser.ask(inside)
