"""Prequential: its numbers are the textbook's and River's, whatever the split, through a save, and past bad rows."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from river import metrics
from riverdelta.core.errors import Corrupt, InvalidInput
from riverdelta.evaluation.prequential import Prequential


def stream(rows, seed=0, spread=1.5, shift=-1.0):
    """Return base and served float32 logits, labels drawn from the served ones, and unit weights."""
    rng = np.random.default_rng(seed)
    served = (shift + spread * rng.normal(size=rows)).astype(np.float32)
    base = (served + rng.normal(size=rows)).astype(np.float32)
    label = (rng.random(rows) < expit(served)).astype(np.float32)
    return base, served, label, np.ones(rows, np.float32)


def fed(columns, splits=(), **options):
    prequential = Prequential(**options)
    edges = [0, *sorted(splits), len(columns[0])]
    for start, stop in zip(edges, edges[1:], strict=False):
        prequential.update(*(c[start:stop] for c in columns))
    return prequential


def bits(prequential):
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in prequential.state().items()}


def agrees(report, z, label, threshold=0.5):
    """Compare one scorer's report with scikit-learn and with River fed row by row."""
    p = expit(z.astype(float))
    river = {"accuracy": metrics.Accuracy(), "precision": metrics.Precision(), "recall": metrics.Recall(), "f1": metrics.F1()}
    loss = metrics.LogLoss()
    for score, y in zip(p.tolist(), label.astype(bool).tolist(), strict=True):
        loss.update(y, score)
        for metric in river.values():
            metric.update(y, score >= threshold)
    assert {name: report[name] for name in river} == pytest.approx({name: metric.get() for name, metric in river.items()})
    assert report["loss"] == pytest.approx(loss.get(), rel=1e-9)
    assert report["loss"] == pytest.approx(log_loss(label, p), rel=1e-6)
    assert report["calibration_ratio"] == pytest.approx(p.sum() / label.sum(), rel=1e-12)
    assert abs(report["auc"] - roc_auc_score(label, z)) <= report["auc_error"] + 1e-12
    assert report["examples"] == len(label)


def test_both_scorers_agree_with_river_row_by_row_and_with_scikit_learn():
    base, served, label, _ = columns = stream(5_000)
    report = fed(columns, window=1_234).report()
    for scorer, z in (("base", base), ("served", served)):
        agrees(report["all"][scorer], z, label)
        agrees(report["recent"][scorer], z[-1_234:], label[-1_234:])


def test_recent_auc_is_that_of_rivers_exact_rolling_metric():
    _, served, label, _ = columns = stream(900, seed=3)
    rolling = metrics.RollingROCAUC(window_size=400)
    for z, y in zip(served.tolist(), label.astype(bool).tolist(), strict=True):
        rolling.update(y, z)
    recent = fed(columns, window=400).report()["recent"]["served"]
    assert recent["auc"] == pytest.approx(rolling.get(), abs=1e-9)
    assert recent["auc_error"] == 0.0


def test_overall_auc_is_within_rivers_own_approximation():
    _, served, label, _ = columns = stream(4_000, seed=4)
    river = metrics.ROCAUC(n_thresholds=200)
    for p, y in zip(expit(served.astype(float)).tolist(), label.astype(bool).tolist(), strict=True):
        river.update(y, p)
    assert fed(columns).report()["all"]["served"]["auc"] == pytest.approx(river.get(), abs=5e-3)


@pytest.mark.parametrize(("spread", "shift"), [(1.0, 0.0), (1.0, -5.0), (3.0, 2.0), (30.0, 0.0), (0.05, -3.0)])
def test_binned_auc_stays_within_the_error_that_it_states(spread, shift):
    _, served, _, weight = stream(20_000, seed=5, spread=spread, shift=shift)
    label = (np.random.default_rng(6).random(20_000) < expit((served - shift) / spread)).astype(np.float32)
    all_rows = fed((served, served, label, weight)).report()["all"]["served"]
    assert abs(all_rows["auc"] - roc_auc_score(label, served)) <= all_rows["auc_error"] < 0.01


def test_a_scorer_that_says_the_same_of_every_row_has_an_auc_of_one_half():
    label = np.float32([0, 1, 1, 0, 1])
    report = fed((np.full(5, 0.3, np.float32), np.full(5, -7.5, np.float32), label, np.ones(5, np.float32))).report()
    assert {report[window][scorer]["auc"] for window in report for scorer in ("base", "served")} == {0.5}


@pytest.mark.parametrize(("before", "after"), [(50, 20), (20, 50)])
def test_a_saved_state_loads_into_another_window(before, after):
    columns = stream(200, seed=8)
    resumed = Prequential(window=after)
    resumed.load(fed(columns, window=before).state())
    assert resumed.report()["recent"] == fed(columns, window=min(before, after)).report()["recent"]
    resumed.update(*columns)
    twice = [np.concatenate([column, column]) for column in columns]
    assert resumed.report()["recent"] == fed(twice, window=after).report()["recent"]


