"""Every measure of every task: as scikit-learn defines it, the same however rows are cut, through a save, past hostile rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_poisson_deviance,
    ndcg_score,
    r2_score,
    recall_score,
    root_mean_squared_error,
)

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.losses import Count, Multiclass, Ranking, Regression
from riverdelta.evaluation.drift import Drift, Reference
from riverdelta.evaluation.history import History
from riverdelta.evaluation.measures.known import Moments
from riverdelta.evaluation.prequential import Prequential
from riverdelta.evaluation.slices import Slices
from riverdelta.evaluation.traffic import Traffic

CLASSES, NUMBERS, COUNTS, LISTS = (
    Multiclass(["cat", "dog", "owl"]),
    Regression(period=4.0),
    Count(),
    Ranking(grades=3, item="film"),
)
LOSSES = {"classes": CLASSES, "numbers": NUMBERS, "counts": COUNTS, "lists": LISTS}
SCHEMA = Schema.of({"country": "int64"})
LAW = settings(max_examples=25, deadline=None)


class Rows:
    """N rows for a loss: raw outputs of base and served, labels, weights, lists, times, items."""

    def __init__(self, loss, rows, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        self.loss, self.n = loss, rows
        self.base, self.served = (rng.normal(0, scale, (rows, loss.outputs)).astype(np.float32) for _ in range(2))
        self.label = {
            "classes": lambda: rng.integers(0, 3, rows),
            "numbers": lambda: rng.normal(0, scale, rows),
            "counts": lambda: rng.poisson(2.0, rows),
            "lists": lambda: rng.integers(0, 4, rows),
        }[next(name for name, one in LOSSES.items() if one is loss)]().astype(np.float32)
        self.weight = rng.choice(np.float32([0.5, 1.0, 2.0]), rows)
        self.group = np.sort(rng.integers(0, max(rows // 4, 1), rows)) if loss.lists else None
        self.time, self.item = np.arange(rows, dtype=np.float64), rng.integers(0, 5, rows)

    def lists(self, rows=slice(None)):
        return {} if self.group is None else {"group": self.group[rows]}

    def cuts(self, cuts):
        """Edges of blocks that cut no list."""
        inside = sorted(c for c in cuts if 0 < c < self.n and (self.group is None or self.group[c] != self.group[c - 1]))
        return list(zip([0, *inside], [*inside, self.n], strict=True))


class Parts:
    """All measures of a loss, fed alike."""

    def __init__(self, loss):
        self.prequential, self.history = Prequential(window=20, loss=loss), History(loss=loss)
        self.slices, self.traffic = Slices({"country": [7]}, SCHEMA, loss), Traffic(window=20, loss=loss)

    def feed(self, r, cuts=()):
        for start, stop in r.cuts(cuts):
            rows = slice(start, stop)
            base, served, label, weight = r.base[rows], r.served[rows], r.label[rows], r.weight[rows]
            nothing = np.full(len(label), np.nan)
            moments = Moments(r.time[rows], nothing, nothing, r.item[rows])
            self.prequential.update(base, served, label, weight, moments=moments, **r.lists(rows))
            self.history.update(base, served, label, weight, r.time[rows], **r.lists(rows))
            self.slices.update({"country": r.item[rows] + 5}, base, served, label, weight, **r.lists(rows))
            at = np.arange(start, stop)
            request, index = (at, np.zeros(stop - start, int)) if r.group is None else (r.group[rows], at)
            if r.group is not None:
                index = at - np.searchsorted(r.group, r.group[rows])
            self.traffic.update(request, index, base, served, served)
        return self

    def bits(self):
        return {(part, name): a.tobytes() for part, one in vars(self).items() for name, a in one.state().items()}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@LAW
@given(st.integers(0, 60), st.integers(0, 99), st.lists(st.integers(1, 59), max_size=4))
def test_measures_do_not_depend_on_how_rows_are_cut_and_continue_after_a_save(loss, rows, seed, cuts):
    r, more = Rows(loss, rows, seed), Rows(loss, 30, seed + 1)
    entire, parts, again = Parts(loss).feed(r), Parts(loss).feed(r, cuts), Parts(loss)
    assert entire.bits() == parts.bits()
    for name, one in vars(again).items():
        one.load(getattr(entire, name).state())
    assert again.feed(more).bits() == entire.feed(more).bits()
    for name, one in vars(again).items():
        assert one.report() == getattr(entire, name).report()


@LAW
@given(st.integers(1, 80), st.integers(0, 99))
def test_measures_of_classes_are_those_of_scikit_learn(rows, seed):
    r = Rows(CLASSES, rows, seed)
    found = Parts(CLASSES).feed(r).prequential.report()["all"]
    for scorer, raw in (("base", r.base), ("served", r.served)):
        given, of = (r.label, raw.argmax(1)), {"sample_weight": r.weight}
        assert found[scorer]["accuracy"] == pytest.approx(accuracy_score(*given, **of))
        assert found[scorer]["macro_f1"] == pytest.approx(f1_score(*given, average="macro", **of))
        labels = sorted(set(r.label.astype(int).tolist()))
        recalls = recall_score(*given, average=None, labels=labels, zero_division=0.0, **of)
        assert found[scorer]["recall"] == pytest.approx(
            {CLASSES.classes[k]: one for k, one in zip(labels, recalls, strict=True)}
        )
    last = np.mean([r.weight[i] * (r.label[i] == r.label[i - 1]) for i in range(1, rows)] or [0.0]) * (rows - 1)
    assert found["last_label"]["accuracy"] == pytest.approx(last / r.weight.sum())


@LAW
@given(st.integers(3, 80), st.integers(0, 99), st.sampled_from([0.0, 1e6]))
def test_measures_of_numbers_are_those_of_scikit_learn_and_large_values_do_not_cancel(rows, seed, offset):
    r = Rows(NUMBERS, rows, seed)
    r.base, r.served, r.label = r.base + np.float32(offset), r.served + np.float32(offset), r.label + np.float32(offset)
    found, of = Parts(NUMBERS).feed(r).prequential.report()["all"], {"sample_weight": r.weight}
    predictions = {"base": r.base[:, 0], "served": r.served[:, 0]}
    for scorer, z in predictions.items():
        error = z.astype(float) - r.label
        assert found[scorer]["bias"] == pytest.approx(np.average(error, weights=r.weight), abs=1e-9)
        assert found[scorer]["mae"] == pytest.approx(np.average(abs(error), weights=r.weight))
        assert found[scorer]["rmse"] == pytest.approx(root_mean_squared_error(r.label, z, **of), rel=1e-6)
        if np.ptp(r.label):
            assert found[scorer]["r2"] == pytest.approx(r2_score(r.label.astype(float), z.astype(float), **of), rel=1e-6)
    steps = np.abs(np.diff(r.label.astype(float)))
    assert found["last_label"]["mae"] == pytest.approx(np.average(steps, weights=r.weight[1:]), rel=1e-6)
    if rows > 4:
        steps = np.abs(r.label[4:].astype(float) - r.label[:-4])
        assert found["last_period"]["mae"] == pytest.approx(np.average(steps, weights=r.weight[4:]), rel=1e-6)


@LAW
@given(st.integers(1, 80), st.integers(0, 99))
def test_the_deviance_of_counts_is_that_of_scikit_learn(rows, seed):
    r = Rows(COUNTS, rows, seed)
    found = Parts(COUNTS).feed(r).prequential.report()["all"]["served"]
    expected = mean_poisson_deviance(r.label, np.exp(r.served[:, 0].astype(float)), sample_weight=r.weight)
    assert found["deviance"] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@LAW
@given(st.integers(4, 60), st.integers(0, 99))
def test_the_ndcg_of_lists_is_that_of_scikit_learn(rows, seed):
    r = Rows(LISTS, rows, seed)
    r.weight[:] = 1.0
    found, gains, first = Parts(LISTS).feed(r).prequential.report()["all"]["served"], [], []
    for number in dict.fromkeys(r.group.tolist()):
        label, score = r.label[r.group == number], r.served[r.group == number, 0]
        if label.sum() > 0:
            gains.append(ndcg_score([2.0**label - 1.0], [score], k=10) if len(label) > 1 else 1.0)
            first.append(1.0 / (1 + np.flatnonzero(label[np.argsort(-score)] > 0)[0]))
    assert found["lists"] == len(gains)
    if gains:
        assert found["ndcg10"] == pytest.approx(np.mean(gains))
        assert found["mrr"] == pytest.approx(np.mean(first))


def test_slices_have_the_accuracy_of_classes_the_calibration_of_numbers_and_the_loss_of_a_click():
    r = Rows(CLASSES, 40)
    r.weight[:] = 1.0
    found = Parts(CLASSES).feed(r).slices.report()["country"]["7"]["served"]
    mine = r.item == 2
    fading = 0.5 ** (np.arange(mine.sum())[::-1] / 5_000)
    hits = r.served[mine].argmax(1) == r.label[mine]
    assert found["accuracy"] == pytest.approx(np.average(hits, weights=fading))
    assert Parts(COUNTS).feed(Rows(COUNTS, 40)).slices.report()["country"]["7"]["base"].keys() == {
        "examples", "loss", "calibration_ratio",
    }  # fmt: skip
    slices, one = Slices({"country": [7]}, SCHEMA, LISTS), np.ones(4)
    country, label = np.array([7, 8, 7, 8]), np.float32([2, 0, 0, 1])
    slices.update({"country": country}, np.zeros(4), np.zeros(4), label, one, group=np.array([1, 1, 1, 1]))
    assert slices.report()["country"]["7"]["base"] == {"examples": 2, "loss": pytest.approx(np.log(4))}


def test_the_history_of_lists_counts_lists_and_one_bad_row_leaves_out_its_list():
    history, group = History(loss=LISTS), np.array([1, 1, 2, 2, 3, 3])
    base, label = np.float32([0, 0, np.nan, 0, 0, 0]), np.float32([1, 0, 1, 0, 0, 0])
    history.update(base, np.zeros(6), label, np.full(6, 2.0), np.arange(6.0), group)
    report = history.report()
    assert (report["examples"], report["time"]) == ([1], [1.0])
    assert report["base"] == [pytest.approx(2 * np.log(2), abs=1e-5)]


def test_traffic_of_classes_says_how_often_the_class_changed_and_what_loss_to_expect():
    traffic, f = Traffic(window=4, loss=CLASSES), np.float32
    base = f([[9, 9, 9], [2, 1, 0], [2, 1, 0], [0, 0, 0], [np.nan, 0, 0]])
    served = f([[0, 0, 0], [2, 1, 0], [0, 3, 0], [0, 0, 0], [0, 0, 0]])
    traffic.update(np.arange(5), np.zeros(5, int), base, served, served)
    report, p, q = traffic.report(), CLASSES.inverse_link(served[1:4]), CLASSES.inverse_link(base[1:4])
    assert (report["rows"], report["top_changed"], report["residual"]["1"]) == (3, pytest.approx(1 / 3), 2.0)
    assert report["expected_loss"]["base"] == pytest.approx(-(p * np.log(q)).sum(1).mean(), rel=1e-6)
    assert report["expected_loss"]["served"] == pytest.approx(-(p * np.log(p)).sum(1).mean(), rel=1e-6)


def test_what_is_held_of_a_thousand_classes_does_not_grow_with_their_number():
    many = Multiclass(range(1_000))
    assert sum(a.nbytes for a in Traffic(loss=many).state().values()) < 1_000_000
    assert sum(a.nbytes for a in Prequential(loss=many).state().values()) < 1_000_000


def watched(drift, r, columns, block=37):
    alarms = []
    for start, stop in r.cuts(range(block, r.n, block)):
        rows = slice(start, stop)
        alarms += drift.update({"x": columns[rows]}, r.base[rows], r.served[rows], r.label[rows], **r.lists(rows))
    return alarms


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_drift_is_silent_on_what_stays_however_it_is_cut_and_sees_a_larger_loss_in_any_unit(loss):
    calm, still = (Rows(loss, 6_000, seed) for seed in (1, 2))
    x = np.random.default_rng(3).normal(size=6_000).astype(np.float32)
    for scale in (1.0, 1_000.0) if loss is NUMBERS else (1.0,):
        for r in (calm, still):
            r.base, r.served, r.label = (a * np.float32(scale) for a in (r.base, r.served, r.label))
        drift, cut = (Drift(Schema.of({"x": "float32"}), 1_024, loss=loss) for _ in range(2))
        assert watched(drift, calm, x) == watched(cut, calm, x, 1_000) == []
        assert {k: a.tobytes() for k, a in drift.state().items()} == {k: a.tobytes() for k, a in cut.state().items()}
        again = Drift(Schema.of({"x": "float32"}), 1_024, loss=loss)
        again.load(drift.state())
        assert watched(again, still, x) == []
        worse = Rows(loss, 6_000, 4)
        worse.label *= np.float32(scale)
        worse.base *= np.float32(scale)
        worse.served *= np.float32(4 * scale)
        assert "loss" in watched(drift, worse, x)


def test_a_class_that_becomes_frequent_raises_an_alarm_that_names_it():
    schema, r = Schema.of({"x": "float32"}), Rows(CLASSES, 4_000, 5)
    x = np.zeros(4_000, np.float32)
    r.base[:] = r.served[:] = 0.0
    drift = Drift(schema, 1_024, loss=CLASSES)
    watched(drift, r, x)
    r.label[np.random.default_rng(6).random(4_000) < 0.5] = 2.0
    assert watched(drift, r, x)[0] == "label share"
    assert drift.cause == "label share of 'owl'"


def test_a_given_reference_keeps_the_scale_of_its_losses_and_belongs_to_one_task():
    schema, r = Schema.of({"x": "float32"}), Rows(NUMBERS, 4_096, 7, scale=300.0)
    x = np.zeros(4_096, np.float32)
    made = Drift.reference_of(schema, {"x": x}, r.served, r.label, NUMBERS)
    given = Reference.of_arrays(made.arrays())
    drift = Drift(schema, 1_024, given=given, loss=NUMBERS)
    assert watched(drift, r, x) == []
    r.served *= 3
    assert watched(drift, r, x)[0] == "loss"
    with pytest.raises(ConfigurationError, match="another task: make it again with `riverdelta reference`"):
        Drift(schema, 1_024, given=given, loss=CLASSES)
