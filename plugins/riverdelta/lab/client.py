"""Clients: score rows, send their feedback, and wait until it is learned, alternating between HTTP and gRPC."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import orjson

from riverdelta.core.features import Floats, Ints
from riverdelta.lab.stream import Stream
from riverdelta.serving.oip.messages import MESSAGES, SERVICE
from riverdelta.serving.oip.tensors import Tensor, datatype_of, from_bytes, to_bytes

#: The errors of a failed call, over either transport.
FAILURES = (OSError, grpc.RpcError, http.client.HTTPException)
_TIMEOUT = 10.0
_POLL_SECONDS = 0.004
#: Uvicorn closes a connection after 5 idle seconds.
_IDLE_SECONDS = 2.0
#: Rows of a request, and how many rows a client may be ahead of the slowest.
_MOST, _AHEAD = 8, 512


class Http:
    """A keep-alive HTTP connection to one worker, reopened before the server would close it as idle.

    With `complete`, its feedback says that no more comes for the same lists.
    """

    def __init__(self, port: int, complete: bool = False) -> None:
        self._more = {"complete": True} if complete else {}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        self._used = time.monotonic()

    def call(self, method: str, path: str, body: Any = None, statuses: Collection[int] = (200,)) -> dict[str, Any]:
        """Return the JSON answer; raises `OSError` for any status but `statuses`."""
        data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY) if body is not None else None
        if time.monotonic() - self._used > _IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next call connects again
            raise
        self._used = time.monotonic()
        if answer.status not in statuses:
            raise OSError(f"{path} answered {answer.status}: {content[:200]!r}")
        parsed: dict[str, Any] = orjson.loads(content)
        return parsed

    def score(self, columns: dict[str, Any]) -> tuple[Floats, str, str]:
        """Return scores, the request's id and the state."""
        answer = self.call("POST", "/score", {"columns": columns})
        return np.array(answer["scores"], np.float32), answer["impressions"], answer["state"]

    def feedback(self, ids: list[str], labels: Floats) -> tuple[list[str], int]:
        """Return the outcomes and the journal position."""
        items = [{"id": i, "label": int(y)} for i, y in zip(ids, labels.tolist(), strict=True)]
        answer = self.call("POST", "/feedback", {"items": items, **self._more}, (200, 422))
        return answer["outcomes"], answer["position"]

    def status(self) -> dict[str, Any]:
        """Return GET /status."""
        return self.call("GET", "/status")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Grpc:
    """An Open Inference Protocol channel over its own connection to one worker."""

    def __init__(self, port: int, model: str) -> None:
        self._model = model
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._infer = self._channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=MESSAGES["ModelInferRequest"].SerializeToString,
            response_deserializer=MESSAGES["ModelInferResponse"].FromString,
        )

    def infer(self, model: str, tensors: list[Tensor]) -> dict[str, Any]:
        """Return the outputs by name."""
        kind = MESSAGES["ModelInferRequest"]
        inputs = [MESSAGES["InferInputTensor"](name=t.name, datatype=t.datatype, shape=t.data.shape) for t in tensors]
        request = kind(model_name=model, inputs=inputs, raw_input_contents=[to_bytes(t) for t in tensors])
        answer = self._infer(request, timeout=_TIMEOUT)
        return {
            out.name: from_bytes(out.name, out.datatype, list(out.shape), raw).data
            for out, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }

    def score(self, columns: dict[str, Any]) -> tuple[Floats, str, str]:
        """Return scores, the request's id and the state."""
        tensors = [Tensor(name, datatype_of(c.dtype.name), c) for name, c in columns.items()]
        out = self.infer(self._model, tensors)
        return out["score"], out["impressions"][0].decode(), out["state"][0].decode()

    def feedback(self, ids: list[str], labels: Floats) -> tuple[list[str], int]:
        """Return the outcomes and the journal position."""
        data = np.empty(len(ids), dtype=object)
        data[:] = [i.encode() for i in ids]
        out = self.infer(f"{self._model}-feedback", [Tensor("id", "BYTES", data), Tensor("label", "FP32", labels)])
        return [v.decode() for v in out["outcome"]], int(out["position"][0])

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


