"""Tensors: what is written is read again, and what cannot be read is refused by its tensor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from riverdelta.core.errors import InvalidInput
from riverdelta.serving.oip.tensors import Tensor, column, datatype_of, from_bytes, from_list, to_bytes, to_list

DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
arrays = st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)))


@settings()
@given(arrays)
def test_an_array_comes_back_bit_for_bit_through_bytes(array):
    tensor = Tensor("t", datatype_of(array.dtype.name), array)
    read = from_bytes("t", tensor.datatype, list(array.shape), to_bytes(tensor))
    assert read.data.tobytes() == array.tobytes()
    assert read.data.shape == array.shape


@settings()
@given(arrays.filter(lambda a: a.dtype.kind != "f" or np.isfinite(a).all()), st.booleans())
def test_an_array_comes_back_through_json_flat_or_nested(array, nested):
    tensor = Tensor("t", datatype_of(array.dtype.name), array)
    data = array.tolist() if nested else to_list(tensor)
    assert np.array_equal(from_list("t", tensor.datatype, list(array.shape), data).data, array)


@settings()
@given(st.lists(st.text(max_size=5), max_size=5))
def test_strings_come_back_either_way(strings):
    for read in (
        from_list("t", "BYTES", [len(strings)], strings),
        from_bytes("t", "BYTES", [len(strings)], to_bytes(from_list("t", "BYTES", [len(strings)], strings))),
    ):
        assert to_list(read) == strings
        assert column(read).tolist() == strings


datatypes = st.sampled_from([*map(datatype_of, DTYPES), "BYTES", "BF16", ""])


@settings(max_examples=300)
@given(datatypes, st.lists(st.integers(-2, 2**40), max_size=3), st.binary())
def test_any_bytes_are_a_tensor_of_the_shape_or_refused_by_name(datatype, shape, raw):
    message = ""
    try:
        read = from_bytes("odd", datatype, shape, raw)
    except InvalidInput as error:
        message = str(error)
    assert "'odd'" in message if message else list(read.data.shape) == shape


@pytest.mark.parametrize("length", [0, 1, 0xFFFFFFFF])
def test_a_string_length_that_passes_the_end_is_refused(length):
    raw = length.to_bytes(4, "little")
    if length == 0:
        assert from_bytes("t", "BYTES", [1], raw).data.tolist() == [b""]
        raw = b""
    with pytest.raises(InvalidInput, match=r"element 0 has|0 elements"):
        from_bytes("t", "BYTES", [1], raw)


def test_a_value_that_the_type_cannot_hold_becomes_infinite_and_not_another_number():
    assert np.isinf(from_list("t", "FP16", [1], [1e9]).data).all()
    with pytest.raises(InvalidInput, match="expected INT8"):
        from_list("t", "INT8", [1], [128])
