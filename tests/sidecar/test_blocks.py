"""Blocks: however a stream is cut into blocks, and wherever it is saved and gone on from, all state has the same bits."""

from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Calibration, Entity, Linear
from riverdelta.core.arrays import read_arrays, write_arrays
from riverdelta.core.examples import Examples
from riverdelta.core.features import Schema
from riverdelta.core.records import Control, Feedback, Impressions, Tick
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import new_learner
from riverdelta.learning.recall import Nothing
from riverdelta.sidecar.account import Account

ROWS = 3_000
#: Every guard at work: the breaker opens at the flood of positives below, the limiter refuses, drift is watched.
TERMS = {"max_updates_per_entity": 100, "breaker_resume_examples": 500, "drift_reference_examples": 1_024}


def stream():
    rng = np.random.default_rng(0)
    x, shop = rng.normal(size=(2, ROWS)).astype(np.float32)
    label = (rng.random(ROWS) < 1 / (1 + np.exp(-x - shop))).astype(np.float32)
    label[2_000:2_300] = 1
    noise = rng.normal(size=(2, ROWS)).astype(np.float32) / 4
    return {
        "columns": {"user": rng.integers(0, 20, ROWS), "shop": shop},
        "base": x,
        "corrected": x + noise[0],
        "served": x + noise[1],
        "label": label,
        "position": np.arange(ROWS) // 3,
        "source": rng.integers(1, 5, ROWS),
        "time": 1_000.0 + np.arange(ROWS) / 10,
    }


STREAM = stream()


class Pair:
    """A learner and its account, saved to a file and loaded from it when told."""

    def __init__(self, definition, **given):
        self.definition, self.settings = definition, Settings.load(home=Path("home"), grpc_port=0, **TERMS | given)
        self._anew()

    def _anew(self):
        self.learner, self.account = new_learner(self.definition, self.settings), Account(self.definition)
        self.learner.recall = Past()

    def again(self):
        with TemporaryDirectory() as folder:
            write_arrays(path := Path(folder) / "saved", self._arrays())
            arrays = read_arrays(path)
        self._anew()
        self.learner.load(arrays)
        self.account.load({name.removeprefix("account/"): a for name, a in arrays.items() if name.startswith("account/")})

    def bits(self):
        return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in self._arrays().items()}

    def _arrays(self):
        return self.learner.state() | {f"account/{name}": array for name, array in self.account.state().items()}


RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { logit = Identity(x) }"""


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [Calibration(), Linear("user", "shop", slots=256), Entity("user", on=["shop"], slots=64)]
    columns = Schema.of({"shop": "float32"})
    return Definition("ranker", path, "logit", columns=columns, corrections=corrections, slices={"user": [3, 5]})


def examples(start, stop):
    """Rows of the stream as examples, and as the impressions that they were."""
    s, count = STREAM, stop - start
    rows = {name: s[name][start:stop] for name in ("base", "corrected", "served", "label", "position", "source")}
    one = np.ones(count, np.float32)
    given = {"weight": one, "importance": one, "taken_back": np.zeros(count, np.float32)}
    times = {"received": s["time"][start:stop], "scored": s["time"][start:stop] - 1}
    columns = {name: column[start:stop] for name, column in s["columns"].items()}
    made = Examples(columns=columns, **rows, **given, **times)
    assert {f.name for f in fields(Examples)} == vars(made).keys()
    return made


def learned(definition, cuts, saves):
    pair, edges = Pair(definition), [0, *sorted(cuts), ROWS]
    for start, stop in zip(edges, edges[1:], strict=False):
        if start in saves:
            pair.again()
        block = examples(start, stop)
        if len(block):
            pair.learner.learn(block)
            pair.account.history.observe(block)
            pair.account.slices.observe(block)
    return pair


@pytest.fixture(scope="module")
def at_once(sliced):
    return learned(sliced, (), ())


def test_the_stream_is_one_that_every_guard_answers(at_once):
    report = at_once.learner.admission.report()
    assert report["trips"] > 0
    assert report["limited"] > 0
    assert 0 < at_once.learner.learned < ROWS


@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, ROWS - 1), max_size=40), data=st.data())
def test_examples_cut_into_blocks_of_any_size_leave_the_same_bits_in_all_state(sliced, at_once, cuts, data):
    saves = data.draw(st.sets(st.sampled_from(sorted(cuts)), max_size=3)) if cuts else set()
    assert learned(sliced, cuts, saves).bits() == at_once.bits()


def journal():
    """Records of two workers: their rows, labels in pieces, showings, ticks and controls."""
    s, records, n = STREAM, [], 30
    for at in range(0, ROWS, n):
        rows, incarnation = slice(at, at + n), 1 + at // n % 2
        request, index = np.full(n, at), np.arange(n, dtype=np.int32)
        zero, time = np.zeros(n, np.int64), s["time"][rows]
        logits = {name: s[name][rows] for name in ("base", "corrected", "served")}
        columns = {name: column[rows] for name, column in s["columns"].items()}
        blank = np.full(n, np.nan, np.float32)
        records.append(
            Impressions(
                incarnation, request, index, time, zero, zero, zero + at // n, **logits, propensity=blank, columns=columns
            )
        )
        keys = np.full(n, incarnation), request, index
        late = np.zeros(n, np.bool_)
        positive = s["label"][rows] == 1
        for part, label in ((late == 0, blank), (positive, s["label"][rows])):
            one = [a[part] for a in (*keys, label, time, late, s["source"][rows])]
            records.append(Feedback(*one))
        records.append(Tick(float(time[-1])))
        if at % 600 == 0:
            records.append(Control(("release", "freeze", "resume", "promote")[at // 600 % 4], {}, float(time[-1])))
    return list(enumerate(records, 1))


RECORDS = journal()


class Past(Nothing):
    """The impressions of the records."""

    def locate(self, incarnation, request):
        blocks = ((n, record) for n, record in RECORDS if isinstance(record, Impressions))
        return next(n for n, block in blocks if (block.incarnation, block.request[0]) == (incarnation, request))

    def impressions(self, sequence):
        return RECORDS[sequence - 1][1]


def taken(definition, saves):
    pair = Pair(definition, labels="silence", window_seconds=20.0, keep_negatives=0.5)
    for sequence, record in RECORDS:
        if sequence in saves:
            pair.again()
        pair.learner.push(sequence, record, partial(pair.account.learned, sequence, admission=pair.learner.admission))
        if isinstance(record, Impressions):
            pair.account.scored(record)
        if isinstance(record, Control):
            pair.account.obeyed(pair.learner.outcomes.of(sequence), record, pair.learner.admission)
    return pair


@pytest.fixture(scope="module")
def in_one_life(sliced):
    return taken(sliced, ())


@settings(max_examples=10, deadline=None)
@given(saves=st.sets(st.integers(1, len(RECORDS)), max_size=12))
def test_records_taken_with_any_saves_between_them_leave_the_same_bits_in_all_state(sliced, in_one_life, saves):
    assert 500 < in_one_life.learner.examples < ROWS
    assert taken(sliced, saves).bits() == in_one_life.bits()
