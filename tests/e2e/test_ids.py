"""A client's own ids against a real service of two workers: the page's examples, both of Triton's clients, and races."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

PAGE = (Path(__file__).parents[2] / "docs" / "ids.md").read_text()
BLOCKS = re.findall(r"```(py|bash)\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_of_the_page_run_as_they_stand(server, tmp_path):
    assert [kind for kind, _ in BLOCKS] == ["bash", "bash", "py", "py"]
    for kind, block in BLOCKS:
        if kind == "bash" and shutil.which("curl") is None:
            continue
        # The page's ids are also the examples of the OpenAPI document, which another test sends.
        script = block.replace("order-", "order-of-the-page-").replace("localhost:3000", f"127.0.0.1:{server.port}")
        script = script.replace("localhost:3001", f"127.0.0.1:{server.grpc_port}")
        command = [sys.executable, "-c", script] if kind == "py" else ["bash", "-ec", script]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stdout, done.stdout
        assert ("accepted" in done.stdout) == ("/feedback" in block and kind == "bash"), done.stdout


def body(name, mark=0.0, **more):
    return {"columns": {"user_id": [1, 2], "item_id": [3, 4], "hour": [mark, 1.0]}, "request_id": name, **more}


def test_two_workers_give_one_id_to_one_request_however_many_send_it_at_once(server):
    def ask(n):
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:  # a connection each, so both workers take some
            answer = client.post("/score", json=body(f"race-{n % 12}", mark=float(n // 12 % 2)))
        return n % 12, n // 12 % 2, answer.status_code, answer.json().get("impressions")

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(96)))
    assert {status for _, _, status, _ in found} == {200, 409}
    for name in range(12):
        good = [(mark, issued) for of, mark, status, issued in found if of == name and status == 200]
        assert len(set(good)) == 1
        assert len(good) == 4


def tensors(module, **columns):
    made = []
    for name, values in columns.items():
        data = np.array(values, object if isinstance(values[0], bytes) else None)
        data = data.astype(np.float32) if data.dtype == np.float64 else data
        kind = {"i": "INT64", "f": "FP32", "O": "BYTES"}[data.dtype.kind]
        made.append(module.InferInput(name, list(data.shape), kind))
        made[-1].set_data_from_numpy(data)
    return made


COLUMNS = {"user_id": [1, 2], "item_id": [3, 4], "hour": [0.5, 1.5]}


def test_what_one_transport_names_every_other_finds(server):
    clients = {
        triton_http: triton_http.InferenceServerClient(f"127.0.0.1:{server.port}"),
        triton_grpc: triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}"),
    }
    issued = set()
    for module, client in clients.items():
        asked = tensors(module, **COLUMNS, request_id=[b"both"], row_ids=[70, 71])
        result = client.infer("ranker", asked, request_id="correlation")
        response = result.get_response()
        assert (response["id"] if module is triton_http else response.id) == "correlation"
        issued.add(
            (result.as_numpy("impressions")[0], result.as_numpy("score").tobytes(), result.as_numpy("base_logit").tobytes())
        )
        with pytest.raises(InferenceServerException, match="was given to other rows before") as refused:
            client.infer("ranker", tensors(module, **COLUMNS, request_id=[b"both"], row_ids=[71, 70]))
        assert str(refused.value.status()) in ("409", "StatusCode.ALREADY_EXISTS")
        with pytest.raises(InferenceServerException, match="expected 1 to 128 bytes"):
            client.infer("ranker", tensors(module, **COLUMNS, request_id=[b"x" * 1_000_000]))
    assert len(issued) == 1
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = client.post("/score", json={"columns": COLUMNS, "request_id": "both", "row_ids": ["70", "71"]})
        assert answer.json()["impressions"].encode() == next(iter(issued))[0]
        assert client.post("/feedback", json=[{"request_id": "both", "row_id": 70, "label": 1}]).json()["outcomes"] == [
            "accepted"
        ]
    for module, client in clients.items():
        fed = tensors(module, request_id=[b"both", b"both"], row_id=[b"70", b"72"], label=[1.0, 1.0])
        assert client.infer("ranker-feedback", fed).as_numpy("outcome").tolist() == [b"duplicate", b"out_of_range"]
        client.close()
