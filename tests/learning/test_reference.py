"""The reference file: made of training rows, kept beside the base, and refused where it belongs to something else."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from riverdelta import Calibration, Entity, Linear
from riverdelta.core.arrays import read_arrays, write_arrays
from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.evaluation.drift import Reference
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import new_learner
from riverdelta.learning.reference import load, path_of, save
from riverdelta.serving.profile import measure

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""


@pytest.fixture
def definition(tmp_path):
    path = tmp_path / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [Calibration(), Linear("user", "shop"), Entity("user", on=["shop"])]
    return Definition("ranker", path, "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)


def rows(n, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).astype(np.float32)
    label = (rng.random(n) < 1 / (1 + np.exp(-x / 2))).astype(np.float32)
    return {"user": rng.integers(0, 50, n), "x": x, "shop": rng.normal(shift, 1, n).astype(np.float32)}, label


def taught(definition, columns, label):
    """The drift report of a new learner after these rows, scored by the base."""
    drift = new_learner(definition, Settings()).adaptation.drift
    base = columns["x"] / 2
    drift.update({name: columns[name] for name in ("user", "shop")}, base, base, label)
    return drift


def test_what_was_saved_is_loaded_and_names_every_column_that_corrections_can_read(definition):
    made = measure(definition, *rows(5_000))
    assert save(definition, made) == path_of(definition) == definition.base.with_name("ranker.reference")
    found = load(definition)
    assert found.digest == made.digest
    assert found.rows == 5_000 - 5_000 % 64
    assert found.usual.keys() == {"user", "x", "shop", "score"}
    assert found.bound.keys() == {"x", "shop", "score"}


def test_without_a_file_there_is_none_and_the_stream_shows_what_is_usual(definition):
    assert load(definition) is None
    assert not taught(definition, *rows(640)).report()["watching"]


def test_drift_from_the_training_data_is_seen_in_the_first_rows(definition):
    save(definition, measure(definition, *rows(5_000)))
    drift = taught(definition, *rows(1_920, 1, shift=2.0))
    assert drift.alarms == 1
    assert drift.last_alarm < 1_920
    assert drift.report()["quantities"]["shop"]["alarms"] == 1


def test_a_stream_like_the_training_data_raises_no_alarm_and_is_near_it(definition):
    save(definition, measure(definition, *rows(5_000)))
    drift = taught(definition, *rows(50_000, 1))
    report = drift.report()
    assert report["given"]
    assert (drift.alarms, report["reference"]) == (0, 4_992)
    assert max(column["psi"] for column in report["columns"].values()) < 0.05


def test_after_an_alarm_what_lasts_is_usual_and_its_distance_from_the_training_data_stays(definition):
    save(definition, measure(definition, *rows(5_000)))
    drift = taught(definition, *rows(60_000, 1, shift=2.0))
    report = drift.report()
    assert drift.alarms == 1
    assert report["columns"]["shop"]["psi"] > 1.0 > 0.1 > report["columns"]["score"]["psi"]


def test_string_ids_and_lists_are_taken_as_a_client_sends_them(definition):
    columns, label = rows(2_048)
    strings = columns | {"user": [f"user {u}" for u in columns["user"]], "shop": columns["shop"].tolist()}
    assert measure(definition, strings, label).usual["user"].sum() == 2_048


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, y: (c, y[:1_000]), "the reference has 1000 rows; expected at least 1024"),
        (lambda c, y: (c, np.where(np.arange(len(y)) == 7, 0.5, y)), "row 7 has the label 0.5; expected 0 or 1"),
        (lambda c, y: (c | {"x": c["x"][:-1]}, y), "column 'x' has 2047 rows and the label 2048"),
        (lambda c, y: ({n: c[n] for n in ("user", "x")}, y), "column 'shop' is missing; expected float32"),
        (lambda c, y: (c | {"x": np.full(2_048, np.nan, np.float32)}, y), "column 'x' holds nan at row 0"),
    ],
    ids=["too few", "no label", "ragged", "a column less", "no number"],
)
def test_rows_that_are_none_are_refused_by_name(definition, change, message):
    with pytest.raises(InvalidInput, match=message):
        measure(definition, *change(*rows(2_048)))


def test_the_reference_of_another_base_is_refused_with_what_to_do(definition):
    path = save(definition, measure(definition, *rows(2_048)))
    write_arrays(path, {**read_arrays(path), "base": np.zeros(16, np.uint8)})
    with pytest.raises(
        ConfigurationError, match=r"does not belong to the base ranker\.onnx; make it again with `riverdelta reference`"
    ):
        new_learner(definition, Settings())


def test_one_that_lacks_what_a_correction_reads_is_refused_with_what_it_has(definition):
    made = measure(definition, *rows(2_048))
    save(definition, Reference({}, {"score": made.usual["score"]}, made.bound, made.losses))
    with pytest.raises(Corrupt, match="expected losses, edges and usual"):
        new_learner(definition, Settings())
    fewer = {part: {n: a for n, a in getattr(made, part).items() if n != "shop"} for part in ("edges", "usual", "bound")}
    save(definition, Reference(**fewer, losses=made.losses))
    with pytest.raises(ConfigurationError, match="no number column 'shop', which a correction reads; it has"):
        new_learner(definition, Settings())


@given(st.data())
@examples(derandomize=True, max_examples=60)
def test_arrays_of_another_shape_or_range_are_refused(data):
    good = {
        "losses": np.full(3, 0.5),
        "edges/x": np.zeros(9, np.float32),
        "usual/x": np.ones(32, np.int64),
        "bound/x": np.full(10, 0.2),
    }
    assert Reference.of_arrays(good).rows == 32
    name = data.draw(st.sampled_from(sorted(good)))
    bad = data.draw(
        st.sampled_from(
            [None, good[name][:-1], good[name].astype(np.float16), good[name].reshape(1, -1)]
            + ([-good[name]] if name not in ("edges/x",) else [])
            + ([good[name] + 1.0] if name in ("losses", "bound/x") else [])
        )
    )
    broken = {n: a for n, a in good.items() if n != name} if bad is None else good | {name: bad}
    if bad is None and name == "bound/x":  # that of an id
        assert Reference.of_arrays(broken).bound == {}
        return
    with pytest.raises(Corrupt):
        Reference.of_arrays(broken)
    with pytest.raises(Corrupt, match="the reference has 'other/x'"):
        Reference.of_arrays(good | {"other/x": np.zeros(3)})


def test_a_saved_learner_goes_on_and_another_reference_begins_anew(definition, caplog):
    save(definition, measure(definition, *rows(5_000)))
    drift = taught(definition, *rows(10_000, 1))
    again = new_learner(definition, Settings()).adaptation.drift
    again.load(drift.state())
    assert again.examples == 10_000
    save(definition, measure(definition, *rows(5_000, 2)))
    with pytest.raises(Corrupt, match="belongs to another reference"):
        new_learner(definition, Settings()).adaptation.drift.load(drift.state())
