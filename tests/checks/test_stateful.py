"""Every part of the learner, and every observer, goes on from its saved state bit for bit; the law catches what does not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from mutants import broken_by, each_law_has_its_own, each_of

from riverdelta import Calibration, Entity, Linear
from riverdelta.checks import Part, check
from riverdelta.core.arrays import nest, take
from riverdelta.core.arrays import part as below
from riverdelta.core.examples import Examples
from riverdelta.core.features import Schema
from riverdelta.core.records import Feedback, Impressions, Tick
from riverdelta.core.settings import Settings
from riverdelta.evaluation.drift import Drift
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.history import History
from riverdelta.evaluation.prequential import Prequential
from riverdelta.evaluation.slices import Slices
from riverdelta.evaluation.traffic import Traffic
from riverdelta.evaluation.trial import Trial
from riverdelta.evaluation.worth import Worth
from riverdelta.learning.breaker import Breaker
from riverdelta.learning.commands import Freeze, Promote, Release, Resume
from riverdelta.learning.definition import Definition
from riverdelta.learning.influence import Limiter
from riverdelta.learning.joiner.showings import Showings
from riverdelta.learning.learner import new_learner
from riverdelta.learning.outcomes import Outcome, Outcomes
from riverdelta.learning.recall import Recall
from riverdelta.sidecar.contest import Contest
from riverdelta.sidecar.logbook import Logbook
from riverdelta.sidecar.shown import shown
from riverdelta.storage.registry import FolderRegistry, ReleaseStore

ROWS = 3_600
#: Every guard at work: the breaker opens at the flood of positives below, the limiter refuses, drift is watched.
TERMS = {"max_updates_per_entity": 100, "drift_reference_examples": 1_024}
#: What a saved learner may do without: version 0.1 saved no settings, outcomes and limits of numbers, and drift of other
#: settings begins anew.
OF_LEARNER = (
    *("stack/*/limit", "stack/*/window", "stack/*/sizes"),
    "settings",
    "outcomes/*",
    "adaptation/drift/*",
    "account/*",
    "prequential/recent",
    "gate/*",
)
SCHEMA = Schema.of({"user": "int64", "shop": "float32"})
RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { logit = Identity(x) }"""


def stream():
    rng = np.random.default_rng(0)
    x, shop = rng.normal(size=(2, ROWS)).astype(np.float32)
    label = (rng.random(ROWS) < 1 / (1 + np.exp(-x - shop))).astype(np.float32)
    label[2_000:3_200] = 1
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


def examples(start, stop):
    """Rows of the stream as examples, and as the impressions that they were."""
    s, count = STREAM, stop - start
    rows = {name: s[name][start:stop] for name in ("base", "corrected", "served", "label", "position", "source")}
    one = np.ones(count, np.float32)
    given = {"weight": one, "importance": one, "sent": one, "taken_back": np.zeros(count, np.float32)}
    times = {"received": s["time"][start:stop], "scored": s["time"][start:stop] - 1, "event": np.full(count, np.nan)}
    return Examples(columns={n: c[start:stop] for n, c in s["columns"].items()}, **rows, **given, **times)


