"""Our messages and those of Triton's client are one protocol: same names, numbers and types."""

import pytest
from tritonclient.grpc import service_pb2

from riverdelta.core.errors import InvalidInput, TooLarge
from riverdelta.serving.oip.messages import MESSAGES, SERVICE, parse

WHOLE = [n for n in MESSAGES if n.endswith(("Request", "Response"))]


def numbers(descriptor, like):
    """Every field of `like` as (path, number, type, kind of label, oneof) in `descriptor`, through its messages."""
    for field in like.fields:
        found = descriptor.fields_by_name[field.name]
        oneof = found.containing_oneof and found.containing_oneof.name
        yield field.name, found.number, found.type, found.label, oneof
        if field.message_type is not None:
            yield from numbers(found.message_type, field.message_type)


@pytest.mark.filterwarnings("ignore:label.* is deprecated:UserWarning")
@pytest.mark.parametrize("name", WHOLE)
def test_a_message_has_the_numbers_and_types_of_tritons(name):
    ours, theirs = MESSAGES[name].DESCRIPTOR, getattr(service_pb2, name).DESCRIPTOR
    assert list(numbers(ours, ours)) == list(numbers(theirs, ours))


def test_the_service_has_its_public_name():
    assert service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == SERVICE


def test_a_message_of_theirs_is_read_as_ours():
    sent = service_pb2.ModelInferRequest(model_name="ranker", raw_input_contents=[b"\0\1"])
    entry = sent.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    entry.parameters["binary_data_size"].int64_param = 24
    read = parse(MESSAGES["ModelInferRequest"], sent.SerializeToString())
    assert (read.model_name, read.inputs[0].name, list(read.inputs[0].shape)) == ("ranker", "x", [2, 3])
    assert read.inputs[0].parameters["binary_data_size"].int64_param == 24
    assert read.SerializeToString() == sent.SerializeToString()


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7fshort"])
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(InvalidInput, match=rf"{len(data)} bytes are not a valid inference.ModelReadyRequest"):
        parse(MESSAGES["ModelReadyRequest"], data)


def request(**fields):
    return MESSAGES["ModelInferRequest"](**fields).SerializeToString()


@pytest.mark.parametrize(
    "inputs",
    [
        [{}] * 101,
        [{"contents": {"bytes_contents": [b""] * 101}}],
        [{"contents": {"int64_contents": [-1] * 1_001}}],
        [{"shape": [1] * 1_001}],
    ],
    ids=["messages", "strings", "packed numbers", "packed sizes"],
)
def test_more_values_than_a_request_may_have_are_refused_before_they_are_made(inputs):
    infer = MESSAGES["ModelInferRequest"]
    with pytest.raises(TooLarge, match="more than 100 fields"):
        parse(infer, request(inputs=inputs), 100)


def test_the_length_of_strings_counts_nothing_and_numbers_are_counted_by_their_bytes():
    inputs = [{"name": "x" * 2_000, "contents": {"fp64_contents": [0.5] * 90}}]
    assert parse(MESSAGES["ModelInferRequest"], request(inputs=inputs), 100).inputs[0].name == "x" * 2_000
