"""Records: the contents of the journal, and their encoding.

There are five kinds: `Impressions` (scored rows), `Feedback` (labels and showings), `Tick` (the sidecar's clock), `Instruction`
(a command) and `Control` (anything else that learning depends on). The encoding includes the kind, but not the sequence number,
which the journal assigns.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from string import hexdigits
from types import UnionType
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from riverdelta.core.arrow import Array, from_arrow, to_arrow
from riverdelta.core.errors import Corrupt
from riverdelta.core.feedback import Feedback as Feedback
from riverdelta.core.instruction import OF_0_1, Instruction, of_0_1

#: The end of the year 9999 in Unix seconds, beyond which no date can be shown.
_LATEST = 253_402_300_799.0
#: The fields of a row's raw outputs: before and after correction, and as served.
OUTPUTS = ("base", "corrected", "served")
#: The columns, by output, that keep the old home's outputs of rows that `riverdelta rebase` scored again. No declared column
#: has such a name.
BEFORE = {"corrected": "#corrected", "served": "#served"}
#: The same for a home that is rebased again: `BEFORE` keeps what was served, these what the home before this one had.
BEFORE_AGAIN = {"corrected": "#corrected_again", "served": "#served_again"}


def by_output(raw: Array) -> Array:
    """Return raw outputs as [N, K]; [N] is read as [N, 1].

    >>> by_output(np.zeros(3)).shape, by_output(np.zeros((3, 2))).shape
    ((3, 1), (3, 2))
    """
    return raw[:, None] if raw.ndim == 1 else raw


class RequestName(NamedTuple):
    """The id that a client gave to a request, and those of its rows, None without any."""

    request_id: str
    row_ids: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Impressions:
    """N scored rows of one worker, in the order in which they were scored.

    A row's key is (incarnation, request, index): the worker's number, the request's number within the worker (non-decreasing in
    a block), and the row's index within the request. `base`, `corrected` and `served` are raw outputs float32[N, K]; float32[N]
    is read as [N, 1]. `time` is in Unix seconds. `position` is the journal position that the scoring tables contained.
    `columns` has the columns, taps included, that corrections read or the definition keeps. `traces` has the W3C trace id, in
    hexadecimal, of each request with one; `names` has the client's ids.
    """

    kind: ClassVar[str] = "impressions"

    incarnation: int
    request: npt.NDArray[np.int64]
    index: npt.NDArray[np.int32]
    time: npt.NDArray[np.float64]
    release: npt.NDArray[np.int64]
    swap: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    base: npt.NDArray[np.float32]
    corrected: npt.NDArray[np.float32]
    served: npt.NDArray[np.float32]
    propensity: npt.NDArray[np.float32]
    columns: Mapping[str, Array] = field(default_factory=dict)
    traces: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, RequestName] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in OUTPUTS:
            object.__setattr__(self, name, by_output(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.request)


_Rows = TypeVar("_Rows", bound=Impressions | Feedback)


def only(record: _Rows, rows: npt.NDArray[np.bool_]) -> _Rows:
    """Return a record with some of its rows, bool[N], the traces of their requests, and the names of complete ones."""
    kept: dict[str, Any] = {}
    left, cut = (set(record.request[which].tolist()) for which in (rows, ~rows))
    for name, value in vars(record).items():
        if isinstance(value, np.ndarray):
            kept[name] = value[rows]
        elif name in ("traces", "names"):
            keeps = left if name == "traces" else left - cut
            kept[name] = {request: each for request, each in value.items() if request in keeps}
        elif isinstance(value, Mapping):
            kept[name] = {column: array[rows] for column, array in value.items()}
    return replace(record, **kept)


@dataclass(frozen=True)
class Tick:
    """The sidecar's clock (Unix seconds); only ticks close attribution windows."""

    kind: ClassVar[str] = "tick"

    time: float


#: The action of a control whose arguments are the settings that apply to learning from its position on.
SETTINGS = "settings"


@dataclass(frozen=True)
class Control:
    """Anything besides rows, time and commands that learning depends on: settings, drift, or refused.

    `refused` means that the learner could not apply an earlier record: {"sequence", "reason"}. Version 0.1 wrote commands as
    controls, which `decode` returns as `Instruction`.
    """

    kind: ClassVar[str] = "control"

    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    time: float = 0.0


Record = Impressions | Feedback | Tick | Control | Instruction
#: The records that are encoded as JSON objects.
_PLAIN: dict[str, type[Tick | Control | Instruction]] = {cls.kind: cls for cls in (Tick, Control, Instruction)}
_ROWS: dict[str, type[Impressions | Feedback]] = {cls.kind: cls for cls in (Impressions, Feedback)}
#: The dtype of each array of a record, as its class declares it: NDArray[np.int64] is ndarray[shape, dtype[np.int64]].
_DTYPES = {
    cls: {
        name: np.dtype(get_args(get_args(hint)[1])[0])
        for name, declared in get_type_hints(cls).items()
        for hint in (get_args(declared) if get_origin(declared) is UnionType else [declared])
        if get_origin(hint) is np.ndarray
    }
    for cls in _ROWS.values()
}


