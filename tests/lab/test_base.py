"""The base: trained on the past, exported whole, kept apart from what it has not seen."""

import numpy as np
import onnx
import onnxruntime
import pytest

from riverdelta.graph.signature import Signature
from riverdelta.lab.base import train_base
from riverdelta.lab.deepfm import DeepFMOptions
from riverdelta.lab.quality import auc
from riverdelta.lab.simulator import Simulation

SMALL = DeepFMOptions(dim=4, hidden=(16,), epochs=8, batch=256)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    stream = Simulation(rows=20_000, users=200, items=300, seed=1).generate().stream.select("user_id", "item_id")
    first, second = stream.halves()
    return train_base(first, tmp_path_factory.mktemp("base"), SMALL), first, second


def score(path, columns):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["logit"], columns)[0]


def test_it_ranks_better_than_chance_on_rows_after_its_training(made):
    report, _, second = made
    assert auc(score(report.path, dict(second.columns)), second.label) > 0.55


def test_its_weights_lie_in_a_file_beside_it(made):
    report, *_ = made
    model = onnx.load(report.path, load_external_data=False)
    assert any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    assert report.path.with_name("base.onnx.data").stat().st_size > 0


def test_its_batch_axis_is_dynamic_and_its_columns_are_ids(made):
    report, *_ = made
    signature = Signature.read(report.path)
    assert {n: str(c) for n, c in signature.inputs.items()} == {"user_id": "int64[N]", "item_id": "int64[N]"}
    assert (signature.output, signature.predicts) == ("logit", False)


def test_unknown_ids_share_the_trained_row_wherever_they_lie(made):
    report, *_ = made
    item = np.full(5, 7)
    users = np.array([10**6, -1, 2**62, -(2**63), 2**63 - 1])
    assert np.ptp(score(report.path, {"user_id": users, "item_id": item})) == 0.0


def test_the_same_seed_trains_the_same_model(made, tmp_path):
    report, first, second = made
    again = train_base(first, tmp_path, SMALL)
    rows = {name: column[:500] for name, column in second.columns.items()}
    assert np.allclose(score(report.path, rows), score(again.path, rows), atol=1e-5)


def test_nothing_is_left_behind_beside_the_model(made):
    report, *_ = made
    assert {p.name for p in report.path.parent.iterdir()} == {"base.onnx", "base.onnx.data"}