def test_a_state_is_a_copy_that_later_rows_do_not_change():
    prequential = fed(stream(50))
    state = prequential.state()
    kept = {name: a.copy() for name, a in state.items()}
    prequential.update(*stream(50, seed=9))
    assert all(np.array_equal(state[name], kept[name]) for name in kept)


def test_the_threshold_moves_without_losing_what_was_counted():
    _, served, label, _ = columns = stream(3_000, seed=10)
    moved = Prequential(threshold=0.2)
    moved.load(fed(columns).state())
    stated = moved.report()["all"]["served"]["threshold"]
    assert stated == pytest.approx(0.2, abs=5e-4)
    agrees(moved.report()["all"]["served"], served, label, threshold=stated)


def test_a_score_of_exactly_one_half_is_a_positive_and_the_next_below_is_not():
    least = np.nextafter(np.float32(0), np.float32(-1))
    label, weight = np.float32([1, 1]), np.ones(2, np.float32)
    report = fed((np.float32([0.0, -0.0]), np.float32([least, least]), label, weight)).report()["all"]
    assert report["base"]["recall"] == 1.0
    assert report["served"]["recall"] == 0.0


def test_weights_weigh_and_a_row_of_weight_minus_one_takes_one_back():
    columns = base, served, label, weight = stream(500, seed=11)
    once = fed(columns).report()["all"]["served"]
    assert fed((base, served, label, 2 * weight)).report()["all"]["served"] == pytest.approx(once)
    prequential = fed(columns)
    prequential.update(base[:9], served[:9], label[:9], -weight[:9])
    rest = fed([c[9:] for c in columns]).report()["all"]["served"]
    assert prequential.report()["all"]["served"] == pytest.approx(rest | {"examples": 509}, abs=1e-12)


def test_measures_with_nothing_to_divide_by_are_none():
    empty = Prequential().report()
    for window in ("all", "recent"):
        for scorer in ("base", "served"):
            nothing = {k for k, v in empty[window][scorer].items() if v is None}
            assert nothing == {"loss", "calibration_ratio", "auc", "auc_error", "accuracy", "precision", "recall", "f1"}
    negatives = fed((np.float32([-1]), np.float32([-1]), np.float32([0]), np.float32([1]))).report()["all"]["base"]
    nothing = {k for k, v in negatives.items() if v is None}
    assert nothing == {"calibration_ratio", "auc", "auc_error", "precision", "recall", "f1"}
    assert negatives["accuracy"] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_row_that_is_not_finite_is_skipped_and_counted(place, bad):
    columns = [c.copy() for c in stream(60, seed=12)]
    clean = [np.delete(c, 20) for c in columns]
    columns[place][20] = bad
    report, wanted = fed(columns).report(), fed(clean).report()
    assert report["all"]["base"].pop("skipped") == 1
    wanted["all"]["base"].pop("skipped")
    assert report["all"]["base"] == wanted["all"]["base"]


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5])
def test_a_label_other_than_0_and_1_is_skipped_and_counted(label):
    one = np.ones(1, np.float32)
    report = fed((one, one, label * one, one)).report()["all"]["served"]
    assert (report["examples"], report["skipped"]) == (0, 1)


def test_the_largest_logits_stay_inside_the_table():
    top = np.finfo(np.float32).max
    z = np.float32([top, -top, top, -top])
    report = fed((z, z, np.float32([1, 0, 1, 0]), np.ones(4, np.float32))).report()["all"]["base"]
    assert (report["auc"], report["loss"], report["f1"]) == (1.0, 0.0, 1.0)


def test_blocks_that_are_strided_or_of_another_dtype_give_the_same_bits():
    base, served, label, weight = stream(100, seed=13)
    rows = np.stack([base, served, label, weight], 1)
    strided = fed([rows[:, k] for k in range(4)])
    double = fed((base.astype(np.float64), served.astype(np.float64), label.astype(bool), weight.astype(np.int64)))
    assert bits(strided) == bits(double) == bits(fed((base, served, label, weight)))


def test_columns_of_unequal_length_are_refused_before_anything_is_counted():
    prequential = Prequential()
    with pytest.raises(InvalidInput, match=r"shapes \[3\], \[2\], \[3\], \[3\]; expected the same length"):
        prequential.update(np.zeros(3, np.float32), np.zeros(2, np.float32), np.zeros(3, np.float32))
    with pytest.raises(InvalidInput, match=r"\[3, 1\]"):
        prequential.update(*(np.zeros((3, 1), np.float32) for _ in range(3)))
    assert bits(prequential) == bits(Prequential())


@pytest.mark.parametrize("name", ["counts", "sums", "rows", "recent"])
def test_a_saved_state_that_lacks_or_misshapes_an_array_is_refused_and_changes_nothing(name):
    prequential, state = fed(stream(30)), fed(stream(30, seed=14)).state()
    before = bits(prequential)
    for broken in ({k: v for k, v in state.items() if k != name}, {**state, name: state[name][:1, None]}):
        with pytest.raises(Corrupt, match=name):
            prequential.load(broken)
    assert bits(prequential) == before
