"""The Open Inference Protocol's gRPC messages, built in a descriptor pool of their own.

Generated stubs would register `inference.*` in protobuf's default pool, where tritonclient and others register theirs: one
process could then not hold both. Field numbers are those of the public grpc_predict_v2.proto, and for the repository's index,
configuration and statistics those of Triton's grpc_service.proto and model_config.proto, whose other fields are always unset.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from riverdelta.core.errors import InvalidInput, TooLarge

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL, "int32": _Field.TYPE_INT32, "int64": _Field.TYPE_INT64, "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64, "float": _Field.TYPE_FLOAT, "double": _Field.TYPE_DOUBLE, "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}  # fmt: skip
_PARAMETERS = "map parameters"
#: What Triton measures of an inference.
STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
#: The values of the enumeration of datatypes, in the order of their numbers, from 0.
_DATA_TYPES = (
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16",
    "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
)  # fmt: skip

#: Each message's fields: "type name", "type* name" if repeated, or a map of parameters, and their numbers unless they follow on
#: from 1.
FIELDS = {
    "ServerLiveRequest": [], "ServerLiveResponse": ["bool live"],
    "ServerReadyRequest": [], "ServerReadyResponse": ["bool ready"],
    "ModelReadyRequest": ["string name", "string version"], "ModelReadyResponse": ["bool ready"],
    "ServerMetadataRequest": [], "ServerMetadataResponse": ["string name", "string version", "string* extensions"],
    "ModelMetadataRequest": ["string name", "string version"],
    "TensorMetadata": ["string name", "string datatype", "int64* shape"],
    "ModelMetadataResponse": [
        "string name", "string* versions", "string platform", "TensorMetadata* inputs", "TensorMetadata* outputs",
    ],
    "InferParameter": [
        "bool bool_param", "int64 int64_param", "string string_param", "double double_param", "uint64 uint64_param",
    ],
    "InferTensorContents": [
        "bool* bool_contents", "int32* int_contents", "int64* int64_contents", "uint32* uint_contents",
        "uint64* uint64_contents", "float* fp32_contents", "double* fp64_contents", "bytes* bytes_contents",
    ],
    "InferInputTensor": ["string name", "string datatype", "int64* shape", _PARAMETERS, "InferTensorContents contents"],
    "InferRequestedOutputTensor": ["string name", _PARAMETERS],
    "InferOutputTensor": ["string name", "string datatype", "int64* shape", _PARAMETERS, "InferTensorContents contents"],
    "ModelInferRequest": [
        "string model_name", "string model_version", "string id", _PARAMETERS, "InferInputTensor* inputs",
        "InferRequestedOutputTensor* outputs", "bytes* raw_input_contents",
    ],
    "ModelInferResponse": [
        "string model_name", "string model_version", "string id", _PARAMETERS, "InferOutputTensor* outputs",
        "bytes* raw_output_contents",
    ],
    "RepositoryIndexRequest": ["string repository_name", "bool ready"],
    "ModelIndex": ["string name", "string version", "string state", "string reason"],
    "RepositoryIndexResponse": ["ModelIndex* models"],
    "ModelConfigRequest": ["string name", "string version"],
    "ModelInput": ["string name", "DataType data_type", "int64* dims 4"],
    "ModelOutput": ["string name", "DataType data_type", "int64* dims"],
    "ModelConfig": [
        "string name", "string platform", "int32 max_batch_size 4", "ModelInput* input", "ModelOutput* output",
        "string backend 17",
    ],
    "ModelConfigResponse": ["ModelConfig config"],
    "ModelStatisticsRequest": ["string name", "string version"],
    "StatisticDuration": ["uint64 count", "uint64 ns"],
    "InferStatistics": [f"StatisticDuration {stage}" for stage in STAGES],
    "InferBatchStatistics": ["uint64 batch_size"],
    "ModelStatistics": [
        "string name", "string version", "uint64 last_inference", "uint64 inference_count", "uint64 execution_count",
        "InferStatistics inference_stats", "InferBatchStatistics* batch_stats",
    ],
    "ModelStatisticsResponse": ["ModelStatistics* model_stats"],
}  # fmt: skip

SERVICE = "inference.GRPCInferenceService"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="riverdelta/inference.proto", package="inference", syntax="proto3")
    datatypes = file.enum_type.add(name="DataType")
    service = file.service.add(name=SERVICE.rpartition(".")[2])
    for number, name in enumerate(_DATA_TYPES):
        datatypes.value.add(name=name, number=number)
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        if (method := name.removesuffix("Request")) != name:
            types = {"input_type": f".inference.{name}", "output_type": f".inference.{method}Response"}
            service.method.add(name=method, **types)
        if name == "InferParameter":
            message.oneof_decl.add(name="parameter_choice")
        number = 0
        for spec in fields:
            kind, field_name, *given = spec.split()
            number = int(given[0]) if given else number + 1
            label = _Field.LABEL_REPEATED if kind == "map" or kind.endswith("*") else _Field.LABEL_OPTIONAL
            field = message.field.add(name=field_name, number=number, label=label)
            if kind == "map":
                entry = message.nested_type.add(name="ParametersEntry")
                entry.options.map_entry = True
                _set_type(entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL), "string")
                _set_type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), "InferParameter")
                kind = f"{name}.ParametersEntry"
            _set_type(field, kind.rstrip("*"))
            if name == "InferParameter":
                field.oneof_index = 0
    return file


def _set_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind == "DataType":
        field.type, field.type_name = _Field.TYPE_ENUM, ".inference.DataType"
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".inference.{kind}"


#: Describes the messages and all services of the server, as server reflection shows them.
POOL = descriptor_pool.DescriptorPool()
POOL.Add(_file())
for _of_grpc in (health_pb2, reflection_pb2):
    POOL.AddSerializedFile(_of_grpc.DESCRIPTOR.serialized_pb)

#: Every message class by name.
MESSAGES: dict[str, Any] = {
    name: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}")) for name in FIELDS
}


def parse(message: Any, data: bytes, most: int | None = None) -> Any:
    """Return a message of the class `message`; raises `InvalidInput` if the bytes cannot be parsed or have unknown fields.

    Raises `TooLarge`, before it is parsed, if it has more than `most` values; packed ones count by their bytes.

    >>> parse(MESSAGES["ModelReadyRequest"], b"\\n\\x06ranker").name
    'ranker'
    """
    name = message.DESCRIPTOR.full_name
    if most is not None and len(data) > most and _fields(message.DESCRIPTOR, data, most) > most:
        raise TooLarge(
            f"{name} has more than {most} fields, the maximum in one request (RIVERDELTA_MAX_ROWS): send it in parts"
        )
    try:
        parsed = message.FromString(data)
    except DecodeError:
        raise InvalidInput(f"the request's {len(data)} bytes are not a valid {name}") from None
    # To count its bytes encodes it, so a message that has no unknown fields and is encoded as usual is counted once.
    parsed.DiscardUnknownFields()
    size = parsed.ByteSize()
    if size != len(data) and (unknown := message.FromString(data).ByteSize() - size):
        known = ", ".join(field.name for field in message.DESCRIPTOR.fields)
        raise InvalidInput(f"{name} has {unknown} bytes of fields that it does not have; expected {known}")
    return parsed


def _fields(descriptor: Any, data: bytes, most: int) -> int:
    """Return the number of fields in encoded bytes, those of nested messages included; it stops above `most`.

    Bytes that are not an encoded message end it, and protobuf refuses them.
    """
    count, waiting = 0, [(descriptor, 0, len(data))]
    try:
        while waiting and count <= most:
            descriptor, at, end = waiting.pop()
            fields = descriptor.fields_by_number
            while at < end and count <= most:
                count += 1
                tag, at = _varint(data, at)
                kind = tag & 7
                size, at = _varint(data, at) if kind in (0, 2) else (_FIXED.get(kind, 0), at)
                if kind == 2 and (field := fields.get(tag >> 3)) is not None and field.message_type is not None:
                    waiting.append((field.message_type, at, at + size))
                elif kind == 2 and field is not None and field.type not in (_Field.TYPE_STRING, _Field.TYPE_BYTES):
                    count += size // _MOST_PACKED_BYTES
                at += size if kind else 0
    except IndexError:
        pass
    return count


#: The bytes of a value of a fixed size, by the kind of its encoding.
_FIXED = {1: 8, 5: 4}
_MOST_SHIFT, _MOST_PACKED_BYTES = 63, 10


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place of encoded bytes, and the place after it."""
    value = shift = 0
    while (byte := data[at]) > 127 and shift < _MOST_SHIFT:
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
    return value | byte << shift, at + 1
