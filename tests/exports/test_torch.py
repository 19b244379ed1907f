"""What PyTorch writes, by both of its exporters, and the line that exports a model again with a batch axis."""

import re

import numpy as np
import onnx
import pytest
import torch
from harness import Export, check

from riverdelta.core.errors import ModelError
from riverdelta.graph.signature import Signature

pytestmark = pytest.mark.filterwarnings("ignore")
BATCH = {0: "batch"}


class Net(torch.nn.Module):
    """A scorer of an item and numbers with `outputs` outputs."""

    def __init__(self, outputs=1, squeeze=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.squeeze = torch.nn.Embedding(50, 8), squeeze
        self.hidden, self.norm, self.out = torch.nn.Linear(12, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, outputs)

    def forward(self, item, x):
        h = torch.cat([self.embedding(item), x], 1)
        y = self.out(self.norm(torch.nn.functional.gelu(self.hidden(h))))
        return y.squeeze(1) if self.squeeze else y


class Branches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.one(x), lambda x: self.other(x), (x,))


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.out = torch.nn.GRU(2, 8, batch_first=True), torch.nn.Linear(8, 1)

    def forward(self, x):
        return self.out(self.gru(x.reshape(-1, 2, 2))[1][0])


def sample(rows=2):
    return torch.arange(rows), torch.randn(rows, 4)


def raw_of(model, *inputs):
    with torch.no_grad():
        return model(*map(torch.as_tensor, inputs)).numpy()


def sigmoid(raw):
    return 1 / (1 + np.exp(-np.asarray(raw, np.float64)))


@pytest.fixture
def columns(data):
    return {"item": np.arange(len(data.rows)) % 50, "x": data.rows}


@pytest.mark.parametrize("squeeze", [False, True], ids=["[N, 1]", "[N]"])
@pytest.mark.parametrize("external", [False, True], ids=["one file", "external data"])
def test_the_exporter_of_today(columns, tmp_path, squeeze, external):
    model, path = Net(squeeze=squeeze).eval(), tmp_path / "model.onnx"
    torch.onnx.export(
        model, sample(), path, dynamic_shapes=(BATCH, BATCH), output_names=["y"], external_data=external, verbose=False
    )
    raw = raw_of(model, *columns.values())
    line = {"output": "y", "link": "identity"}
    check(Export(path, columns, sigmoid(raw), raw=raw, exact="y", line=line), tmp_path)


@pytest.mark.parametrize("opset", [9, 11, 17])
def test_the_exporter_of_yesterday(columns, tmp_path, opset):
    model, path = Net().eval(), tmp_path / "model.onnx"
    names = {"input_names": ["item", "x"], "output_names": ["y"], "dynamic_axes": {"item": BATCH, "x": BATCH, "y": BATCH}}
    torch.onnx.export(model, sample(), path, dynamo=False, opset_version=opset, **names)
    raw = raw_of(model, *columns.values())
    check(Export(path, columns, sigmoid(raw), raw=raw, exact="y", line={"logit": "y"}), tmp_path)


def test_modules_as_local_functions(columns, tmp_path):
    model, path = Net().eval(), tmp_path / "model.onnx"
    names = {"input_names": ["item", "x"], "output_names": ["y"], "dynamic_axes": {"item": BATCH, "x": BATCH, "y": BATCH}}
    torch.onnx.export(model, sample(), path, dynamo=False, opset_version=17, export_modules_as_functions=True, **names)
    assert onnx.load(path).functions
    raw = raw_of(model, *columns.values())
    (output,) = [o.name for o in onnx.load(path).graph.output]
    check(Export(path, columns, sigmoid(raw), raw=raw, exact=output, line={"logit": output}), tmp_path)


@pytest.mark.parametrize("head", [Branches, Recurrent])
def test_control_flow(data, tmp_path, head):
    model, path = head().eval(), tmp_path / "model.onnx"
    torch.onnx.export(model, sample()[1:], path, dynamic_shapes=(BATCH,), output_names=["y"], verbose=False)
    raw = raw_of(model, data.rows)
    columns, line = {"x": data.rows}, {"logit": "y", "link": "identity"}
    check(Export(path, columns, sigmoid(raw), raw=raw, exact="y", line=line), tmp_path)


def test_two_logits_are_corrected_as_their_difference(columns, tmp_path):
    model, path = Net(outputs=2).eval(), tmp_path / "model.onnx"
    torch.onnx.export(model, sample(), path, dynamic_shapes=(BATCH, BATCH), output_names=["logits"], verbose=False)
    both = raw_of(model, *columns.values())
    raw = both[:, 1] - both[:, 0]
    check(Export(path, columns, sigmoid(raw), raw=raw, line={"output": "logits[1]", "link": "identity"}), tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_half_and_double_precision(data, tmp_path, dtype):
    torch.manual_seed(0)
    model, path = torch.nn.Linear(4, 1).eval().to(dtype), tmp_path / "model.onnx"
    x = data.rows.astype(str(dtype).removeprefix("torch."))
    torch.onnx.export(model, (torch.as_tensor(x[:2]),), path, dynamic_shapes=(BATCH,), output_names=["y"], verbose=False)
    session = raw_of(model, x).astype(np.float64)
    line = {"logit": "y", "link": "identity"}
    made = Export(path, {onnx.load(path).graph.input[0].name: x}, sigmoid(session), exact="y", line=line)
    made.probability = sigmoid(session) if dtype != torch.float16 else _of_file(made)
    check(made, tmp_path)


def _of_file(made):
    """The file's own answer: half precision on this machine may be rounded by another order of sums than torch's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    return sigmoid(session.run(["y"], made.columns)[0])


@pytest.mark.parametrize("dynamo", [True, False], ids=["today", "yesterday"])
def test_the_line_for_a_fixed_batch_exports_a_base(columns, tmp_path, dynamo, monkeypatch):
    model, args, path = Net().eval(), sample(1), tmp_path / "model.onnx"
    names = {"input_names": ["item", "x"], "output_names": ["y"]}
    torch.onnx.export(model, args, path, dynamo=dynamo, verbose=False, **names)
    with pytest.raises(ModelError, match="without a dynamic batch axis; export it again with") as refused:
        Signature.read(path)
    said = str(refused.value)
    monkeypatch.chdir(tmp_path)
    if dynamo:
        exec(re.search(r"(torch\.onnx\.export\(.*?\)\)?\)), or", said)[1], {"torch": torch, "model": model, "args": args})
    else:
        axes = eval(re.search(r"dynamic_axes=(\{.*?\}\})", said)[1])
        torch.onnx.export(model, args, path, dynamo=False, dynamic_axes=axes, **names)
    output = onnx.load(path).graph.output[0].name
    assert list(Signature.read(path, logit=output, link="identity").inputs) == ["item", "x"]
