"""In words, what a definition learns otherwise than the one of a home; and what does not count."""

import onnx
import pytest

from river import linear_model, preprocessing
from riverdelta import Calibration, Entity, Linear, Lookup, River, Schema
from riverdelta.evaluation.drift import Adapt
from riverdelta.learning.definition import Definition
from riverdelta.learning.differences import differences
from riverdelta.learning.identity import describe, read

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit, float[N] other) {
  half = Constant<value = float {0.5}>()
  logit = Mul(x, half)
  other = Add(x, half)
}"""


@pytest.fixture
def define(tmp_path):
    """define(*corrections, half, …): a description, read back as a home would."""

    def make(*corrections, half="0.5", logit="logit", **more):
        path = tmp_path / f"ranker-{half}.onnx"
        onnx.save(onnx.parser.parse_model(RANKER.replace("0.5", half)), path)
        definition = Definition("ranker", path, logit, corrections=corrections, **more)
        return read(describe(definition).model_dump_json().encode())

    return make


def entity(**more):
    return Entity("user", **{"slots": 8, **more})


def river(**more):
    return River(preprocessing.StandardScaler() | linear_model.LogisticRegression(**more), features=("x",))


def likes(width=2.0):
    return Lookup("likes", key="user", table={1: [width, 0.0]})


@pytest.mark.parametrize(
    ("was", "here", "said"),
    [
        ([entity()], [entity(slots=4)], "Entity 'entity_user': slots is 4 here, and was 8"),
        ([entity()], [entity(clip=float("inf"))], "Entity 'entity_user': clip is inf here, and was 10.0"),
        ([entity()], [entity(on=("x",))], "Entity 'entity_user': on is ['x'] here, and was []"),
        ([Calibration(), entity()], [entity()], "correction 'calibration' was removed"),
        ([entity()], [Calibration(), entity()], "correction 'calibration' was added"),
        (
            [Calibration(), entity()],
            [entity(), Calibration()],
            "the order of the corrections is entity_user, calibration here, and was calibration, entity_user",
        ),
        (
            [entity().named("mine")],
            [Linear("user", slots=8).named("mine")],
            "correction 'mine' is a riverdelta.Linear here, and was a riverdelta.Entity",
        ),
        (
            [Linear("user", slots=8)],
            [Linear(("user", "user"), slots=8)],
            "Linear 'linear': features[0] is ['user', 'user'] here, and was 'user'",
        ),
        (
            [river()],
            [river(l2=0.5)],
            "River 'river': pipeline.steps.LogisticRegression.l2 is 0.5 here, and was 0.0",
        ),
    ],
)
def test_a_changed_correction_is_named_with_its_option(define, was, here, said):
    assert differences(define(*was), define(*here)) == [said]


def test_a_lookup_is_named_by_what_it_holds(define):
    (words,) = differences(define(entity(on=[likes()])), define(entity(on=[likes(3.0)])))
    assert words.startswith("Entity 'entity_user': on[0].contents is '")


def test_the_order_of_steps_counts(define):
    def scaled(*scalers):
        first, second = scalers
        return River(first | second | linear_model.LogisticRegression(), features=("x",))

    one, other = preprocessing.StandardScaler, preprocessing.MinMaxScaler
    (words,) = differences(define(scaled(one(), other())), define(scaled(other(), one())))
    assert "pipeline.steps is (MinMaxScaler=MinMaxScaler(), StandardScaler=StandardScaler(), LogisticRegression=" in words


def test_base_output_and_task_are_named(define):
    (words,) = differences(define(entity()), define(entity(), half="0.25"))
    assert words.startswith("the base file ranker-0.25.onnx differs: its digest is ")
    assert words.endswith(" (of ranker-0.5.onnx)")
    found = differences(define(entity()), define(entity(), logit="other"))
    assert found == ["the corrected output is 'other' as a logit here, and was 'logit' as a logit"]
    other = define(entity()).model_copy(update={"task": "Huber(delta=1.0)"})
    assert differences(define(entity()), other) == ["task is Huber(delta=1.0) here, and was LogLoss()"]


def test_what_a_correction_reads_is_compared_and_what_none_reads_is_not(define):
    tapped = {"columns": Schema.of({"hour": "float32"})}
    was = define(entity(on=["vec"]), taps={"vec": "logit", "spare": "x"}, **tapped)
    (words,) = differences(was, define(entity(on=["vec"]), taps={"vec": "other"}))
    assert words == "'vec' is the tap of tensor 'other', float32[N] here, and was the tap of tensor 'logit', float32[N]"
    was = define(Linear("hour", slots=8), columns=Schema.of({"hour": "int64"}))
    words, *_ = differences(was, define(Linear("hour", slots=8), **tapped))
    assert words == "'hour' is a column float32[N] here, and was a column int64[N]"


def test_what_does_not_change_learning_is_no_difference(define):
    was = define(entity())
    assert not differences(was, define(entity(offset="logit")))
    assert not differences(was, define(entity(variance=1 / 2, clip=10)))
    assert not differences(was, define(entity(), keep_inputs=True, slices={"user": [1]}, on_drift=Adapt()))
    assert not differences(was, define(entity(), columns=Schema.of({"hour": "float32"}), taps={"half": "other"}))


class Grown(Entity):
    """An Entity of a later version, with an option more."""

    def __init__(self, key, slots=8, decay=0.0):
        self.decay = decay
        super().__init__(key, slots=slots)


def test_an_option_that_one_version_lacks_counts_where_it_was_set(define):
    without = define(Grown("user"))
    was = without.model_copy(deep=True)
    del was.corrections[0].parameters["decay"]
    assert not differences(was, without)
    assert not differences(without, was)
    here = define(Grown("user", decay=0.5))
    assert differences(was, here) == ["Grown 'grown_user': decay is 0.5 here, and this option did not exist"]
    assert differences(here, was) == ["Grown 'grown_user': decay was 0.5, and this option no longer exists"]


def test_a_class_that_moved_to_another_module_is_the_same(define):
    was = define(Grown("user"))
    moved = was.model_copy(update={"corrections": [was.corrections[0].model_copy(update={"module": "elsewhere"})]})
    assert not differences(was, moved)
    moved = was.model_copy(update={"corrections": [was.corrections[0].model_copy(update={"module": "riverdelta"})]})
    (words,) = differences(was, moved)
    assert "is a riverdelta.Grown here" in words


def test_tables_of_another_shape_are_named_where_no_option_says_why(define):
    was = define(entity())
    other = was.model_copy(deep=True)
    other.corrections[0].tables["mean"] = [8, 2]
    (words,) = differences(was, other)
    assert words == "Entity 'entity_user': its tables are {'mean': [8, 2]} here, and were {'mean': [8, 1]}"
