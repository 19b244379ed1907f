"""Inference over gRPC: whatever the bytes of a message, the answer is a score or a status of ours, and never INTERNAL."""

import grpc
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverdelta.serving.oip.messages import MESSAGES, SERVICE

FUZZ = settings.get_profile("fuzz")
EDITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1 << 12), st.integers(0, 255)), min_size=1, max_size=3)
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
#: Two rows of each input: datatype, shape, the field of typed contents, and its values.
GOOD = {
    "user": ("BYTES", [2], "bytes_contents", [b"ann", b"bob"]),
    "x": ("FP32", [2], "fp32_contents", [0.5, -2]),
    "vec": ("FP64", [2, 2], "fp64_contents", [1, 1, 1, 1]),
    "on": ("BOOL", [2, 1], "bool_contents", [True, False]),
    "small": ("INT8", [2], "int_contents", [1, -1]),
    "shop": ("FP32", [2], "fp32_contents", [1, 1]),
}
RAW = [b"\3\0\0\0ann\3\0\0\0bob", bytes(8), bytes(32), b"\1\2", b"\1\xff", np.ones(2, "<f4").tobytes()]
KINDS = ["BOOL", "UINT8", "UINT64", "INT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16", ""]
INT64 = st.integers(-3, 4) | st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63)])
NUMBERS = {
    "bool_contents": st.booleans(), "int_contents": st.integers(-(2**31), 2**31 - 1), "int64_contents": INT64,
    "uint_contents": st.integers(0, 2**32 - 1), "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32), "fp64_contents": st.floats(), "bytes_contents": st.binary(max_size=4),
}  # fmt: skip
CONTENTS = st.dictionaries(st.sampled_from([*NUMBERS]), st.none(), max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: st.lists(NUMBERS[name], max_size=5) for name in names})
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "", "binary_data"]),
    st.dictionaries(st.just("int64_param"), INT64) | st.dictionaries(st.just("bool_param"), st.booleans()),
    max_size=2,
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([*GOOD, "y", ""]), "datatype": st.sampled_from(KINDS), "shape": st.lists(INT64, max_size=9),
        "contents": CONTENTS, "parameters": PARAMETERS, "drop": st.none(),
    },
)  # fmt: skip


def request(changes=None, typed=False, raw=RAW, **given):
    """A request of six tensors, each with its changes; `raw` is dropped where they are typed."""
    inputs = []
    for place, (name, (datatype, shape, field, values)) in enumerate(GOOD.items()):
        entry = {"name": name, "datatype": datatype, "shape": shape, "contents": {field: values} if typed else {}}
        entry |= (changes or {}).get(place, {})
        if "drop" not in entry:
            inputs.append(MESSAGES["InferInputTensor"](**entry))
    given.setdefault("model_name", "ranker")
    return MESSAGES["ModelInferRequest"](inputs=inputs, raw_input_contents=[] if typed and raw is RAW else raw, **given)


@pytest.fixture(scope="session")
def call(port, bounded):
    """call(bytes): (status, response), with a status that a client may be given."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")

        def call(data):
            refused = None
            try:
                with bounded():
                    answer = infer(data, timeout=50)
            except grpc.RpcError as error:
                refused = error
            if refused is None:
                return "OK", MESSAGES["ModelInferResponse"].FromString(answer)
            assert refused.code().name in REFUSALS, (refused.code(), refused.details())
            assert 0 < len(refused.details()) <= 801
            return refused.code().name, None

        yield call


def proper(response):
    """Whether each output is described as its bytes are, and the scores are probabilities."""
    sizes = {"FP32": 4, "INT64": 8}
    for entry, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        count = int(np.prod(entry.shape))
        assert entry.datatype == "BYTES" or len(raw) == count * sizes[entry.datatype]
        if entry.name == "score":
            scores = np.frombuffer(raw, "<f4")
            assert ((scores >= 0) & (scores <= 1)).all()
    return True


@settings(FUZZ)
@given(
    st.dictionaries(st.integers(0, 5), CHANGES, max_size=2),
    st.booleans(),
    st.just(RAW) | st.lists(st.binary(max_size=20), max_size=7),
    st.lists(st.sampled_from(["score", "outcome", ""]), max_size=2),
    st.sampled_from(["ranker", "ranker-feedback", "rankr"]),
    st.sampled_from(["", "1", "2"]),
)
@example({}, True, RAW, [], "ranker", "")
@example({}, False, RAW, ["score"], "ranker", "1")
def test_contents_that_contradict_each_other_are_scored_or_refused(call, changes, typed, raw, wanted, model, version):
    outputs = [MESSAGES["InferRequestedOutputTensor"](name=name) for name in wanted]
    sent = request(changes, typed, raw, outputs=outputs, model_name=model, model_version=version)
    status, response = call(sent.SerializeToString())
    if not changes and raw is RAW and not wanted and model == "ranker" and version != "2":
        assert status == "OK"
    assert response is None or proper(response)


@settings(FUZZ)
@given(st.booleans(), EDITS)
def test_a_damaged_message_is_scored_or_refused(call, damage, typed, edits):
    _, response = call(damage(request(typed=typed).SerializeToString(), edits))
    assert response is None or proper(response)


@settings(FUZZ)
@given(st.binary(max_size=60), st.integers(0, 5), st.binary(max_size=8))
def test_raw_bytes_of_any_length_are_one_input_s_rows_or_refused(call, raw, place, name):
    whole = [*RAW[:place], raw, *RAW[place + 1 :]]
    status, response = call(request(raw=whole, id=name.decode("latin-1")).SerializeToString())
    if status == "OK":
        assert response.id == name.decode("latin-1")
        assert place == 0 or len(raw) == len(RAW[place])


@settings(FUZZ)
@given(st.integers(0, 5), CONTENTS.filter(any))
def test_contents_beside_raw_bytes_or_of_another_type_are_refused(call, place, contents):
    typed = {**contents, GOOD[list(GOOD)[place]][2]: GOOD[list(GOOD)[place]][3]}
    assert call(request({place: {"contents": typed}}).SerializeToString())[0] == "INVALID_ARGUMENT"
    alone = sum(map(bool, typed.values())) == 1
    assert call(request({place: {"contents": typed}}, typed=True).SerializeToString())[0] == (
        "OK" if alone else "INVALID_ARGUMENT"
    )
