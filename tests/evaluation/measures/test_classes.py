"""Classes: the measures are those of scikit-learn, whatever the blocks, past hostile labels and rows taken back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from riverdelta.core.losses import Multiclass
from riverdelta.evaluation.prequential import Prequential

LOSS = Multiclass(["cat", "dog", "owl"])


def stream(rows, classes=3, seed=0):
    """Return base and served logits, labels of unequal frequency, and unit weights."""
    rng = np.random.default_rng(seed)
    label = np.minimum(rng.geometric(0.5, rows) - 1, classes - 1)
    served = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[label]
    return (
        rng.normal(size=(rows, classes)).astype(np.float32),
        served.astype(np.float32),
        label.astype(np.float32),
        np.ones(rows),
    )


def fed(columns, cuts=(), loss=LOSS, **options):
    prequential = Prequential(loss=loss, **options)
    for block in zip(*(np.split(column, sorted(cuts)) for column in columns), strict=True):
        prequential.update(*block)
    return prequential


def bits(prequential):
    return {name: array.tobytes() for name, array in prequential.state().items()}


def test_the_measures_are_those_of_scikit_learn():
    base, served, label, _ = columns = stream(2_000)
    report = fed(columns, window=300).report()
    for window, last in (("all", 2_000), ("recent", 300)):
        for scorer, raw in (("base", base), ("served", served)):
            found, y, raw = report[window][scorer], label[-last:], raw[-last:].astype(float)
            top, p = raw.argmax(axis=1), np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
            assert found["accuracy"] == pytest.approx(accuracy_score(y, top))
            assert found["macro_f1"] == pytest.approx(f1_score(y, top, average="macro"))
            assert found["loss"] == pytest.approx(log_loss(y, p), rel=1e-6)
            assert [found["recall"][name] for name in LOSS.classes] == pytest.approx(recall_score(y, top, average=None))
            bins, hit = np.minimum((p.max(axis=1) * 10).astype(int), 9), top == y
            off = sum(abs((p.max(axis=1) - hit)[bins == k].sum()) for k in range(10))
            assert found["calibration"] == pytest.approx(off / last)


def test_macro_f1_leaves_out_a_class_that_never_occurred():
    raw = np.float32([[9, 0, 0], [9, 0, 0], [0, 9, 0]])
    found = fed((raw, raw, np.float32([0, 1, 1]), np.ones(3))).report()["all"]["base"]
    assert found["macro_f1"] == pytest.approx(f1_score([0, 1, 1], [0, 0, 1], average="macro"))
    assert found["recall"] == {"dog": 0.5, "cat": 1.0}


def test_recall_lists_the_most_frequent_classes_first_and_fifty_at_most():
    loss, label = Multiclass(range(60)), np.repeat(np.arange(60), np.arange(60) + 1).astype(np.float32)
    raw = np.zeros((len(label), 60), np.float32)
    report = fed((raw, raw, label, np.ones(len(label))), loss=loss).report()
    assert list(report["all"]["served"]["recall"]) == [str(k) for k in range(59, 9, -1)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(0, 60), max_size=4))
def test_blocks_and_saves_do_not_change_a_bit(seed, cuts):
    columns = stream(60, seed=seed)
    columns[3][5::7] = -1.0
    whole, resumed = fed(columns, window=40), Prequential(loss=LOSS, window=40)
    for block in zip(*(np.split(column, sorted(cuts)) for column in columns), strict=True):
        resumed.update(*block)
        again = Prequential(loss=LOSS, window=40)
        again.load(resumed.state())
        resumed = again
    assert bits(whole) == bits(resumed)
    assert whole.report() == resumed.report()


def test_a_row_taken_back_leaves_the_measures_of_the_others():
    base, served, label, weight = columns = stream(200, seed=3)
    both = fed(columns)
    both.update(base[:20], served[:20], label[:20], -weight[:20])
    found, wanted = both.report()["all"], fed([c[20:] for c in columns]).report()["all"]
    for scorer in ("base", "served"):
        assert found[scorer].pop("recall") == pytest.approx(wanted[scorer].pop("recall"))
        assert found[scorer] == pytest.approx(wanted[scorer] | {"examples": 220})


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -1.0, 0.5, 3.0, 99.0, 1e15])
def test_a_label_that_is_no_class_is_skipped_and_counted(hostile):
    base, served, label, weight = stream(30, seed=4)
    clean = fed([np.delete(c, 7, axis=0) for c in (base, served, label, weight)]).report()["all"]
    label[7] = hostile
    report = fed((base, served, label, weight)).report()["all"]
    assert report["base"].pop("skipped") == 1
    assert clean["base"].pop("skipped") == 0
    assert report["base"] == clean["base"]
    assert report["majority"]["loss"] == clean["majority"]["loss"]


def test_a_thousand_classes_take_little_state_and_huge_logits_no_harm():
    loss, (base, _, label, weight) = Multiclass(range(1_000)), stream(300, classes=1_000, seed=5)
    huge = np.where(np.arange(1_000) == label[:, None], np.float32(3e38), np.float32(-3e38))
    prequential = fed((base, huge, label, weight), loss=loss)
    assert sum(array.nbytes for array in prequential.state().values()) < 2**18
    found = prequential.report()["all"]["served"]
    assert (found["loss"], found["accuracy"], found["macro_f1"]) == (0.0, 1.0, 1.0)


def test_baselines_are_scored_as_any_other_and_nothing_is_known_of_nothing():
    empty = Prequential(loss=LOSS).report()["all"]
    assert {name: empty["base"][name] for name in ("loss", "accuracy", "macro_f1", "calibration")} == dict.fromkeys(
        ("loss", "accuracy", "macro_f1", "calibration")
    )
    label = np.float32([2, 2, 2, 2])
    report = fed((np.zeros((4, 3)), np.zeros((4, 3)), label, np.ones(4))).report()["all"]
    # Each knows the label from the second row on.
    assert report["last_label"]["accuracy"] == report["majority"]["accuracy"] == 0.75
    assert report["majority"]["loss"] == pytest.approx(-np.log([1 / 3, 2 / 4, 3 / 5, 4 / 6]).mean())