def records():
    """Records of two workers: their rows, labels in pieces, showings, ticks and controls."""
    s, made, n = STREAM, [], 30
    for at in range(0, ROWS, n):
        rows, incarnation = slice(at, at + n), 1 + at // n % 2
        request, index = np.full(n, at), np.arange(n, dtype=np.int32)
        zero, time = np.zeros(n, np.int64), s["time"][rows]
        logits = {name: s[name][rows] for name in ("base", "corrected", "served")}
        columns = {name: column[rows] for name, column in s["columns"].items()}
        blank = np.full(n, np.nan, np.float32)
        scored = incarnation, request, index, time, zero, zero, zero + at // n
        made.append(Impressions(*scored, **logits, propensity=blank, columns=columns))
        keys = np.full(n, incarnation), request, index
        late = np.zeros(n, np.bool_)
        positive = s["label"][rows] == 1
        for part, label in ((late == 0, blank), (positive, s["label"][rows])):
            made.append(Feedback(*(a[part] for a in (*keys, label, time, late, s["source"][rows]))))
        made.append(Tick(float(time[-1])))
        if at % 600 == 0:
            asked = (Release(), Freeze(), Resume(), Promote(release=3))[at // 600 % 4]
            made.append(asked.record(time=float(time[-1])))
    return list(enumerate(made, 1))


RECORDS = records()


class Past(Recall):
    """The impressions of the records."""

    def locate(self, incarnation, request):
        blocks = ((n, record) for n, record in RECORDS if isinstance(record, Impressions))
        return next(n for n, block in blocks if (block.incarnation, block.request[0]) == (incarnation, request))

    def impressions(self, sequence):
        return RECORDS[sequence - 1][1]


class Watched:
    """A learner and what is shown of it, saved as one."""

    def __init__(self, definition, **given):
        self.learner = new_learner(definition, Settings.load(home=Path("home"), grpc_port=0, **TERMS | given))
        self.learner.observers |= shown(definition, self.learner, shadow=False)
        self.learner.recall = Past()

    @property
    def parts(self):
        return self.learner.parts | self.learner.observers

    def state(self):
        return self.learner.state() | nest({name: each.state() for name, each in self.learner.observers.items()})

    def load(self, arrays):
        self.learner.load(arrays)
        for name, observer in self.learner.observers.items():
            observer.load(below(arrays, name))

    def learn(self, start, stop):
        if start < stop:
            self.learner.learn(examples(start, stop))

    def push(self, start, stop):
        for sequence, record in RECORDS[start:stop]:
            self.learner.push(sequence, record)


@pytest.fixture(scope="module")
def definition(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [Calibration(), Linear("user", "shop", slots=256), Entity("user", on=["shop"], slots=64)]
    columns = Schema.of({"shop": "float32"})
    return Definition("ranker", path, "logit", columns=columns, corrections=corrections, slices={"user": [3, 5]})


def of(*names):
    """A feed that gives a part's `update` these columns of the stream."""

    def feed(part, start, stop):
        part.update(*(STREAM[name][start:stop] for name in names))

    return feed


ONE = np.ones(ROWS, np.float32)
STREAM |= {"one": ONE, "request": np.arange(ROWS) // 3, "index": np.arange(ROWS) % 3, "user": STREAM["columns"]["user"]}
LOSSES = ("base", "served", "label", "one")


def showings(part, start, stop):
    user, key = STREAM["user"][start:stop], np.arange(start, stop)
    for row in range(stop - start):
        part.add(user[row : row + 1], key[row : row + 1], STREAM["time"][start + row :][:1] + 20.0)
        if key[row] % 3 == 0:
            part.label(user[row : row + 1], key[row : row + 1])
        tick = STREAM["time"][start + row]
        part.due(tick, 100)
        part.take(tick, 100)


def outcomes(part, start, stop):
    for row in range(start, stop):
        part.append(Outcome(row, "release", row, row % 2 == 0, None if row % 3 else "refused"))


def logbook(part, start, stop):
    for row in range(start, stop):
        part.on_outcome(Outcome(row, "release", row, time=float(row), details={"by": "trial"}))


def columns_of(part, start, stop):
    part.on_examples(0, examples(start, stop)) if start < stop else None


#: By name: what makes a part, what feeds it, its rows, and what it may do without.
PARTS = {
    "prequential": (lambda: Prequential(window=500), of(*LOSSES), ROWS, ("recent",)),
    "gate": (Gate, of("base", "corrected", "served", "label", "one", "position"), ROWS, ("*",)),
    "drift": (
        lambda: Drift(SCHEMA, 1_024),
        lambda part, a, b: part.update(examples(a, b).columns, *(STREAM[n][a:b] for n in LOSSES[:3])),
        ROWS,
        (),
    ),
    "trial": (lambda: Trial(0.05), of("base", "served", "label", "one"), ROWS, ()),
    "history": (History, of(*LOSSES, "time"), ROWS, ("*",)),
    "worth": (Worth, of(*LOSSES), ROWS, ("*",)),
    "traffic": (lambda: Traffic(500), of("request", "index", "base", "corrected", "served"), ROWS, ("*",)),
    "slices": (
        lambda: Slices({"user": [3, 5]}, SCHEMA),
        lambda part, a, b: part.update({"user": STREAM["user"][a:b]}, *(STREAM[n][a:b] for n in LOSSES)),
        ROWS,
        ("*",),
    ),
    "breaker": (
        Breaker,
        lambda part, a, b: part.update(examples(a, b)),
        ROWS,
        (),
    ),
    "limiter": (
        lambda: Limiter(["user"], 3, 60.0),
        lambda part, a, b: part.admit(examples(a, b).columns, STREAM["time"][a:b]),
        ROWS,
        (),
    ),
    "showings": (Showings, showings, 300, ()),
    "outcomes": (Outcomes, outcomes, 100, ()),
    "logbook": (Logbook, logbook, 40, ()),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_goes_on_from_what_it_saved_and_refuses_what_is_not_its_own(name):
    make, feed, rows, anew = PARTS[name]
    check(Part(make, feed, rows, optional=anew))


def test_a_learner_goes_on_from_examples_cut_into_blocks_of_any_size(definition):
    at_once = Watched(definition)
    at_once.learn(0, ROWS)
    report = at_once.learner.admission.report()
    assert report["trips"] > 0
    assert report["limited"] > 0
    assert 0 < at_once.learner.learned < ROWS
    check(Part(lambda: Watched(definition), Watched.learn, ROWS, optional=OF_LEARNER))


def test_a_learner_and_its_observers_go_on_between_any_two_records(definition):
    def make():
        return Watched(definition, labels="silence", window_seconds=20.0, keep_negatives=0.5)

    at_once = make()
    at_once.push(0, len(RECORDS))
    assert 500 < at_once.learner.examples < ROWS
    check(Part(make, Watched.push, len(RECORDS), optional=OF_LEARNER))


def test_a_contest_goes_on_with_its_trial(definition, tmp_path):
    store, stack = ReleaseStore(FolderRegistry(tmp_path)), definition.new_stack()
    for number in range(2):
        number, path = store.next_path()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a model")
        store.add(number, path, 0, 0, 0.0, {}, {f"stack/{name}": array for name, array in stack.state().items()})
        stack.learn(STREAM["columns"], STREAM["base"].reshape(-1, 1), STREAM["label"], ONE)

    def make():
        contest = Contest(store, definition.new_stack, Settings.load(promote_margin=0.2))
        contest.offer(0)
        return contest

    def feed(contest, start, stop):
        if start < stop:
            contest.on_examples(0, examples(start, stop))

    check(Part(make, feed, ROWS))


class Sums:
    """A part that is right."""

    def __init__(self):
        self.sums, self.rows = np.zeros(2), 0

    def feed(self, start, stop):
        for row in range(start, stop):
            self.sums[self.rows % 2] += STREAM["base"][row]
            self.rows += 1

    def state(self):
        return {"sums": self.sums, "rows": np.array([self.rows])}

    def load(self, arrays):
        self.sums[:] = take(arrays, "sums", self.sums)
        self.rows = int(take(arrays, "rows", np.zeros(1, np.int64))[0])


class Forgets(Sums):
    def state(self):
        return {"sums": self.sums}

    def load(self, arrays):
        self.sums[:] = take(arrays, "sums", self.sums)


class AddsToWhatItHad(Sums):
    def load(self, arrays):
        had = self.sums.copy()
        super().load(arrays)
        self.sums += had


class KeepsWhatItWasGiven(Sums):
    def load(self, arrays):
        super().load(arrays)
        self.sums = arrays["sums"]


class TakesABlockAsOne(Sums):
    def feed(self, start, stop):
        super().feed(start, stop)
        self.sums *= 0.5


class TakesNamesInTheirOrder(Sums):
    def load(self, arrays):
        super().load(dict(zip(("sums", "rows"), arrays.values(), strict=True)))


class TakesAnyShape(Sums):
    def load(self, arrays):
        self.sums = np.array(take(arrays, "sums"))
        self.rows = int(np.ravel(take(arrays, "rows"))[0])


class BeginsAnewInSilence(Sums):
    def load(self, arrays):
        if len(arrays) == 2:
            super().load(arrays)


class RaisesWhateverComes(Sums):
    def load(self, arrays):
        self.sums[:], self.rows = arrays["sums"], int(arrays["rows"][0])


class LoadsForNobody(Sums):
    def load(self, arrays, whom=None, *, why):
        super().load(arrays)


def stream_of(part):
    return Part(part, Sums.feed if part in (BeginsAnewInSilence, LoadsForNobody) else part.feed, 50, cuts=10)


BROKEN = {
    law: [stream_of(part) for part in parts]
    for law, parts in {
        "its_methods_are_those_of_the_contract": [LoadsForNobody],
        "it_continues_from_its_state": [Forgets, TakesABlockAsOne, TakesNamesInTheirOrder, KeepsWhatItWasGiven],
        "it_forgets_its_rows_when_it_loads": [AddsToWhatItHad],
        "it_refuses_what_is_not_its_own": [TakesAnyShape, BeginsAnewInSilence, RaisesWhateverComes],
    }.items()
}


@each_of(BROKEN)
def test_a_broken_part_breaks_the_law(law, mutant):
    assert law in broken_by(mutant)


def test_every_law_has_a_mutant_of_its_own():
    each_law_has_its_own(BROKEN, stream_of(Sums))


def test_one_that_may_begin_anew_does():
    check(Part(BeginsAnewInSilence, Sums.feed, 50, cuts=10, optional=("*",)))
