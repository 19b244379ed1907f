"""The wheel, its entry points, and the Bento: what a user installs is whole and serves."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

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
    assert not [name for name in names if "test" in name or name.endswith((".pyc", ".onnx"))]


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
    for _ in range(400):
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
