"""The page "Bring your model", followed as it stands: a default export is served and learns by its client's own ids."""

import asyncio
import json
import re
import runpy
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from riverdelta.bento import rest
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.http import application
from riverdelta.bento.runtime import Runtime
from riverdelta.core.settings import Settings
from riverdelta.graph.inspection import declaration
from riverdelta.learning.service import load
from riverdelta.serving.dataplane import DataPlane

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
TRAIN, SERVICE = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
SENT = re.findall(r"^\$ curl -s localhost:3000(/\w+) -d '(.*?)'", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore::UserWarning:(sklearn|lightgbm).*")
def test_the_page_leads_from_training_to_feedback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAIN)
    runpy.run_path("train.py")
    Path("service.py").write_text(SERVICE)
    assert 'output="probabilities[1]"' in declaration("orders.onnx")
    definition = load("service.py:Orders")
    runtime = Runtime(definition)
    runtime.start(DataPlane(definition, Settings.load(home=tmp_path / "home")))
    app = Guard(application(rest.routes(runtime)), Policy(runtime).open(runtime.plane.settings))

    async def send():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return [(await client.post(path, json=json.loads(body))).json() for path, body in SENT]

    try:
        scored, fed = asyncio.run(send())
    finally:
        runtime.stop()
    assert fed["outcomes"] == ["accepted"]
    columns = json.loads(SENT[0][1])["columns"]
    rows = np.array([columns[name] for name in definition.names["input"]], np.float32).T
    (maps,) = onnxruntime.InferenceSession("orders.onnx").run(["probabilities"], {"input": rows})
    assert scored["scores"] == pytest.approx([each[1] for each in maps], abs=1e-6)
