"""A changed option on a real service: refused with the line to type, which carries over what was learned."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from riverdelta.core.errors import Unavailable
from riverdelta.lab.client import Http
from riverdelta.lab.server import serving

ROOT = Path(__file__).parents[2]
COLUMNS = {"user_id": np.full(4, 5), "item_id": np.arange(4), "hour": np.zeros(4, np.float32)}


def until(server, condition):
    deadline = time.monotonic() + 30
    while not condition(server.status()["learning"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_changed_option_is_refused_then_rebased_then_served(tmp_path):
    folder, home = tmp_path / "code", tmp_path / "state"
    shutil.copytree(ROOT / "service", folder)
    with serving(folder, "service:Ranker", home) as server, closing(Http(server.port)) as client:
        for _ in range(20):
            _, impressions, _ = client.score(COLUMNS)
            client.feedback([f"{impressions}.{i}" for i in range(3)], np.ones(3, np.float32))
        until(server, lambda learning: learning["examples"] == 60)
    service = folder / "service.py"
    service.write_text(service.read_text().replace("forget=0.98", "forget=0.98, slots=512"))
    with pytest.raises(Unavailable) as refused, serving(folder, "service:Ranker", home):
        pass
    said = str(refused.value)
    assert "slots is 512 here" in said
    (line,) = re.findall(r"to carry over what it learned.*?: (mv .*)", said)
    environment = os.environ | {"RIVERDELTA_HOME": str(home), "PATH": f"{folder}:{os.environ['PATH']}"}
    (folder / "riverdelta").write_text(f'#!/bin/sh\nexec {sys.executable} -m riverdelta "$@"\n')
    (folder / "riverdelta").chmod(0o755)
    done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "learned: 60 of 60 rows" in done.stdout
    with serving(folder, "service:Ranker", home) as server, closing(Http(server.port)) as client:
        assert server.status()["learning"]["examples"] == 60
        outcomes, _ = client.feedback([f"{impressions}.3"], np.ones(1, np.float32))
        assert outcomes == ["accepted"]
        until(server, lambda learning: learning["examples"] == 61)
        assert server.status()["release"] == 1
        scores, _, _ = client.score(COLUMNS)
        assert (scores > 0.5).all()
