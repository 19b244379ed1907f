"""Download: a release put together by a process of its own, which leaves nothing behind."""

import asyncio
import tempfile

import httpx
import onnx
import pytest

from riverdelta.bento import download
from riverdelta.bento.download import Download, packed
from riverdelta.core.errors import Unsupported
from riverdelta.core.settings import Settings
from riverdelta.graph.files import export
from riverdelta.storage.home import Home


@pytest.fixture
def merged(definition, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return Home(definition, Settings.load(home=tmp_path / "home")).prepare().path


async def sent(response):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(response), base_url="http://127.0.0.1") as client:
        return await client.get("/")


def left(tmp_path):
    return [path.name for path in (tmp_path / "temporary").iterdir()]


def test_the_file_is_the_command_s_own_and_is_closed_when_it_is_sent(merged, tmp_path):
    file = asyncio.run(packed(merged))
    assert left(tmp_path) == []
    answer = asyncio.run(sent(Download(file, "one.onnx")))
    assert file.closed
    assert answer.headers["Content-Disposition"] == 'attachment; filename="one.onnx"'
    body = answer.content
    assert answer.headers["Content-Length"] == str(len(body))
    assert body == export(merged, tmp_path / "one.onnx")[0].read_bytes()
    onnx.checker.check_model(onnx.load_from_string(body))


def test_what_cannot_be_one_file_is_refused_with_the_reason(merged, tmp_path):
    model = onnx.load(merged)
    tensor = model.graph.initializer.add(name="vast", data_type=onnx.TensorProto.FLOAT, dims=[2**29])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="vast.bin")
    tensor.external_data.add(key="length", value=str(2**31))
    model.graph.node.add(op_type="Identity", input=["vast"], output=["all of it"])
    model.graph.output.add(name="all of it")
    onnx.save(model, tmp_path / "vast.onnx")
    with pytest.raises(Unsupported, match="one ONNX file holds at most"):
        asyncio.run(packed(tmp_path / "vast.onnx"))
    assert left(tmp_path) == []


def test_a_process_that_fails_is_a_fault_that_says_what_it_said(tmp_path, merged):
    merged.write_bytes(b"damaged")
    with pytest.raises(RuntimeError, match="ended with code 1: "):
        asyncio.run(packed(merged))
    assert left(tmp_path) == []


def test_when_who_asked_has_gone_the_process_is_ended(merged, tmp_path, monkeypatch):
    started = []

    class Noted(download.Popen):
        def __init__(self, *args, **given):
            super().__init__(*args, **given)
            started.append(self)

    monkeypatch.setattr(download, "Popen", Noted)

    async def give_up():
        task = asyncio.create_task(packed(merged))
        while not started:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert started[0].wait(10) == -9
    assert left(tmp_path) == []
