"""The stack: corrections in order, as one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.linear_model import LinearRegression, LogisticRegression
from river.preprocessing import StandardScaler

from riverdelta import Calibration, Entity, Linear, Ranking, Schema, Stack
from riverdelta.checks.block import draw
from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.river import River

SCHEMA = Schema.of({"u": "int64", "i": "int64", "h": "float32"})


def new(slots=64):
    stack = Stack([Calibration(), Linear("u", "h", slots=slots), Entity("u", slots=slots), Entity("i", slots=slots)])
    stack.bind(SCHEMA)
    return stack


def learn(stack, block):
    return stack.learn(block.columns, block.offset, block.label, block.weight)


def test_each_corrections_logit_is_the_next_ones_offset():
    stack, block = new(), draw(SCHEMA, 50, 0)
    learn(stack, block)
    logit = block.offset
    for correction, traced in zip(stack.corrections, stack.trace(block.columns, block.offset), strict=True):
        logit = correction.predict(block.columns, logit)
        assert np.array_equal(logit, traced)
    assert np.array_equal(stack.predict(block.columns, block.offset), logit)


def test_a_block_through_one_correction_at_a_time_is_row_by_row_through_all():
    whole, rows, block = new(), new(), draw(SCHEMA, 120, 1)
    expected = learn(whole, block)
    got = np.concatenate([learn(rows, block[i : i + 1]) for i in range(len(block))])
    assert got.tobytes() == expected.tobytes()
    assert rows.digest() == whole.digest()


def test_rows_examined_alike_teach_an_additive_correction_what_rows_all_examined_do():
    """The examination of a list is then a constant of its scores; those of a scale take clicks by their weights."""
    made, block = [], draw(SCHEMA, 80, 4, Ranking())
    for share in (None, 1.0, 0.25):
        pipeline = River(StandardScaler() | LinearRegression(), ("h",))
        stack = Stack([Linear("u", "h", slots=64), Entity("i", slots=64), pipeline], Ranking())
        stack.bind(SCHEMA)
        propensity = None if share is None else np.full(len(block), share, np.float32)
        weight = block.weight if share is None else block.weight / propensity
        raw = stack.learn(block.columns, block.offset, block.label, weight, block.group, propensity)
        made.append((raw, stack.predict(block.columns, block.offset)))
    assert [made[0][i].tobytes() for i in (0, 1)] == [made[1][i].tobytes() for i in (0, 1)]
    np.testing.assert_allclose(made[0], made[2], atol=1e-4)


def test_it_learns_what_its_corrections_can_tell():
    stack, block = new(), draw(SCHEMA, 4000, 2)
    corrected = learn(stack, block)[2000:, 0].astype(float)
    base, label = block.offset[2000:, 0].astype(float), block.label[2000:]

    def loss(z):
        return float(np.mean(np.logaddexp(0, z) - label * z))

    assert loss(corrected) < 0.9 * loss(base)


def test_names_are_unique_and_say_what_is_corrected():
    stack = Stack([Entity("u", slots=8), Entity("u", slots=8), Calibration()])
    assert stack.names == ("entity_u_1", "entity_u_2", "calibration")


class Plain(Calibration):
    """A third party's, which knows of no names."""


def test_a_correction_can_be_named_whoever_wrote_it_and_its_copies_and_its_state_are_named_too():
    stack = Stack([c.clone() for c in (Plain().named("slow"), Calibration(), Plain())])
    stack.bind(Schema())
    assert stack.names == ("slow", "calibration", "plain")
    assert "slow/served/line" in stack.state()
    with pytest.raises(ConfigurationError, match=r"name is 'a/b'; expected 1 to 64 letters"):
        Plain().named("a/b")


def test_a_name_leaves_the_others_as_they_were_and_is_part_of_what_a_home_belongs_to():
    def made(*corrections):
        stack = Stack(corrections)
        stack.bind(Schema())
        return stack.fingerprint_of_0_1()

    assert made(Calibration()) != made(Calibration().named("slow"))
    assert Stack([Entity("u"), Entity("u").named("fast")]).names == ("entity_u", "fast")


