"""A loss, a log and a correction of somebody else: each passes its suite, and a service scores, learns and swaps with them."""

import asyncio
import math
import zlib
from collections import defaultdict
from contextlib import closing, contextmanager

import numba
import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Correction, Linear, Table
from riverdelta.checks import MemoryLog, MemoryRegistry, parametrize_with_checks
from riverdelta.core.errors import Corrupt, InvalidInput
from riverdelta.core.losses import Loss
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, PREDICT, VALUE, Kernels
from riverdelta.core.records import Control
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.storage.home import Home
from riverdelta.storage.log.base import Entry

REACH, BOUND, SURE, HEAVY = 20.0, 1e4, 1e3, 10.0


@numba.njit(VALUE, cache=True)
def _value(raw, label, losses):
    for i in range(len(label)):
        losses[i] = math.sqrt(1.0 + (raw[i, 0] - label[i]) ** 2) - 1.0


@numba.njit(DERIVATIVES, cache=True)
def _derivatives(raw, label, weight, gradient, curvature):
    for i in range(len(label)):
        root = math.sqrt(1.0 + (raw[i, 0] - label[i]) ** 2)
        gradient[i, 0] = weight[i] * (raw[i, 0] - label[i]) / root
        curvature[i, 0] = weight[i] / root**3


@numba.njit(MIX, cache=True)
def _mix(base, corrected, weight, served):
    for i in range(len(base)):
        moved = corrected[i, 0] - base[i, 0]
        if moved > REACH:
            moved = REACH
        elif moved < -REACH:
            moved = -REACH
        served[i, 0] = base[i, 0] + weight * moved


@numba.njit(PREDICT, cache=True)
def _predict(raw, prediction):
    prediction[:] = raw


class PseudoHuber(Loss):
    """√(1 + (z - y)²) - 1 of a value z and any finite label y: squared for near labels, absolute for far ones."""

    task, raw, unit, bound, reach = "toy pseudo-Huber", "value", "units of the label", BOUND, REACH
    kernels = Kernels(_value, _derivatives, _mix, _predict)

    def link(self, prediction):
        return self.rows(prediction)

    def spread(self, base, corrected):
        return np.minimum(np.abs(self.rows(corrected) - self.rows(base)), REACH)[:, 0]

    def judged(self, base, label):
        return (np.abs(self.rows(base)) <= SURE)[:, 0]

    def mixable(self, weight):
        return np.zeros(np.shape(weight))

    def export_link(self, nodes, prediction):
        return prediction

    def export_inverse_link(self, nodes, raw):
        return nodes.add("Identity", raw)

    def export_mixture(self, nodes, base, corrected, weight):
        ends = [nodes.constant(sign * REACH, np.float32) for sign in (-1, 1)]
        moved = nodes.add("Clip", nodes.add("Sub", corrected, base), *ends)
        return nodes.add("Add", base, nodes.add("Mul", weight, moved))


class Shift(Correction):
    """raw = offset + b: one number, moved by a Newton step an example."""

    reads, radius = (), REACH

    def __init__(self, offset: str = "offset") -> None:
        self.offset = offset

    def bind(self, schema):
        self.served = {"shift": Table(np.zeros((1, self.loss.outputs)))}
        self.learner = {"certainty": np.ones((1, self.loss.outputs))}
        super().bind(schema)

    def predict(self, columns, offset):
        out = self.room(columns, offset)
        out[:] = offset + self.served["shift"].values
        return out

    def learn(self, columns, offset, label, weight):
        table, certainty, out = self.served["shift"], self.learner["certainty"], self.room(columns, offset, label, weight)
        for row in range(len(offset)):
            out[row] = offset[row] + table.values[0]
            gradient, curvature = self.loss.derivatives(out[row], label[row], min(weight[row], HEAVY))
            if weight[row] == 0.0 or not np.isfinite([*out[row], label[row], weight[row]]).all():
                continue
            certainty += curvature
            table.values[:] = np.clip(table.values - gradient / certainty, -REACH, REACH)
            table.touched[:] = True
        return out

    def export(self, nodes, columns, offset):
        return nodes.add("Add", offset, nodes.table("shift", self.served["shift"].values))


