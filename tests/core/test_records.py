"""Records survive their bytes, and damaged bytes are named as such."""

import contextlib
import io
import json
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import DTYPES
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import Control, Feedback, Impressions, Tick, decode, encode


def impressions(n, width=3, seed=0):
    rng = np.random.default_rng(seed)
    floats = [rng.normal(size=n).astype(np.float32) for _ in range(4)]
    columns = {
        "user": rng.integers(-(2**63), 2**63 - 1, n),
        "hour": floats[0],
        "vec": rng.normal(size=(n, width)).astype(np.float32),
    }
    whole = [np.arange(n) + i for i in range(3)]
    traces = {request: f"{request + 1:032x}" for request in range(0, n, 2)}
    return Impressions(7, np.arange(n), np.zeros(n, np.int32), rng.random(n), *whole, *floats, columns, traces)


def feedback(n):
    ints = np.arange(n)
    return Feedback(ints, ints + 1, ints.astype(np.int32), np.ones(n, np.float32), np.ones(n), ints % 2 == 0, ints - 5)


def same(a, b):
    assert type(a) is type(b)
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, dict):
            assert value.keys() == other.keys()
            for key in value:
                assert type(value[key]) is type(other[key])
                assert np.array_equal(value[key], other[key])
                assert getattr(value[key], "dtype", None) == getattr(other[key], "dtype", None)
        elif isinstance(value, np.ndarray):
            assert value.dtype == other.dtype
            assert np.array_equal(value, other, equal_nan=value.dtype.kind == "f")
        else:
            assert value == other


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(1, 5))
def test_impressions_come_back_as_they_were(n, width):
    same(impressions(n, width), decode(encode(impressions(n, width))))


def held(array):
    return array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes()


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.text(max_size=5), st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), max_size=4
    ),
    st.integers(0, 4),
    st.integers(0, 2**32),
)
def test_inputs_of_any_type_and_shape_come_back_as_they_were(columns, n, seed):
    rng = np.random.default_rng(seed)
    made = {}
    for name, (dtype, shape) in columns.items():
        if dtype == "string":
            made[name] = np.array(rng.choice(["", "ann", "日本", "a\0b"], (n, *shape)), object)
            continue
        # Any bits: the largest ids, and floats that are not finite.
        bits = rng.integers(0, 256, (n, *shape, np.dtype(dtype).itemsize)).astype(np.uint8)
        made[name] = bits[..., 0] > 127 if dtype == "bool" else bits.view(dtype)[..., 0]
    back = decode(encode(replace(impressions(n), columns=made))).columns
    assert {name: held(array) for name, array in back.items()} == {name: held(array) for name, array in made.items()}


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2**32), st.sampled_from([0.0, 1.0, float("nan")]), st.booleans()), max_size=20))
def test_feedback_comes_back_as_it_was(items):
    n = len(items)
    requests, labels, late = zip(*items, strict=True) if items else ((), (), ())
    record = Feedback(
        np.ones(n, np.int64),
        np.array(requests, np.int64),
        np.zeros(n, np.int32),
        np.array(labels, np.float32),
        np.ones(n),
        np.array(late, np.bool_),
        np.array(requests, np.int64) - 5,
    )
    same(record, decode(encode(record)))


def test_weights_and_times_come_back_and_take_no_byte_where_no_item_has_one():
    ints = np.arange(3)
    plain = Feedback(ints, ints, ints.astype(np.int32), np.ones(3, np.float32), np.ones(3), ints > 1, ints)
    ones, nan = np.ones(3, np.float32), np.full(3, np.nan)
    assert encode(replace(plain, weight=ones, event=nan)) == encode(plain)
    assert decode(encode(plain)).weights.tolist() == [1, 1, 1]
    assert np.isnan(decode(encode(plain)).events).all()
    back = decode(encode(replace(plain, weight=np.float32([0, 1, 100]), event=np.array([np.nan, 1e9, 2e9]))))
    assert back.weights.tolist() == [0, 1, 100]
    assert back.events.tolist()[1:] == [1e9, 2e9]


@pytest.mark.parametrize("weight", [-1.0, 100.5, np.nan, np.inf])
def test_a_record_whose_weight_no_service_accepted_is_corrupt(weight):
    ints = np.arange(1)
    record = Feedback(ints, ints, ints.astype(np.int32), np.ones(1, np.float32), np.ones(1), ints > 1, ints)
    with pytest.raises(Corrupt, match="a weight is not from 0 to 100"):
        decode(encode(replace(record, weight=np.float32([weight]))))


@pytest.mark.parametrize(
    "record", [Tick(1.5), Control("drift", {"alarms": 3}, 9.0), Instruction("rollback", 1, {"release": 3}, asked=4, time=9.0)]
)
def test_ticks_and_controls_come_back_as_they_were(record):
    assert decode(encode(record)) == record


def test_arrays_are_read_where_they_lie():
    assert not decode(encode(impressions(10))).base.flags.owndata


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_are_corrupt_and_never_anything_else(data):
    with pytest.raises(Corrupt):
        decode(data)


def test_a_record_cut_anywhere_is_corrupt():
    whole = encode(impressions(5))
    for at in range(0, len(whole) - 600, 37):
        with pytest.raises(Corrupt):
            decode(whole[:at])


@pytest.mark.parametrize("whole", [impressions(5), feedback(5)])
def test_a_record_that_lacks_a_column_is_corrupt_and_names_it(whole):
    for name in [f.name for f in fields(whole) if isinstance(getattr(whole, f.name), np.ndarray)]:
        with pa.ipc.open_stream(encode(whole)) as reader:
            lacking = reader.read_next_batch().drop_columns([name])
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, lacking.schema) as writer:
            writer.write_batch(lacking)
        with pytest.raises(Corrupt, match=f"not a journal record: .*'{name}'"):
            decode(sink.getvalue())


def test_a_record_of_which_any_byte_was_changed_is_read_or_corrupt_and_nothing_else():
    whole = encode(feedback(3))
    for at in range(len(whole)):
        for flip in (0x01, 0x80):
            with contextlib.suppress(Corrupt):
                decode(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])


def test_a_record_of_another_kind_is_corrupt():
    with pytest.raises(Corrupt, match="impression"):
        decode(b'{"kind": "impression"}')


@pytest.mark.parametrize("traces", [{"0": "short"}, {"0": 5}, {"x": "0" * 32}, {"0": "g" * 32}, ["0" * 32], "no JSON"])
def test_a_trace_that_is_none_is_corrupt(traces):
    reader = pa.ipc.open_stream(encode(impressions(2)))
    batch = reader.read_next_batch()
    body = traces if isinstance(traces, str) else json.dumps(traces)
    batch = batch.replace_schema_metadata({**reader.schema.metadata, b"traces": body.encode()})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(Corrupt, match="are not a journal record"):
        decode(sink.getvalue())
