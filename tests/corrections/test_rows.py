"""River's faces: rows, frames and blocks are learned alike, and what a column cannot hold is refused by row and name."""

import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.linear_model import LogisticRegression
from river.preprocessing import OneHotEncoder, StandardScaler

from riverdelta import Calibration, Entity, Linear, Lookup, Schema
from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.hashing import id_of
from riverdelta.river import River

SCHEMA = Schema.of({"user": "int64", "item": "int64", "price": "float32", "vec": "float32[3]"})
GENRES = Lookup("genres", "item", {i: [0.5, float(i)] for i in range(8)})
CORRECTIONS = {
    "calibration": Calibration(),
    "linear": Linear("user", ("user", "item"), "price", "vec", GENRES, slots=32),
    "linear by ftrl": Linear("user", "price", method="ftrl", l1=0.01, slots=32),
    "entity": Entity("user", on=["price", "vec", GENRES], slots=32),
    "entity of a cross": Entity(("user", "item"), slots=32, forget=0.9),
    "river": River(StandardScaler() | LogisticRegression(), ("price", "vec")),
    "river by categories": River(OneHotEncoder(drop_zeros=True) | LogisticRegression(), ("user",), slots=32),
}

#: Each kind as everything that it may be written as.
IDS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["ann", "", "7"]), st.integers(0, 9).map(np.int32))
FLOATS = st.floats(-1e6, 1e6, width=32)
NUMBERS = st.one_of(FLOATS, st.integers(-1000, 1000), FLOATS.map(np.float32), st.integers(-9, 9).map(np.int64))
VECTORS = st.one_of(*(st.lists(NUMBERS, min_size=3, max_size=3).map(make) for make in (list, tuple, np.array)))
ROWS = st.lists(
    st.tuples(
        st.fixed_dictionaries({"user": IDS, "item": IDS, "price": NUMBERS, "vec": VECTORS, "offset": st.floats(-8, 8)}),
        st.sampled_from([True, False, 0, 1, 1.0, np.int64(1), np.bool_(False), np.float32(0)]),
    ),
    min_size=1,
    max_size=8,
)
#: What each kind of column refuses.
NOT_IDS = [7.0, np.float32(7), True, np.bool_(True), None, float("nan"), Decimal(7), 2**63, [7], pd.NA]
NOT_NUMBERS = ["7", True, np.bool_(True), None, float("nan"), float("inf"), 1e39, 10**400, Decimal(7), [7.0], pd.NA, 1j]
NOT_VECTORS = [0.5, "abc", None, [1.0, 2.0], [1.0, 2.0, float("nan")], [1.0, 2.0, True], [1, 2, "3"], [[1.0], [2.0], [3.0]]]
REFUSED = [("user", bad) for bad in NOT_IDS] + [("price", bad) for bad in NOT_NUMBERS] + [("vec", bad) for bad in NOT_VECTORS]
GOOD = {"user": "ann", "item": 3, "price": 2.5, "vec": [1.0, 2.0, 3.0], "offset": 0.5}


def bound(name):
    made = CORRECTIONS[name].clone()
    made.bind(SCHEMA)
    return made


def state(correction):
    correction.sync()
    tables = {f"served {key}": table.values.tobytes() for key, table in correction.served.items()}
    return tables | {key: array.tobytes() for key, array in correction.learner.items()}


@pytest.mark.parametrize("name", CORRECTIONS)
@settings(max_examples=30)
@given(examples=ROWS)
def test_rows_one_by_one_a_frame_and_a_block_leave_the_same_state(name, examples):
    one, many, block = bound(name), bound(name), bound(name)
    for x, y in examples:
        one.learn_one(x, y)
    rows, labels = [x for x, _ in examples], [y for _, y in examples]
    many.learn_many(pd.DataFrame({key: pd.Series([x[key] for x in rows], dtype=object) for key in GOOD}), labels)
    columns = {
        "user": np.array([id_of(x["user"]) for x in rows], np.int64),
        "item": np.array([id_of(x["item"]) for x in rows], np.int64),
        "price": np.array([x["price"] for x in rows], np.float32),
        "vec": np.array([[float(v) for v in x["vec"]] for x in rows], np.float32),
    }
    offset = np.array([[x["offset"]] for x in rows], np.float32)
    block.learn(columns, offset, np.array([float(y) for y in labels], np.float32), np.ones(len(rows), np.float32))
    assert state(one) == state(many) == state(block)