@dataclass
class Tally:
    """What all clients observed, by row of the stream; `lock` protects the counts."""

    rows: int
    score: Floats = field(init=False)
    lag: Ints = field(init=False)
    freshness: list[float] = field(default_factory=list)
    learned: list[tuple[int, float, int]] = field(default_factory=list)  # swap that contains it, time sent, rows
    requests: int = 0
    failed: int = 0
    done: int = 0
    error: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.score = np.full(self.rows, np.nan, np.float32)
        self.lag = np.zeros(self.rows, np.int64)

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Return which rows have a score, bool[N]."""
        return ~np.isnan(self.score)

    def scored(self, swap: int, now: float) -> None:
        """Record a score by tables `swap`: feedback that they are the first to contain is fresh now."""
        with self.lock:
            self.freshness.extend(now - sent for first, sent, rows in self.learned if first <= swap for _ in range(rows))
            self.learned = [entry for entry in self.learned if entry[0] > swap]


@dataclass
class Client:
    """Sends its rows in the order of the stream, 8 consecutive ones at a time.

    In a closed loop it sends the next rows when /status shows that the live tables contain the feedback of the last, and stays
    within 512 rows of the slowest client. With `rate` (rows a second) it never waits.
    """

    rows: Ints
    stream: Stream
    ports: tuple[int, int]
    model: str
    tally: Tally
    near: Callable[[int], bool]
    rate: float = 0.0
    at: int = 0
    _waiting: list[tuple[int, float, int]] = field(
        default_factory=list
    )  # not yet known to be learned: position, time sent, rows
    _sent: list[tuple[int, int]] = field(default_factory=list)  # rows that are learned, and the swap that contains them

    def __post_init__(self) -> None:
        self._http, self._grpc = Http(self.ports[0]), Grpc(self.ports[1], self.model)

    @property
    def place(self) -> int:
        """The next row to send; beyond the end once all are sent."""
        return int(self.rows[self.at]) if self.at < len(self.rows) else len(self.stream)

    def run(self) -> None:
        """Send all rows."""
        turn, started = 0, time.monotonic()
        while self.at < len(self.rows):
            while not self.near(self.place):
                time.sleep(_POLL_SECONDS)
            rows = self.rows[self.at : self.at + _MOST]
            try:
                self._exchange(rows, self._grpc if turn % 2 else self._http)
            except FAILURES as error:
                with self.tally.lock:
                    self.tally.failed += 1
                    self.tally.error = self.tally.error or f"{type(error).__name__}: {error}"
            self.at += len(rows)
            turn += 1
            with self.tally.lock:
                self.tally.done += len(rows)
            if self.rate:
                time.sleep(max(0.0, started + self.at / self.rate - time.monotonic()))
        self._http.close()
        self._grpc.close()

    def _exchange(self, rows: Ints, transport: Http | Grpc) -> None:
        """Score, feed back, and in a closed loop wait until the live tables contain it."""
        columns = {name: np.ascontiguousarray(column[rows]) for name, column in self.stream.columns.items()}
        scores, impressions, state = transport.score(columns)
        swap = int(state.partition("+")[2])
        self.tally.scored(swap, time.monotonic())
        self._sent = [entry for entry in self._sent if entry[1] > swap]
        self.tally.score[rows] = scores
        self.tally.lag[rows] = sum(n for n, _ in self._sent) + sum(n for *_, n in self._waiting) + np.arange(len(rows))
        sent = time.monotonic()
        outcomes, position = transport.feedback([f"{impressions}.{i}" for i in range(len(rows))], self.stream.label[rows])
        with self.tally.lock:
            self.tally.requests += 2
        if set(outcomes) != {"accepted"}:
            raise OSError(f"feedback was not accepted: {sorted(set(outcomes))}")
        self._waiting.append((position, sent, len(rows)))
        while True:
            self._look()
            if self.rate or not self._waiting:
                return
            time.sleep(_POLL_SECONDS)

    def _look(self) -> None:
        """Find out which of the feedback sent is already in the live tables."""
        status = self._http.status()
        known = [entry for entry in self._waiting if entry[0] <= status["position"]]
        self._waiting = self._waiting[len(known) :]
        self._sent += [(rows, status["swap"]) for _, _, rows in known]
        with self.tally.lock:
            self.tally.learned += [(status["swap"], sent, rows) for _, sent, rows in known]


def drive(
    stream: Stream,
    ports: tuple[int, int],
    model: str,
    clients: int,
    rate: float = 0.0,
    watch: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Send a stream through `clients` concurrent clients, each with its own users, and return what they observed.

    `watch` is called a few times a second.
    """
    tally = Tally(len(stream))
    owner = stream.columns["user_id"] % clients
    team: list[Client] = []

    def near(place: int) -> bool:
        return bool(rate) or place <= min((c.place for c in team), default=0) + _AHEAD

    for number in range(clients):
        team.append(Client(np.flatnonzero(owner == number), stream, ports, model, tally, near, rate / clients))
    threads = [threading.Thread(target=client.run, daemon=True) for client in team]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        watch(tally)
        time.sleep(0.2)
    watch(tally)
    return tally
