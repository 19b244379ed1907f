"""What Prometheus costs the service: processor time of all its processes for each GET /metrics, and how many series it has.

The reference service with 4 workers, whose series all exist after some requests over each transport. The cost of a scrape is
taken from many in a row, less what the service spends in the same time when nobody asks. Then it is scraped once a second,
as Prometheus does, in turn with as many seconds of silence; the medians of both are compared.
Targets, of what prometheus_client's merge of the workers' files gives: under 4 % of a core at a scrape a second, 0.3 % at one
each 15 s.
Run: python tests/benchmarks/bench_scrape.py [--scrapes N] [--seconds S] [--json FILE]
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

from processes import cpu_seconds, processes

from riverdelta.lab.client import Grpc, Http
from riverdelta.lab.server import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from user import User

SERVICE = Path(__file__).parents[2] / "service"
WORKERS, ROUNDS = 4, 5


def with_workers(folder, workers):
    """Copy the reference service with another number of workers."""
    for path in SERVICE.glob("ranker.onnx*"):
        shutil.copy(path, folder)
    text = (SERVICE / "service.py").read_text()
    assert "workers=2" in text
    (folder / "service.py").write_text(text.replace("workers=2", f"workers={workers}"))


def scrape(server):
    """Return the page, over a connection of its own: any worker may answer."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        page = answer.read().decode()
        assert answer.status == 200, page[:300]
        return page


def spent(server, seconds, scrapes, pause):
    """Scrape, and stay silent for the rest of the time; return the processes' seconds and those of the wall."""
    pids = processes(server).values()
    start, before = time.perf_counter(), cpu_seconds(pids)
    for number in range(scrapes):
        scrape(server)
        time.sleep(max(start + pause * (number + 1) - time.perf_counter(), 0.0))
    time.sleep(max(start + seconds - time.perf_counter(), 0.0))
    return cpu_seconds(pids) - before, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrapes", type=int, default=100, help="how many in a row, each time")
    parser.add_argument("--seconds", type=int, default=10, help="how long at a scrape a second, and in silence, each time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "service"
        folder.mkdir()
        with_workers(folder, WORKERS)
        with serving(folder, "service:Ranker", Path(root) / "home" / "state") as server:
            for number in range(2 * WORKERS):
                transport = Grpc(server.grpc_port, "ranker") if number % 2 else Http(server.port)
                user = User(transport, number, rate=20.0)
                user.start()
                time.sleep(0.5)
                user.stop()
            time.sleep(3.0)
            lines = [line for line in scrape(server).splitlines() if not line.startswith("#")]
            silent, row, second = [], [], []
            for _ in range(ROUNDS):
                cpu, wall = spent(server, options.seconds, 0, 0.0)
                silent.append(cpu / wall)
                cpu, wall = spent(server, 0.0, options.scrapes, 0.0)
                row.append((cpu - silent[-1] * wall) / options.scrapes)
                cpu, wall = spent(server, options.seconds, options.seconds, 1.0)
                second.append(cpu / wall - silent[-1])
    each, measured = statistics.median(row), statistics.median(second)
    figures = {
        "workers": WORKERS,
        "series": len(lines),
        "riverdelta_series": sum(line.startswith("riverdelta_") for line in lines),
        "silent_core_ratio": statistics.median(silent),
        "scrape_ms": each * 1e3,
        "core_ratio_1s": each,
        "core_ratio_15s": each / 15,
        "measured_core_ratio_1s": measured,
    }
    print(f"{WORKERS} workers, {figures['series']:,} series on the page, {figures['riverdelta_series']:,} of them riverdelta's")
    print(f"a scrape costs {each * 1e3:.1f} ms of processor time; the silent service takes {figures['silent_core_ratio']:.1%}")
    for every, ratio, target in (("second", each, 0.04), ("15 s", each / 15, 0.003)):
        print(f"one each {every:<7} {ratio:.2%} of a core (target {target:.1%}: {'yes' if ratio < target else 'NO'})")
    print(f"measured at one each second, beside silence: {measured:+.2%} of a core")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
