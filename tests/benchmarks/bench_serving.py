"""What a request costs the server beside a plain `@bentoml.api` service of the same ONNX file, and what swaps do to p99.

Both are real `bentoml serve` processes with the same number of workers and their defaults. The cost is user and system time
of the worker processes by request; "less ONNX" takes off what each one's own model costs when it is run by itself. Ours
journals every row and learns all the while: five times a second 64 rows are scored and labelled, at its expense.

Targets, ours over plain, less ONNX: a third at 1 and 32 rows, half at 512. p99 with a swap each second: at most 1.3 times.
Run: python tests/benchmarks/bench_serving.py [--json FILE]
"""

import argparse
import contextlib
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import uvloop
from client import GrpcConnection, HttpConnection, closed_loop, open_loop
from processes import cpu_seconds
from server import Server

from riverdelta.graph.runtime import open_session
from riverdelta.lab.base import export
from riverdelta.lab.deepfm import DeepFM, DeepFMOptions
from riverdelta.lab.stream import Stream
from riverdelta.serving.oip.messages import MESSAGES, SERVICE
from riverdelta.storage.registry import FolderRegistry, ReleaseStore

USERS, ITEMS, CLIENTS, BODIES = 6_000, 4_000, 8, 64
TARGETS = {1: 1 / 3, 32: 1 / 3, 512: 1 / 2}
PLAIN = """
import bentoml, numpy as np, onnxruntime

@bentoml.service(workers={workers})
class Plain:
    def __init__(self):
        self.session = onnxruntime.InferenceSession("base.onnx", providers=["CPUExecutionProvider"])

    @bentoml.api
    def score(self, user_id: np.ndarray, item_id: np.ndarray) -> np.ndarray:
        return self.session.run(["logit"], {{"user_id": user_id, "item_id": item_id}})[0]
"""
RANKER = """
import bentoml
from riverdelta import Calibration, Entity, Linear
from riverdelta.bento import online

@bentoml.service(workers={workers}, traffic={{"timeout": 5}}, logging={{"access": {{"enabled": False}}}})
@online(
    base="base.onnx",
    logit="logit",
    taps={{"item_vec": "embedding_3"}},
    corrections=[Calibration(), Linear("user_id", "item_id"), Entity("user_id", on=["item_vec"])],
)
class Ranker: ...
"""


def make_base(folder):
    """Export a DeepFM of the size of a small catalogue; what it has learned does not matter here."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    columns = {"user_id": rng.integers(0, USERS, 100_000), "item_id": rng.integers(0, ITEMS, 100_000)}
    stream = Stream("catalogue", columns, np.zeros(100_000, np.float32), np.arange(100_000.0))
    export(DeepFM(stream, DeepFMOptions(min_count=1)), folder / "base.onnx")


def draw(rows, seed):
    rng = np.random.default_rng(seed)
    return {"user_id": rng.integers(0, USERS, rows), "item_id": rng.integers(0, ITEMS, rows)}


def encoded(kind, rows):
    """Return requests of `rows` rows as bytes: `plain` and `rest` JSON, `grpc` an Open Inference request."""
    bodies = []
    for seed in range(BODIES):
        columns = draw(rows, seed)
        if kind == "grpc":
            tensor = MESSAGES["InferInputTensor"]
            inputs = [tensor(name=n, datatype="INT64", shape=[rows]) for n in columns]
            raw = [c.tobytes() for c in columns.values()]
            request = MESSAGES["ModelInferRequest"](model_name="ranker", inputs=inputs, raw_input_contents=raw)
            bodies.append(request.SerializeToString())
        else:
            lists = {n: c.tolist() for n, c in columns.items()}
            bodies.append(json.dumps(lists if kind == "plain" else {"columns": lists}, separators=(",", ":")).encode())
    return bodies


def connections(kind, server):
    if kind == "grpc":
        return [GrpcConnection(server.grpc_port, f"/{SERVICE}/ModelInfer") for _ in range(CLIENTS)]
    return [HttpConnection(server.port, "/score") for _ in range(CLIENTS)]


def onnx_seconds(session, rows):
    """Return what one run costs in processor time."""
    feeds = draw(rows, 0)
    for _ in range(20):
        session.run(None, feeds)
    costs = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(100):
            session.run(None, feeds)
        costs.append((time.process_time() - start) / 100)
    return min(costs)


class Teacher:
    """Scores rows and labels them, `times` a second, for as long as the `with` lasts."""

    def __init__(self, server, times, rows):
        self.server, self.times, self.rows = server, times, rows
        self.stopping = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self.teach)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        if self.error is not None:
            raise self.error

    def teach(self):
        try:
            self._teach()
        except Exception as error:  # raised again where the `with` ends
            self.error = error

    def _teach(self):
        draws = np.random.default_rng(1)
        due = time.monotonic()
        while not self.stopping.wait(max(due - time.monotonic(), 0.0)):
            due += 1 / self.times
            columns = {n: c.tolist() for n, c in draw(self.rows, draws).items()}
            name = json.loads(self.server.post("/score", json.dumps({"columns": columns})))["impressions"]
            items = [{"id": f"{name}.{i}", "label": int(draws.random() < 0.4)} for i in range(self.rows)]
            self.server.post("/feedback", json.dumps({"items": items}))


def cost(kind, server, rows, seconds):
    """Return requests a second, seconds of the workers' processors by request, and latencies."""
    start = []
    loop = closed_loop(
        connections(kind, server),
        encoded(kind, rows),
        seconds,
        0.7,
        lambda: start.extend((time.perf_counter(), cpu_seconds(server.workers))),
    )
    latencies = uvloop.run(loop)
    return (
        len(latencies) / (time.perf_counter() - start[0]),
        (cpu_seconds(server.workers) - start[1]) / len(latencies),
        latencies,
    )