@pytest.mark.parametrize(
    ("corrections", "name"),
    [
        ((Entity("a"), Entity("a"), Entity("a_2")), "entity_a_2"),
        ((Calibration(), Entity("a").named("calibration")), "calibration"),
        ((Calibration().named("one"), Entity("a").named("one")), "one"),
    ],
)
def test_two_corrections_of_one_name_are_refused_with_both_and_what_to_do(corrections, name):
    with pytest.raises(ConfigurationError, match=rf"and .*would both be called '{name}'; give one .*\.named\("):
        Stack(corrections)


def test_state_of_another_stack_is_refused_by_the_name_of_what_differs():
    other = Stack([Calibration(), Linear("u", "h", slots=64), Entity("u", slots=64)])
    other.bind(SCHEMA)
    with pytest.raises(Corrupt, match="entity_i/served/mean"):
        new().load(other.state())
    with pytest.raises(Corrupt, match=r"float32\[32, 1\]; expected float32\[64, 1\]"):
        new().load(new(slots=32).state())


class Refuses(Entity):
    """It finds out that it cannot use its arrays when it derives something from them."""

    def restore(self):
        if self.learner["square"][0] == 120:
            raise Corrupt("120 rows")
        super().restore()


@pytest.mark.parametrize("how", ["an array is missing", "an array has another shape", "a correction refuses it"])
def test_a_state_that_cannot_be_loaded_is_not_loaded_in_part(how):
    def made(entity=Refuses):
        each = entity("u", slots=64).named("refuses")
        stack = Stack([Calibration(), Linear("u", "h", slots=64), each, River(LogisticRegression(), ("h",))])
        stack.bind(SCHEMA)
        return stack

    mine, theirs = made(), made(Entity)
    learn(mine, draw(SCHEMA, 50, 3))
    learn(theirs, draw(SCHEMA, 120 if how == "a correction refuses it" else 60, 4))
    state, before, last = dict(theirs.state()), mine.digest(), "refuses/learner/present"
    if how == "an array is missing":
        del state[last]
    elif how == "an array has another shape":
        state[last] = np.zeros(9)
    with pytest.raises(Corrupt):
        mine.load(state)
    assert mine.digest() == before
    again = made()
    learn(again, draw(SCHEMA, 50, 3))
    for stack in (mine, again):
        learn(stack, draw(SCHEMA, 40, 5))
    assert mine.digest() == again.digest()


def test_the_fingerprint_tells_settings_apart():
    assert new().fingerprint_of_0_1() == new().fingerprint_of_0_1() != new(slots=32).fingerprint_of_0_1()


def test_what_is_no_correction_is_refused():
    with pytest.raises(ConfigurationError, match="expected corrections"):
        Stack(["calibration"])


def test_an_undeclared_column_is_refused_when_the_stack_is_bound():
    with pytest.raises(ConfigurationError, match="did you mean u"):
        Stack([Entity("uu", slots=8)]).bind(SCHEMA)


ONE = np.zeros((2, 1), np.float32)
COLUMNS = {"u": np.arange(2), "i": np.arange(2), "h": np.zeros(2, np.float32)}


@pytest.mark.parametrize("bad", [-1.0, 0.3, np.nan, 2.0, np.inf])
def test_a_label_that_the_loss_does_not_know_is_refused_by_row_and_nothing_is_learned(bad):
    stack = new()
    before = stack.digest()
    for label in (np.array([1.0, bad]), np.array([1.0, bad], np.float32)):
        with pytest.raises(InvalidInput, match=r"row 1 has the label .*; expected 0 or 1"):
            stack.learn(COLUMNS, ONE, label, ONE[:, 0] + 1)
    assert stack.digest() == before