@pytest.mark.parametrize(("column", "bad"), REFUSED, ids=str)
@pytest.mark.parametrize("name", ["linear", "entity", "river"])
def test_a_value_of_another_kind_is_refused_by_row_and_name_and_nothing_of_its_call_is_learned(name, column, bad):
    made = bound(name)
    if column not in made.reads:
        return
    made.learn_one(GOOD, True)
    before = state(made)
    with pytest.raises(InvalidInput, match=f"row 0 has .* for '{column}'"):
        made.learn_one(GOOD | {column: bad}, True)
    with pytest.raises(InvalidInput, match=f"row 1 has .* for '{column}'"):
        made._learn([GOOD, GOOD | {column: bad}, GOOD], [True] * 3, 1.0)
    with pytest.raises(InvalidInput, match=f"row 0 has .* for '{column}'"):
        made.predict_one(GOOD | {column: bad})
    assert state(made) == before


@pytest.mark.parametrize("bad", ["0", "no", -1, 0.3, 1 - 1e-9, 1e-50, float("nan"), None, 2, Decimal(1), "True", [1]], ids=str)
@pytest.mark.parametrize("name", CORRECTIONS)
def test_an_unknown_label_is_refused_by_row_and_nothing_is_learned(name, bad):
    made = bound(name)
    before = state(made)
    with pytest.raises(InvalidInput, match=r"row 0 has the label .*expected 0 or 1|labels of shape"):
        made.learn_one(GOOD, bad)
    with pytest.raises(InvalidInput, match=r"row 1 has the label .*expected 0 or 1"):
        made.learn_many(pd.DataFrame([GOOD, GOOD]), [True, bad])
    assert state(made) == before


@pytest.mark.parametrize("w", [-1.0, float("nan"), float("inf"), "1", True, None])
def test_an_importance_that_is_not_a_number_of_at_least_0_is_refused(w):
    with pytest.raises(InvalidInput, match=r"w is .*; expected a finite number of at least 0"):
        Entity("user").learn_one(GOOD, True, w=w)


def test_a_first_row_proves_what_it_can():
    linear = Linear("user", ("item", "shop"), "price", "vec", GENRES, slots=32)
    linear.learn_one(GOOD | {"shop": 4}, True)
    linear.learn_one(GOOD | {"user": 2**62, "shop": "b", "price": 3}, True)
    kinds = {name: str(column) for name, column in linear._schema.items()}
    ids = dict.fromkeys(("user", "item", "shop"), "int64[N]")
    assert kinds == ids | {"price": "float32[N]", "vec": "float32[N, 3]"}
    entity = Entity("user", on="price", slots=32)
    entity.learn_one({"user": 3, "price": 3, "offset": 0}, True)
    assert {name: column.kind for name, column in entity._schema.items()} == {"user": "id", "price": "scalar"}


@pytest.mark.parametrize("price", [3, np.int64(3)])
def test_an_integer_that_may_be_an_id_or_a_number_is_asked_for_with_the_line_to_write(price):
    linear = Linear("price", ("user", "item"), slots=32)
    x = {"price": price, "user": 1, "item": 2, "offset": 0.0}
    with pytest.raises(ConfigurationError, match="'price' is an id or a number") as asked:
        linear.learn_one(x, True)
    lines = re.fullmatch(r".*write (.*) if it is an id, or (.*) if it is a number", str(asked.value)).groups()
    for line, kind in zip(lines, ("id", "scalar"), strict=True):
        made = linear.clone()
        exec(line, {"correction": made, "Schema": Schema})
        made.learn_one(x, True)
        assert made._schema["price"].kind == kind


@pytest.mark.parametrize("name", CORRECTIONS)
def test_binding_again_never_discards_what_was_learned(name):
    made = bound(name)
    made.bind(SCHEMA)
    for y in (True, False, True):
        made.learn_one(GOOD, y)
    before = state(made)
    with pytest.raises(ConfigurationError, match=r"has learned from examples.*correction = correction\.clone\(\)"):
        made.bind(SCHEMA)
    assert state(made) == before
    made.clone().bind(SCHEMA)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_what_is_not_a_schema_is_refused_with_the_line_to_write(name):
    with pytest.raises(ConfigurationError, match=r"bind got \{'price': 'float32'\}; expected a Schema, such as Schema.of"):
        CORRECTIONS[name].clone().bind({"price": "float32"})


