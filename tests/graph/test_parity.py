"""Parity: what is compared, what is let through, and which correction is blamed."""

import numpy as np
import pytest

from riverdelta import Calibration, Entity, Linear
from riverdelta.checks.block import draw
from riverdelta.core.errors import ParityError
from riverdelta.core.features import Schema
from riverdelta.core.losses import Regression
from riverdelta.corrections.stack import Stack
from riverdelta.graph.merge import merge
from riverdelta.graph.parity import Parity, compare, corrections_of
from riverdelta.graph.signature import Signature

RANKER = """
ranker (int64[N] user, float[N, 2] x) => (float[N] y)
<float[2, 2] w = {0.5, -1.5, 2, 1}, int64[1] one = {1}>
{ vec = MatMul(x, w)  y = ReduceSum <keepdims = 0> (vec, one) }
"""
TAPS = {"features": "vec"}
SCHEMA = Schema.of({"user": "int64", "hour": "float32", "features": "float32[2]"})


@pytest.fixture
def merged(write, combine):
    def learn(stack):
        block = draw(SCHEMA, 200, 1)
        stack.learn(block.columns, block.offset, block.label, block.weight)

    stack = [Calibration(), Linear("user", "hour", slots=64), Entity("user", on=["features"], slots=64)]
    return combine(write(RANKER), stack, TAPS, {"hour": "float32"}, learn)


@pytest.fixture
def journal():
    """Rows as the journal keeps them: what the corrections read, and the base's logit; nothing else that the base reads."""
    block = draw(SCHEMA, 60, 2)
    return block.columns, block.offset


def part(merged, plain):
    model = corrections_of(merged.model, merged.stack, merged.schema, TAPS)
    return lambda feeds: plain(model.SerializeToString(), feeds)


def test_a_faithful_merge_passes_on_rows_without_the_bases_inputs(merged, journal, plain):
    parity = compare(part(merged, plain), merged.stack, *journal)
    assert parity.gap < 1e-5
    assert parity.rows == 60
    parity.check()


@pytest.mark.parametrize(
    ("table", "name"), [("calibration/line", "calibration"), ("linear/ids", "linear"), ("entity_user/mean", "entity_user")]
)
def test_the_correction_that_differs_is_named(merged, journal, plain, table, name):
    merged.stack.tables()[f"riverdelta/{table}"].values += np.float32(0.01)  # the stack moves on, the model does not
    parity = compare(part(merged, plain), merged.stack, *journal)
    assert parity.worst == name
    with pytest.raises(ParityError, match=f"most in {name}; at most 0.0001 is allowed"):
        parity.check()


def test_no_number_is_no_parity(merged, journal, plain):
    merged.stack.tables()["riverdelta/entity_user/mean"].values[:] = np.nan
    parity = compare(part(merged, plain), merged.stack, *journal)
    assert (parity.gap, parity.worst) == (float("inf"), "entity_user")
    with pytest.raises(ParityError):
        parity.check()


def test_logits_beyond_every_probability_do_not_count(merged, journal, plain):
    columns, base = journal
    parity = compare(part(merged, plain), merged.stack, columns, base * np.float32(1e9))
    parity.check()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_whose_inputs_are_not_finite_is_left_out(merged, journal, plain, bad):
    columns, base = journal
    base[3] = bad
    columns["hour"][5] = bad
    columns["features"][7, 1] = bad
    parity = compare(part(merged, plain), merged.stack, columns, base)
    assert parity.rows == 57
    parity.check()
    merged.stack.tables()["riverdelta/calibration/line"].values += np.float32(0.01)
    with pytest.raises(ParityError):
        compare(part(merged, plain), merged.stack, columns, base).check()


def test_no_rows_agree(merged, journal, plain):
    columns, base = journal
    parity = compare(part(merged, plain), merged.stack, {n: c[:0] for n, c in columns.items()}, base[:0])
    assert parity == Parity(0.0, "nothing", 0)
    parity.check()


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_values_of_any_unit_are_compared_by_their_size(write, plain, unit):
    signature = Signature.read(write("g (float[N] x) => (float[N] y) { y = Identity(x) }"), loss=Regression())
    stack = Stack([Calibration(), Entity("user", slots=64)], signature.loss)
    stack.bind(schema := Schema.of({"x": "float32", "user": "int64"}))
    rng = np.random.default_rng(3)
    columns, base = {"user": np.arange(60) % 4}, np.float32(unit * rng.normal(5, 1, (60, 1)))
    stack.learn(columns, base, np.float32(base[:, 0] * 1.5), np.ones(60, np.float32))
    model = merge(signature, stack, {}, Schema.of({"user": "int64"}))
    part = corrections_of(model, stack, schema, {}).SerializeToString()
    compare(lambda feeds: plain(part, feeds), stack, columns, base).check()

    def wrong(feeds):
        return {name: values * np.float32(1.001) for name, values in plain(part, feeds).items()}

    with pytest.raises(ParityError):
        compare(wrong, stack, columns, base).check()