def test_labels_of_another_type_are_learned_as_the_numbers_that_they_are():
    digests = set()
    for label in (np.array([1.0, 0.0], np.float32), np.array([1.0, 0.0]), np.array([1, 0]), np.array([True, False])):
        stack = new()
        stack.learn(COLUMNS, ONE, label, ONE[:, 0] + 1)
        digests.add(stack.digest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"base": np.zeros((2, 1))},
            r"offset is float64\[2, 1\]; expected float32\[2, 1\] .* np\.array\(offset, np\.float32\)",
        ),
        ({"base": np.zeros((2, 3), np.float32)}, r"offset is float32\[2, 3\]; expected float32\[2, 1\]"),
        ({"base": np.zeros(2, np.float32)}, r"offset is float32\[2\]; expected float32\[2, 1\]"),
        ({"base": np.zeros((4, 1), np.float32)[::2]}, "in C order"),
        ({"label": np.zeros(1, np.float32)}, r"label is float32\[1\]; expected float32\[2\]"),
        ({"weight": np.ones(2)}, r"weight is float64\[2\]; expected float32\[2\]"),
        ({"weight": np.ones(3, np.float32)}, r"weight is float32\[3\]; expected float32\[2\]"),
        ({"u": np.zeros(2)}, r"column 'u' is float64\[2\]; expected int64\[N\] of 2 rows, as of np\.array\(u, np\.int64\)"),
        ({"u": np.zeros(2, np.uint64)}, r"column 'u' is uint64\[2\]; expected int64\[N\]"),
        ({"u": np.zeros(1, np.int64)}, r"column 'u' is int64\[1\]; expected int64\[N\] of 2 rows"),
        ({"h": np.zeros(1, np.float32)}, r"column 'h' is float32\[1\]; expected float32\[N\] of 2 rows"),
        ({"h": np.zeros(2)}, r"column 'h' is float64\[2\]; expected float32\[N\]"),
        ({"base": [[0.0], [0.0]]}, r"offset is a list; expected float32\[2, 1\]"),
        ({"h": [0.0, 0.0]}, r"column 'h' is a list; expected float32\[N\]"),
        ({"h": None}, r"column 'h' is missing; expected float32\[N\]"),
    ],
    ids=lambda v: "" if isinstance(v, dict) else v,
)
def test_a_block_that_no_kernel_can_take_is_refused_by_array_and_shape_and_nothing_is_learned(changed, message):
    stack = new()
    before = stack.digest()
    given = {"base": ONE, "label": ONE[:, 0] + 1, "weight": ONE[:, 0] + 1, **COLUMNS} | changed
    columns = {name: given[name] for name in SCHEMA}
    if not {"label", "weight"} & changed.keys():
        with pytest.raises(InvalidInput, match=message):
            stack.predict(columns, given["base"])
    for learner in (stack, stack.corrections[1]):
        with pytest.raises(InvalidInput, match=message):
            learner.learn(columns, given["base"], given["label"], given["weight"])
    assert stack.digest() == before


def test_a_block_that_a_kernel_would_refuse_is_not_learned_by_a_river_pipeline_before_it():
    stack = Stack([River(LogisticRegression(), ("h",)), Linear("u", slots=8), Entity("u", slots=8)])
    stack.bind(SCHEMA)
    before = stack.digest()
    locked = ONE.copy()
    locked.flags.writeable = False
    good = {"base": ONE, "label": ONE[:, 0], "weight": ONE[:, 0]}
    wrong = [("weight", np.ones(2)), ("weight", locked[:, 0]), ("label", locked[:, 0]), ("base", locked)]
    for name, array in wrong:
        with pytest.raises(InvalidInput, match="offset is" if name == "base" else f"{name} is"):
            stack.learn(COLUMNS, *(good | {name: array}).values())
    assert stack.digest() == before


#: A number that means "missing", Unix times in seconds and in nanoseconds, and floats at their ends.
ABSURD = [-999.0, 1e6, 1.7e9, 1.7e18, 3e38, -3e38, 1e-30]
ROWS = 1_500


