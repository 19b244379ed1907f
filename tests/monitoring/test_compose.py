"""The composition for a laptop: every path, setting, port and token of it exists and fits; no engine runs here."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from riverdelta.bento.access import Access, Role
from riverdelta.core.settings import Settings

MONITORING = Path(__file__).parents[2] / "monitoring"
ROOT = MONITORING.parent
COMPOSE = yaml.safe_load((MONITORING / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
PROMTOOL = shutil.which("promtool")
TOKEN = "0123456789abcdef" * 4


def filled(text):
    """A text with ${TOKEN} in place, as the engine reads it."""
    return re.sub(r"\$\{TOKEN(:\?[^}]*)?\}", TOKEN, text)


def read(path):
    return yaml.safe_load((MONITORING / path).read_text())


def mounts(service):
    """(here, there) of each folder that a service gets to see."""
    return [tuple(volume.split(":")[:2]) for volume in SERVICES[service]["volumes"]]


def test_what_is_mounted_lies_there_and_is_not_written_to():
    for service in SERVICES:
        for here, there in mounts(service):
            assert there.startswith("/")
            if here.startswith("."):
                assert (MONITORING / here).is_dir(), here
                assert f"{here}:{there}:ro" in SERVICES[service]["volumes"]
            else:
                assert here in COMPOSE["volumes"]


def test_only_this_machine_reaches_it_and_no_port_is_taken_twice():
    published = [port for service in SERVICES.values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_every_image_is_pinned_and_every_service_is_looked_after():
    for name, service in SERVICES.items():
        if "image" in service:
            assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", service["image"]), name
        assert service["healthcheck"]["test"][0] == "CMD"
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other]


def test_the_settings_are_those_of_the_service_and_give_every_role_a_token(monkeypatch):
    given = {name: filled(value) for name, value in SERVICES["ranker"]["environment"].items()}
    assert {name.removeprefix("RIVERDELTA_").lower() for name in given} <= Settings.model_fields.keys()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert isinstance(settings.score_tokens, SecretStr)
    access = Access.of(settings)
    assert not access.missing
    assert str(settings.home) in [there for _, there in mounts("ranker")]
    # What Prometheus shows may read metrics and score, and neither teach nor roll back.
    shown = filled(COMPOSE["configs"]["metrics_token"]["content"])
    assert access.caller([f"Bearer {shown}"], "10.0.0.7").roles == {Role.SCORE}


def test_no_token_is_written_down():
    assert "${TOKEN:?" in (MONITORING / "compose.yaml").read_text()
    for text in (*SERVICES["ranker"]["environment"].values(), COMPOSE["configs"]["metrics_token"]["content"]):
        if "-$" in text:
            assert filled(text) != text


def test_prometheus_reads_its_own_rules_and_the_service_where_it_listens():
    here, alone = read("prometheus/compose.yml"), read("prometheus/prometheus.yml")
    assert {**here, "scrape_configs": ()} == {**alone, "scrape_configs": ()}
    (job,) = here["scrape_configs"]
    assert job["job_name"] == alone["scrape_configs"][0]["job_name"]
    (config,) = SERVICES["prometheus"]["configs"]
    assert job["authorization"]["credentials_file"] == config["target"]
    assert job["static_configs"] == [{"targets": ["ranker:3000"]}]
    assert f"--config.file={mounts('prometheus')[0][1]}/compose.yml" in SERVICES["prometheus"]["command"]
    assert '"--port", "3000"' in (MONITORING / "ranker.Dockerfile").read_text()


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian: apt-get install prometheus)")
def test_promtool_accepts_the_configuration(tmp_path):
    shutil.copytree(MONITORING / "prometheus", tmp_path / "prometheus")
    (tmp_path / "token").write_text(TOKEN)
    config = tmp_path / "prometheus" / "compose.yml"
    config.write_text(config.read_text().replace("/metrics_token", str(tmp_path / "token")))
    done = subprocess.run([PROMTOOL, "check", "config", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_grafana_finds_its_source_and_its_dashboards():
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert source["jsonData"]["timeInterval"] == read("prometheus/compose.yml")["global"]["scrape_interval"]
    (provider,) = read("grafana/provisioning/dashboards/riverdelta.yml")["providers"]
    folders = {there: here for here, there in mounts("grafana")}
    assert list((MONITORING / folders[provider["options"]["path"]]).glob("*.json"))
    for kind in ("datasources", "dashboards"):
        assert list((MONITORING / folders[f"/etc/grafana/provisioning/{kind}"]).glob("*.yml"))
    first = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (MONITORING / folders[str(first.parent)] / first.name).is_file()


def test_grafana_is_of_the_version_that_the_dashboards_are_made_for():
    pinned = re.search(r"grafana-foundation-sdk==\d+!([\d.]+)", (ROOT / "constraints.txt").read_text())[1]
    assert SERVICES["grafana"]["image"].split(":")[1].startswith(pinned)


def test_the_image_is_made_of_files_that_there_are_and_that_are_let_through():
    build = SERVICES["ranker"]["build"]
    context = (MONITORING / build["context"]).resolve()
    recipe = context / build["dockerfile"]
    assert context == ROOT
    let = {line[1:] for line in Path(f"{recipe}.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", recipe.read_text(), re.MULTILINE) for name in line.split()}
    assert copied == let
    assert all((ROOT / name).exists() for name in copied)
    assert "USER ranker" in recipe.read_text()


def test_every_module_that_the_image_imports_is_there():
    imported = re.findall(r"import (riverdelta[\w.]*)", (MONITORING / "ranker.Dockerfile").read_text())
    assert imported
    for module in imported:
        assert find_spec(module), module
