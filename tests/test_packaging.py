"""The wheel, its entry points, and the Bento: what a user installs is whole and serves."""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from riverdelta.bento import internals
from riverdelta.lab.client import Http
from riverdelta.lab.server import free_port

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([BIN / "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"riverdelta", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    assert {"riverdelta/py.typed", "riverdelta/lab/service.template"} <= set(names)
    parts = [part for name in names for part in name.split("/")]
    assert not [part for part in parts if part == "tests" or part.startswith("test_") or part.endswith((".pyc", ".onnx"))]


def brought(name, extras, seen):
    """Collect into `seen` the version of every distribution that a requirement brings on this machine."""
    here = distribution(name)
    for requirement in map(Requirement, here.requires or ()):
        wanted = [extra for extra in ("", *extras) if not requirement.marker or requirement.marker.evaluate({"extra": extra})]
        key = (canonicalize_name(requirement.name), *sorted(requirement.extras))
        if wanted and key not in seen:
            seen[key] = distribution(requirement.name).version.partition("+")[0]
            brought(requirement.name, requirement.extras, seen)
    return seen


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the pins are those of Linux x86-64")
def test_the_constraints_pin_all_that_the_installation_brings_and_no_more():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    assert pins == {key[0]: version for key, version in brought("riverdelta", ("train", "dev"), {}).items()}
    assert f"torch=={pins['torch']}" in (ROOT / "Makefile").read_text()


def test_the_bound_on_bentoml_is_the_one_that_its_checks_name_and_holds_the_version_that_is_pinned():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (asked,) = [found for found in map(Requirement, declared) if found.name == "bentoml"]
    assert asked.specifier == SpecifierSet(internals.SUPPORTED)
    assert any(each.operator == "<" for each in asked.specifier)
    pin = re.search("^bentoml==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert pin in asked.specifier


def test_one_onnx_runtime_is_asked_for_on_every_platform():
    asked = [Requirement(text) for text in distribution("riverdelta").requires if text.startswith("onnxruntime")]
    for system, machine, expected in (
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("win32", "AMD64", "onnxruntime"),
    ):
        where = {"sys_platform": system, "platform_machine": machine}
        assert [each.name for each in asked if each.marker.evaluate(where)] == [expected]


def test_the_bentofile_names_the_wheel_that_make_builds(wheel):
    declared = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["wheels"]
    assert [Path(entry).name for entry in declared] == [wheel.name]


def test_the_command_line_hangs_under_bentoml_too():
    (found,) = [e for e in entry_points(group="bentoml.commands") if e.name == "riverdelta"]
    assert found.load().name == "riverdelta"
    shown = subprocess.run([BIN / "bentoml", "riverdelta", "--help"], capture_output=True, text=True, check=True).stdout
    assert "replay" in shown
    assert subprocess.run([BIN / "riverdelta", "--version"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    """A Python with this environment's dependencies and riverdelta from the wheel: nothing of the source tree."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # A path file inside the added folder (an editable install) is not followed from here.
    (site / "dependencies.pth").write_text(f"{Path(yaml.__file__).parents[1]}\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return folder / "venv" / "bin" / "python"


def test_the_bento_is_built_offline_and_serves_from_a_clean_environment(wheel, clean_python, tmp_path):
    shutil.copytree(ROOT / "service", tmp_path / "tree" / "service")
    for part in ("bentofile.yaml", "README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / part, tmp_path / "tree")
    (tmp_path / "tree" / "dist").mkdir()
    shutil.copy(wheel, tmp_path / "tree" / "dist")
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "RIVERDELTA_HOME": str(tmp_path / "state"),
        "RIVERDELTA_GRPC_PORT": "0",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    built = subprocess.run(
        [BIN / "bentoml", "build", "-o", "tag"], cwd=tmp_path / "tree", env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip().splitlines()[-1].removeprefix("__tag__:")
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [clean_python, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            status = answer(server, port, tmp_path / "log")
        finally:
            server.terminate()
            server.wait(60)
    assert status["name"] == "ranker"
    assert str(ROOT) not in (tmp_path / "log").read_text()


def answer(server, port, log):
    for _ in range(3000):
        client = Http(port)
        try:
            status = client.status()
            if status["sidecar"]["alive"]:
                client.score({"user_id": [1], "item_id": [1], "hour": [1.0]})
                return status
        except OSError:
            assert server.poll() is None, log.read_text()
        finally:
            client.close()
        time.sleep(0.1)
    raise AssertionError(log.read_text())