@pytest.mark.parametrize("frame", [GOOD, np.zeros((1, 2)), [GOOD]], ids=lambda frame: type(frame).__name__)
def test_what_is_not_a_frame_is_refused(frame):
    for face in (
        lambda X: Entity("user").learn_many(X, [True]),
        Entity("user").predict_many,
        Entity("user").predict_proba_many,
    ):
        with pytest.raises(InvalidInput, match=rf"X is a {type(frame).__name__}; expected a data frame"):
            face(frame)


def test_a_series_of_labels_is_never_paired_with_rows_of_another_index():
    made, frame = bound("entity"), pd.DataFrame([GOOD, GOOD], index=[5, 6])
    before = state(made)
    for index in ([6, 5], [0, 1], [5]):
        with pytest.raises(InvalidInput, match=r"y has the index .* and X .*; expected the same: y\.loc\[X\.index\]"):
            made.learn_many(frame, pd.Series([True, False][: len(index)], index=index))
    assert state(made) == before
    made.learn_many(frame, pd.Series([True, False], index=[5, 6]))
    made.learn_many(frame, [True, False])


def test_ids_never_collide_by_rounding():
    linear = Linear("item", slots=2**12, offset=None)
    linear.bind(Schema.of({"item": "int64"}))
    for _ in range(50):
        linear.learn_one({"item": 2**53}, True)
        linear.learn_one({"item": 2**53 + 1}, False)
    assert linear.predict_one({"item": 2**53}) is True
    assert linear.predict_one({"item": 2**53 + 1}) is False


@pytest.mark.parametrize("bad", [None, True, Decimal(1), float("nan")])
def test_a_refused_first_row_decides_nothing(bad):
    linear = Linear("price", "size", slots=32, offset=None)
    with pytest.raises(InvalidInput, match=r"row 0 has .* for 'size'"):
        linear.learn_one({"price": "a", "size": bad}, True)
    linear.learn_one({"price": 2.5, "size": 1.5}, True)
    assert linear._schema["price"].kind == "scalar"


def test_a_clone_keeps_the_kinds_and_nothing_that_was_learned():
    made = bound("linear")
    made.learn_one(GOOD, True)
    fresh = made.clone()
    assert fresh.predict_proba_one(GOOD | {"offset": 0.0})[True] == 0.5
    fresh.learn_one(GOOD, True)
    assert state(fresh) == state(made)


@pytest.mark.parametrize("learned", [False, True])
def test_an_absent_feature_or_offset_is_refused_by_name_with_the_line_to_write(learned):
    made = Entity("user", on="price", slots=32)
    if learned:
        made.learn_one(GOOD, True)
    for face in (lambda x: made.learn_one(x, True), made.predict_one, made.predict_proba_one):
        with pytest.raises(InvalidInput, match=r"row 0 lacks 'price', which Entity reads: .*write \{'price': 0, \*\*x\}"):
            face({"user": 1, "offset": 0.0})
        with pytest.raises(InvalidInput, match=r"row 0 lacks the offset 'offset'.*offset=None"):
            face({"user": 1, "price": 2.0})


def test_without_a_base_there_is_no_offset_to_give():
    alone, based = Entity("user", slots=32, offset=None), Entity("user", slots=32)
    for y in (True, True, False):
        alone.learn_one({"user": 1}, y)
        based.learn_one({"user": 1, "offset": 0.0}, y)
    assert state(alone) == state(based)


@pytest.mark.parametrize("bad", ["0.5", None, True, float("nan"), [0.5, 0.5]])
def test_an_offset_that_is_not_a_number_is_refused_by_row(bad):
    with pytest.raises(InvalidInput, match=r"row 0 has .* for 'offset'"):
        Calibration().learn_one({"offset": bad}, True)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_an_empty_frame_changes_nothing_and_has_no_predictions(name):
    for made in (bound(name), CORRECTIONS[name].clone()):
        empty = pd.DataFrame([GOOD], index=pd.Index([7], name="row"))[:0]
        before = state(made) if "served" in vars(made) else None
        made.learn_many(empty, pd.Series([], dtype=bool))
        for predicted in (made.predict_many(empty), made.predict_proba_many(empty)):
            assert len(predicted) == 0
            assert predicted.index.name == "row"
        assert before is None or state(made) == before


def test_rows_without_a_label_and_columns_twice_are_refused():
    frame = pd.DataFrame([GOOD, GOOD])
    with pytest.raises(InvalidInput, match=r"2 rows and labels of shape \[1\]"):
        Entity("user").learn_many(frame, [True])
    with pytest.raises(InvalidInput, match="the column 'user' twice"):
        Entity("user").learn_many(pd.concat([frame, frame[["user"]]], axis=1), [True, False])