def encode(record: Record) -> bytes:
    """Return the record as bytes: an Arrow IPC stream for rows, a JSON object for other kinds.

    >>> decode(encode(Tick(time=2.5)))
    Tick(time=2.5)
    """
    if isinstance(record, Tick | Control | Instruction):
        return json.dumps({"kind": record.kind, **vars(record)}, sort_keys=True).encode()
    metadata, arrays = {"kind": record.kind}, dict[str, pa.Array]()
    for f in fields(record):
        value = getattr(record, f.name)
        if value is None:
            continue
        if isinstance(value, int):
            metadata[f.name] = str(value)
        elif f.name in _OF_REQUESTS:
            metadata |= {f.name: json.dumps(value)} if value else {}
        elif isinstance(value, Mapping):
            arrays.update({f"column:{name}": to_arrow(array) for name, array in value.items()})
        else:
            # A single output is stored as [N].
            arrays[f.name] = to_arrow(value[:, 0] if f.name in OUTPUTS and value.shape[1] == 1 else value)
    batch = pa.record_batch(list(arrays.values()), names=list(arrays), metadata=metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode(payload: bytes) -> Record:
    """Return the record that `encode` wrote; its arrays are read-only views of `payload`.

    Raises `Corrupt` when the bytes are not a record.
    """
    try:
        return _decode_json(payload) if payload[:1] == b"{" else _decode_arrow(payload)
    except (pa.ArrowException, OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{len(payload)} bytes are not a journal record: {error}") from error


def _decode_json(payload: bytes) -> Record:
    body = json.loads(payload)
    kind = body.pop("kind")
    if kind not in tuple(_PLAIN):
        raise ValueError(f"its kind is {kind!r}")
    record = _PLAIN[kind](**body)
    if type(record.time) not in (int, float) or not abs(record.time) <= _LATEST:
        raise ValueError(f"its time is {record.time!r:.80}; expected Unix seconds before the year 10000")
    if not isinstance(record, Control):
        return record
    if not (isinstance(record.action, str) and isinstance(record.arguments, dict)):
        raise ValueError("its action is not text, or its arguments are not an object")
    return of_0_1(record.action, record.arguments, record.time) if record.action in OF_0_1 else record


def _decode_arrow(payload: bytes) -> Record:
    # Reading the two messages directly takes half the time of a stream reader.
    messages = pa.BufferReader(payload)
    schema = pa.ipc.read_schema(pa.ipc.read_message(messages))
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(messages), schema)
    # Without this, a damaged length would read beyond its buffer.
    batch.validate(full=True)
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    cls = _ROWS[metadata.pop("kind")]
    of_requests = {name: read(metadata.pop(name)) if name in metadata else {} for name, read in _OF_REQUESTS.items()}
    values: dict[str, Any] = {name: int(value) for name, value in metadata.items()}
    columns: dict[str, Array] = {}
    for name, array in zip(schema.names, batch.columns, strict=True):
        prefix, _, column = name.partition(":")
        if prefix == "column":
            columns[column] = from_arrow(array)
        else:
            values[name] = from_arrow(array)
    if cls is Impressions:
        values |= {"columns": columns, **of_requests}
    record = cls(**values)
    for name, dtype in _DTYPES[cls].items():
        # Only a field that may be None is missing: the class has required the others.
        found = values.get(name, np.empty(0, dtype))
        if not isinstance(found, np.ndarray) or found.dtype != dtype or found.ndim > 1 + (name in OUTPUTS):
            raise TypeError(f"its {name} is not {dtype}[N]")
    if isinstance(record, Feedback):
        record.check()
    if isinstance(record, Impressions) and {getattr(record, name).shape for name in OUTPUTS} != {record.base.shape}:
        raise TypeError("its raw outputs differ in shape")
    return record


def _traces(body: str) -> dict[int, str]:
    traces = {int(request): trace for request, trace in json.loads(body).items()}
    if not all(isinstance(trace, str) and len(trace) == 32 and not trace.strip(hexdigits) for trace in traces.values()):
        raise ValueError("a trace is not 32 hexadecimal digits")
    return traces


def _names(body: str) -> dict[int, RequestName]:
    names = {
        int(request): RequestName(name, None if rows is None else tuple(rows))
        for request, (name, rows) in json.loads(body).items()
    }
    if not all(isinstance(text, str) for name in names.values() for text in (name.request_id, *(name.row_ids or ()))):
        raise ValueError("the name of a request is not text")
    return names


#: The facts that some requests of a record have, and how they are read from its metadata.
_OF_REQUESTS: dict[str, Callable[[str], dict[int, Any]]] = {"traces": _traces, "names": _names}
