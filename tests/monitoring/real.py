"""Prometheus, the real one, over the checked-in rules, in which a minute passes within two seconds."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from riverdelta.lab.server import free_port

FOLDER = Path(__file__).parents[2] / "monitoring" / "prometheus"
PROMETHEUS = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus on PATH (Debian: apt-get install prometheus)")
#: How many times faster than written the rules are: what they wait for is that much shorter.
HASTE = 30
_MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
_DURATION = re.compile(r"(\[|for: )(\d+)([smh])\b")


def hastened(text):
    """The text of a rules file with every range and every `for` shorter by `HASTE`.

    >>> hastened('expr: rate(x:rate5m[5m]) > 0, for: 30s')
    'expr: rate(x:rate5m[10000ms]) > 0, for: 1000ms'
    """
    return _DURATION.sub(lambda d: f"{d[1]}{int(d[2]) * _MILLISECONDS[d[3]] // HASTE}ms", text)


class Prometheus:
    """One that scrapes `targets` (addresses of this machine) every two seconds, from its start to `close`."""

    def __init__(self, folder, targets):
        self._port = free_port()
        (folder / "rules").mkdir(parents=True)
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        for path in FOLDER.glob(config["rule_files"][0]):
            (folder / "rules" / path.name).write_text(hastened(path.read_text()))
        config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": targets}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{self._port}"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while not self._ready():
            assert self._process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, "prometheus does not become ready"
            time.sleep(0.1)

    def close(self):
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def ask(self, expression):
        """The samples of an expression now, as (labels, value); raises `ValueError` with what Prometheus says of a bad one."""
        return [(sample["metric"], float(sample["value"][1])) for sample in self._get("query", query=expression)["result"]]

    def names(self):
        """The name of every series that there is."""
        return set(self._get("label/__name__/values"))

    def alerts(self):
        """(alert, model, "firing" or "pending") of all that is not inactive."""
        found = self._get("alerts")["alerts"]
        return {(a["labels"]["alertname"], a["labels"].get("model", ""), a["state"]) for a in found}

    def rules(self):
        """Every rule as Prometheus has it, with its health and its last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets(self):
        """The health of every target."""
        return {t["labels"]["instance"]: t["health"] for t in self._get("targets")["activeTargets"]}

    def _get(self, what, **given):
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(given)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{given}: {error.read().decode()}") from None

    def _ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False
