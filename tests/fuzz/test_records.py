"""Journal records: whatever their bytes become, they are a record or `Corrupt`."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import OUTPUTS, Control, Feedback, Impressions, Tick, decode, encode

FUZZ = settings.get_profile("fuzz")
EDITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4)
INT64 = st.integers(-(2**63), 2**63 - 1)
DTYPES = {
    Impressions: "request int64 index int32 time float64 release int64 swap int64 position int64 base float32 "
    "corrected float32 served float32 propensity float32",
    Feedback: "incarnation int64 request int64 index int32 label float32 time float64 late bool source int64",
}
PAIRS = {cls: list(zip(text.split()[::2], text.split()[1::2], strict=True)) for cls, text in DTYPES.items()}
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.text(max_size=9),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=3), value, max_size=3),
    max_leaves=6,
)


def record_of(kind, n, width, seed):
    """Any record that the service could write: its arrays are random bits, NaNs of every kind among them."""
    rng = np.random.default_rng(seed)

    def bits(dtype, *shape):
        values = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), "u1" if dtype == "bool" else dtype)
        return (values % 2 == 1 if dtype == "bool" else values).reshape(shape)

    if kind is Tick:
        return Tick(float(rng.normal() * 10.0 ** rng.integers(-300, 10)))
    arrays = {name: bits(dtype, n, *([1 + width % 2] if name in OUTPUTS else [])) for name, dtype in PAIRS[kind]}
    if kind is Feedback:
        return Feedback(**arrays)
    columns = {"id": bits("int64", n), "odd: name/ü": bits("float32", n), "vec": bits("float32", n, width)}
    return Impressions(incarnation=int(rng.integers(-(2**63), 2**63 - 1)), columns=columns, **arrays)


def parts(record):
    """The record's values by name, arrays as (dtype, shape, bytes): equal means equal bit for bit."""
    named = {**vars(record), **{f"column {k}": v for k, v in getattr(record, "columns", {}).items()}, "columns": None}
    return type(record), {k: (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for k, v in named.items()}


def proper(record):
    """Whether a decoded record is one that the learner could be given: every field of its type, every array of one length."""
    if isinstance(record, Tick | Control | Instruction):
        return isinstance(record.time, int | float)
    arrays = [getattr(record, name) for name, _ in PAIRS[type(record)]]
    typed = [(a.dtype.name, a.ndim) for a in arrays] == [(dtype, 1 + (name in OUTPUTS)) for name, dtype in PAIRS[type(record)]]
    columns = list(getattr(record, "columns", {}).values())
    # Read to the last byte: a length that passes its buffer ends the process here.
    return typed and {len(a) for a in [*arrays, *columns]} == {len(record)} and all(a.tobytes() is not None for a in columns)


@settings(FUZZ)
@given(st.sampled_from([Impressions, Feedback, Tick]), st.integers(0, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_a_record_comes_back_bit_for_bit(kind, n, width, seed):
    record = record_of(kind, n, width, seed)
    assert parts(decode(encode(record))) == parts(record)


@settings(FUZZ)
@given(st.text(max_size=9), st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.floats(-1e11, 1e11))
def test_a_control_comes_back_as_it_was(action, arguments, time):
    assert decode(encode(Control(action, arguments, time))) == Control(action, arguments, time)


@pytest.fixture(scope="session")
def written():
    """One of each kind, with enough rows that a damaged length passes the end of its page."""
    rng, n = np.random.default_rng(0), 700
    made = {c: {k: rng.integers(0, 2, n).astype(d) for k, d in PAIRS[c]} for c in PAIRS}
    columns = {"user": np.arange(n), "vec": np.ones((n, 3), np.float32)}
    whole = [Impressions(7, columns=columns, **made[Impressions]), Feedback(**made[Feedback])]
    small = [Impressions(7, columns={k: v[:2] for k, v in columns.items()}, **{k: v[:2] for k, v in made[Impressions].items()})]
    small += [Feedback(**{k: v[:2] for k, v in made[Feedback].items()})]
    return [encode(r) for r in [*whole, *small, Tick(2.5), Instruction("rollback", 1, {"release": 3})]]


@settings(FUZZ)
@given(st.integers(0, 5), EDITS)
def test_damaged_bytes_are_a_proper_record_or_corrupt(written, damage, which, edits):
    with contextlib.suppress(Corrupt):
        assert proper(decode(damage(written[which], edits)))


@settings(FUZZ)
@given(st.integers(0, 3), st.integers(0, 2600), st.integers(0, 7))
def test_a_flip_in_what_describes_the_arrays_is_a_proper_record_or_corrupt(written, which, place, bit):
    data = bytearray(written[which])
    data[place % len(data)] ^= 1 << bit
    with contextlib.suppress(Corrupt):
        assert proper(decode(bytes(data)))


@settings(FUZZ)
@given(st.dictionaries(st.sampled_from(["kind", "time", "action", "arguments", "fields", "version", "by"]), JSON))
def test_any_json_object_is_a_proper_tick_control_or_instruction_or_corrupt(body):
    for kind in ("tick", "control", "command", "feedback", "impressions", body.get("kind")):
        try:
            record = decode(json.dumps({**body, "kind": kind}).encode())
        except Corrupt:
            continue
        assert isinstance(record, Tick | Control | Instruction)
        assert proper(record)