def compare_cost(plain, ours, base, merged, seconds, rounds):
    """Measure the cells in turn, several times; the cheapest of a cell counts, for a neighbour only ever adds to it."""
    figures = {}
    titles = ("requests/s", "p50 ms", "p99 ms", "CPU ms", "less ONNX", "of plain")
    print(f"{'rows':>5} {'':<12} " + " ".join(f"{t:>10}" for t in titles) + "  target")
    cells = {"plain REST": ("plain", plain, base), "ours REST": ("rest", ours, merged), "ours gRPC": ("grpc", ours, merged)}
    for rows in TARGETS:
        runs = {label: [] for label in cells}
        for label, (kind, server, _) in [*cells.items()] * rounds:
            with Teacher(ours, times=5, rows=64) if server is ours else contextlib.nullcontext():
                runs[label].append(cost(kind, server, rows, seconds))
        first = None
        for label, (kind, _, model) in cells.items():
            rate, cpu = max(run[0] for run in runs[label]), min(run[1] for run in runs[label])
            p50, p99 = np.percentile(np.concatenate([run[2] for run in runs[label]]), (50, 99)) * 1e3
            net = max(cpu - onnx_seconds(model, rows), 1e-9)
            first = first or net
            figures[f"{kind}_{rows}"] = {
                "requests_per_second": rate,
                "cpu_ms": cpu * 1e3,
                "net_cpu_ms": net * 1e3,
                "of_plain": net / first,
                "p50_ms": p50,
                "p99_ms": p99,
            }
            target = "" if kind == "plain" else f"{TARGETS[rows]:.2f} {'yes' if net / first <= TARGETS[rows] else 'NO'}"
            values = (f"{rate:,.0f}", *(f"{v:.3f}" for v in (p50, p99, cpu * 1e3, net * 1e3, net / first)))
            print(f"{rows:>5} {label:<12} " + " ".join(f"{v:>10}" for v in values) + f"  {target}", flush=True)
    return figures


def swap_number(server):
    return json.loads(server.get("/status")[1])["swap"]


def compare_swaps(ours, rate, seconds, rounds):
    """Return p99 at a fixed rate without and with one swap a second, in alternation: the median over the rounds."""
    tails = {"without": [], "with": []}
    swaps = {"without": 0, "with": 0}
    bodies = encoded("rest", 32)
    for _ in range(rounds):
        for name in tails:
            before = swap_number(ours)
            with Teacher(ours, times=1, rows=64) if name == "with" else contextlib.nullcontext():
                latencies = uvloop.run(open_loop(connections("rest", ours), bodies, rate, seconds))
            time.sleep(0.5)
            swaps[name] += swap_number(ours) - before
            tails[name].append(np.percentile(latencies, (50, 99)) * 1e3)
    figures = {"rate": rate}
    for name, rows in tails.items():
        p50, p99 = np.median(rows, axis=0)
        figures |= {f"p50_ms_{name}": p50, f"p99_ms_{name}": p99, f"swaps_{name}": swaps[name]}
        print(f"{rate} requests a second of 32 rows, {swaps[name]:>3} swaps: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    figures["p99_ratio"] = figures["p99_ms_with"] / figures["p99_ms_without"]
    print(f"p99 with swaps over p99 without: {figures['p99_ratio']:.2f} (target 1.3)")
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each cell is measured, each time")
    parser.add_argument("--times", type=int, default=3, help="how often each cell is measured")
    parser.add_argument("--rate", type=int, default=100, help="requests a second while p99 is measured")
    parser.add_argument("--rounds", type=int, default=5, help="how often p99 is measured without and with swaps")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folders = {"Plain": Path(root) / "plain", "Ranker": Path(root) / "ours"}
        for folder, text in zip(folders.values(), (PLAIN, RANKER), strict=True):
            make_base(folder)
            (folder / "service.py").write_text(text.format(workers=options.workers))
        with Server(folders["Plain"], "Plain") as plain, Server(folders["Ranker"], "Ranker") as ours:
            release = ReleaseStore(FolderRegistry(folders["Ranker"] / "home" / "ranker")).latest_good()
            base = onnxruntime.InferenceSession(folders["Plain"] / "base.onnx", providers=["CPUExecutionProvider"])
            merged = open_session(release.path, ["CPUExecutionProvider"])
            figures = {"cost": compare_cost(plain, ours, base, merged, options.seconds, options.times)}
            figures["swaps"] = compare_swaps(ours, options.rate, 4.0, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