class Compressed:
    """A log whose records lie compressed in another."""

    def __init__(self, log):
        self._log = log

    def __getattr__(self, name):
        return getattr(self._log, name)

    @contextmanager
    def transaction(self):
        with self._log.transaction() as inner:
            yield _Compressing(inner)

    def read(self, after, rows):
        return [stored._replace(payload=_inflated(stored)) for stored in self._log.read(after, rows)]

    def erase(self, entries, *what, **named):
        self._log.erase({at: _compressed(entry) for at, entry in entries.items()}, *what, **named)


class _Compressing:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def append(self, entry):
        return self._inner.append(_compressed(entry))


def _compressed(entry):
    return Entry.of(entry.kind, entry.rows, zlib.compress(entry.payload))


def _inflated(stored):
    try:
        return zlib.decompress(stored.payload)
    except zlib.error as error:
        raise Corrupt(f"record {stored.sequence} of {stored.where} cannot be read: {error}") from None


PSEUDO_HUBER = PseudoHuber()


def open_log(folder, logs=defaultdict(lambda: MemoryLog(part_records=4))):  # noqa: B006 - shared by all who open it
    return Compressed(logs[folder])


@parametrize_with_checks([Shift(), PSEUDO_HUBER, open_log])
def test_it_keeps_its_laws(check):
    check()


@parametrize_with_checks([Shift()], loss=PSEUDO_HUBER)
def test_the_correction_keeps_its_laws_with_the_loss(check):
    check()


BASE = """<ir_version: 8, opset_import: ["" : 17]>
rent (int64[N] street, float[N] rooms) => (float[N] value) {
    half = Constant<value = float {0.5}>()
    value = Mul(rooms, half)
}"""
STREETS = np.linspace(-2.0, 2.0, 8)


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "rent.onnx"
    onnx.save(onnx.parser.parse_model(BASE), path)
    definition = Definition(
        "rent", path, output="value", link="identity", corrections=[Shift(), Linear("street", slots=64)], task=PSEUDO_HUBER
    )
    settings = Settings.load(home=tmp_path / "home", grpc_port=0, swap_min_seconds=1e-9, follow_seconds=3600.0)
    log = Compressed(MemoryLog())
    return Home(definition, settings, open_log=lambda folder: log, registry=MemoryRegistry(tmp_path / "models"))


def rows(seed, count=64):
    rng = np.random.default_rng(seed)
    street, rooms = rng.integers(0, len(STREETS), count), rng.uniform(1, 5, count).astype(np.float32)
    truth = 0.5 * rooms + 3.0 + STREETS[street]
    return {"street": street, "rooms": rooms}, (truth + rng.normal(scale=0.1, size=count)).astype(np.float32)


def test_a_service_scores_learns_publishes_and_swaps_with_all_three(home):
    plane = DataPlane(home.definition, home.settings, registry=CollectorRegistry(), home=home)
    with closing(plane), closing(Trainer(home.definition, home.settings, home=home)) as trainer:
        errors, state = [], plane.session.state
        for seed in range(20):
            columns, label = rows(seed)
            answer = plane.score(columns)
            errors.append(float(np.abs(answer.scores - label).mean()))
            ids = [f"{answer.impressions}.{row}" for row in range(len(label))]
            with pytest.raises(InvalidInput, match="item 1 has the label inf; expected a finite number"):
                asyncio.run(plane.feedback(ids, np.where(np.arange(len(label)) == 1, np.inf, label)))
            assert set(asyncio.run(plane.feedback(ids, label)).outcomes) == {"accepted"}
            while trainer.step():
                pass
            plane.follower.follow()
        assert plane.session.state.swap > state.swap
        assert plane.session.state.position == trainer.learner.position
        # The base is 3 too low, and each street has a level of its own.
        assert errors[0] > 2.0
        assert errors[-1] < 0.5
        trainer.journal.write(Control("release", {}, 0.0))
        while trainer.step():
            pass
        release = home.releases().intact()
        status = trainer.status()
        scored = onnx.load(release.path)
        assert [output.name for output in scored.graph.output] == ["score", "value", "corrected_value", "base_value"]
        assert status["prequential"]["all"]["served"]["loss"] < status["prequential"]["all"]["base"]["loss"]
        assert "auc" not in status["prequential"]["all"]["served"] or status["prequential"]["all"]["served"]["auc"] is None
        assert status["gate"]["skipped"] == 0
        assert status["gate"]["weight"] > 0.9
        learned = trainer.learner.stack.digest()
    with closing(Trainer(home.definition, home.settings, home=home)) as again:
        assert (again.learner.examples, again.learner.stack.digest()) == (20 * 64, learned)
