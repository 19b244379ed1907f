"""What new tables ten times a second do to a running service: failed requests, latency, and memory over the minutes.

The reference service, two workers and its learner. 4 users over HTTP and 4 over gRPC score and feed back all the while, so
that the learner has something to publish each 100 ms; a release is made every 30 s, the first within the first minute, so
that what a release takes is no growth later on. Every row is fed back, so that none waits in the joiner.

Memory is what each process has for itself: its anonymous pages, in memory or swapped out. Pages of files are left out, for
the system drops and reads them as it likes and other processes share them. Growth is the median over the last minute against
that over the second one; the first is left out.
Targets over 10 minutes: no failed request, growth of each process of at most 2 %.
Run: python tests/benchmarks/bench_swaps.py [--minutes M] [--json FILE]
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
from processes import own_bytes, processes

from riverdelta.lab.client import Grpc, Http
from riverdelta.lab.server import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from user import User, one_score_a_state

ROOT = Path(__file__).parents[2]
SWAP_SECONDS, USERS, SAMPLE_SECONDS = 0.1, 8, 2.0
SETTINGS = {"RIVERDELTA_SWAP_MIN_SECONDS": str(SWAP_SECONDS), "RIVERDELTA_RELEASE_SECONDS": "30"}
MIB = 1 << 20


def counted(server, name):
    """Return the sum of a metric's samples, over all workers."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def watch(server, seconds):
    """Note each process's memory for so long; return their names, times and a row of bytes for each time."""
    found = {name: pid for name, pid in processes(server).items() if name.startswith(("learner", "worker"))}
    times, rows = [], []
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        times.append(now)
        rows.append([own_bytes(pid) for pid in found.values()])
        time.sleep(SAMPLE_SECONDS)
    return list(found), np.array(times), np.array(rows)


def growth(times, rows, seconds):
    """Return (bytes early, bytes late, their ratio less 1) for each process; a short run is cut into quarters."""
    window = min(60.0, seconds / 4)
    early, late = (times >= window) & (times < 2 * window), times >= seconds - window
    before, after = np.median(rows[early], axis=0), np.median(rows[late], axis=0)
    return before, after, after / before - 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=40.0, help="exchanges (score, then feedback) a second, of all users")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds = 60.0 * options.minutes
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(ROOT, "service.service:Ranker", Path(folder) / "home" / "state", SETTINGS) as server,
    ):
        users = []
        for number in range(USERS):
            transport = Grpc(server.grpc_port, "ranker") if number % 2 else Http(server.port)
            users.append(User(transport, number, options.rate / USERS))
        before = server.status()["learning"]["swap"]
        for user in users:
            user.start()
        names, times, rows = watch(server, seconds)
        for user in users:
            user.stop()
        published = server.status()["learning"]["swap"] - before
        taken = counted(server, 'riverdelta_swaps_total{model="ranker",outcome="taken"}')
        refused = counted(server, 'riverdelta_swaps_total{model="ranker",outcome="refused"}')
    failures = [failure for user in users for failure in user.failures]
    back = sum(b < a for user in users for a, b in itertools.pairwise(swap for _, swap in user.states))
    p50, p99 = np.percentile(np.concatenate([user.seconds for user in users]), (50, 99)) * 1e3
    early, late, grown = growth(times, rows, seconds)
    figures = {
        "minutes": options.minutes,
        "requests": sum(user.requests for user in users),
        "failed": len(failures),
        "swaps_published": published,
        "swaps_taken": taken,
        "swaps_refused": refused,
        "states_met": len({state for user in users for state in user.states}),
        "states_gone_back": back,
        "states_of_two_scores": len(one_score_a_state(users)),
        "p50_ms": p50,
        "p99_ms": p99,
        "load_average": os.getloadavg()[0],
        "growth_ratio": dict(zip(names, grown.tolist(), strict=True)),
        "own_mib": {name: (rows[:, i] / MIB).round(2).tolist() for i, name in enumerate(names)},
    }
    print(
        f"{options.minutes:g} minutes: {figures['requests']:,} requests, {len(failures)} failed; {published:,} swaps "
        f"published, {taken:,.0f} taken by {len(names) - 1} workers, {refused:,.0f} refused; {figures['states_met']:,} states "
        f"met, {back} times an older one, {figures['states_of_two_scores']} with two scores"
    )
    print(f"score: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    for name, was, now, ratio in zip(names, early, late, grown, strict=True):
        verdict = "yes" if ratio <= 0.02 else "NO"
        print(f"{name:<9} {was / MIB:8.1f} MiB early, {now / MIB:8.1f} MiB late: {ratio:+.2%} (at most 2 %: {verdict})")
    for failure in failures[:5]:
        print(failure, file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