def pipeline():
    made = Stack(
        [
            Calibration(),
            Linear("u", "h", slots=64),
            Entity("u", on=["h"], slots=64),
            River(StandardScaler() | LogisticRegression(), ("h",)),
        ]
    )
    made.bind(SCHEMA)
    return made


def telling(seed=0):
    """Return columns, a base and labels, of which both columns and base tell something."""
    rng = np.random.default_rng(seed)
    h, base, u = rng.normal(size=ROWS), rng.normal(size=ROWS), rng.integers(0, 4, ROWS)
    label = rng.random(ROWS) < 1 / (1 + np.exp(-(2 * base + h + u - 1.5)))
    return {"u": u, "i": u, "h": h.astype(np.float32)}, base.astype(np.float32)[:, None], label.astype(np.float32)


@given(
    st.lists(st.tuples(st.integers(0, ROWS - 1) | st.integers(0, 7), st.sampled_from(ABSURD), st.booleans()), max_size=6),
    st.sampled_from([None, 0.0, 0.5]),
)
@settings(derandomize=True, max_examples=40, deadline=None)
def test_a_few_absurd_numbers_and_logits_anywhere_cost_the_other_rows_next_to_nothing(rows, keep):
    losses, others = [], np.ones(ROWS, bool)
    others[[at for at, _, _ in rows]] = False
    for odd in ((), rows):
        stack, (columns, base, label) = pipeline(), telling()
        for at, value, in_base in odd:
            (base[:, 0] if in_base else columns["h"])[at] = value
        z = []
        for block in (slice(0, 700), slice(700, ROWS)):
            part = {name: np.ascontiguousarray(column[block]) for name, column in columns.items()}
            rest = np.ascontiguousarray(base[block]), label[block], np.ones(len(label[block]), np.float32)
            z.append(stack.learn(part, *rest)[:, 0].astype(np.float64))
            if keep is not None:
                before = stack.predict(part, rest[0])
                stack.inflate(keep)
                assert stack.predict(part, rest[0]).tobytes() == before.tobytes()
        raw = np.concatenate(z)
        losses.append((np.logaddexp(0, raw) - label * raw)[others].mean())
        assert all(np.isfinite(array).all() for array in stack.state().values() if array.dtype.kind == "f")
    assert losses[1] < losses[0] + 0.03


@pytest.mark.parametrize(
    "make", [Calibration, lambda: Linear("h"), lambda: Entity("u", on=["h"], slots=64)], ids=["calibration", "linear", "entity"]
)
def test_rows_and_frames_with_absurd_numbers_are_learned_like_the_block_and_predicted_like_it(make):
    columns, base, label = telling(1)
    count = 60
    columns["h"][[0, 9, 30]] = -999, 3e38, 1.7e18
    base[[0, 11, 31], 0] = 1e9, -3e38, 1.7e9
    frame = pd.DataFrame({name: column[:count] for name, column in columns.items()} | {"offset": base[:count, 0]})
    one, many, block = make(), make(), make()
    block.bind(SCHEMA)
    for x, y in zip(frame.to_dict("records"), label[:count].tolist(), strict=True):
        one.learn_one(x, bool(y))
    many.learn_many(frame, pd.Series(label[:count] > 0))
    part = {name: columns[name][:count] for name in block.reads}
    block.learn(part, base[:count], label[:count], np.ones(count, np.float32))
    states = [
        [t.values.tobytes() for t in c.served.values()] + [a.tobytes() for a in c.learner.values()] for c in (one, many, block)
    ]
    assert states[0] == states[1] == states[2]
    chances = many.predict_proba_many(frame)[True].to_numpy()
    assert [one.predict_proba_one(x)[True] for x in frame.to_dict("records")] == pytest.approx(chances, abs=1e-6)
    assert ((chances >= 0) & (chances <= 1)).all()
