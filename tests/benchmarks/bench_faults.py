"""Kills -9, and what they cost: feedback lost or learned twice, arrays that differ from a run in peace, requests that failed.

The learner alone is killed at every named point inside its saves and at random moments, with explicit labels and with silence
in turn, beside a worker that scores and takes feedback without a pause. Then whole servers are killed, every process at once,
some while they start, some after one worker or the learner was killed alone, with clients over HTTP that send again what got
no answer. At the end the journal is learned once more by one life from its beginning, and everything must be equal.
Requests that a killed process held fail, and are counted apart. Target: zero lost, doubled and differing over 500 kills.
Run: python tests/benchmarks/bench_faults.py [--task NAME] [--learner 20] [--server 2] [--seed N] [--json FILE]; make
bench-faults kills 500. Labels of any task but binary are explicit.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("", "faults"))

from points import POINTS
from scene import Scene, plans
from served import Served

from small_scorers import TASKS

LABELS = ("explicit", "silence")
#: How often a point that no life came to is tried again.
_AGAIN = 2


def kill_learners(folder, task, labels, kills, seed):
    """Return the figures of `kills` lives of a learner; where they are enough for it, every point is visited."""
    started, reports = time.monotonic(), []
    with Scene(folder, labels=labels, seed=seed, task=task) as scene:
        for plan in plans(kills, seed):
            reports.append(scene.live(plan))
            show(f"{task}, {labels}: {len(reports)} kills")
        if kills > 2 * len(POINTS):
            for point in [point for point in POINTS if point not in visited(reports)] * _AGAIN:
                if point not in visited(reports):
                    reports.append(scene.live({"point": point, "nth": 1}))
        verdict = scene.verdict()
    return {
        "kills": len(reports),
        "at_points": sum(report["hit"] in POINTS for report in reports),
        "points_visited": len(visited(reports)),
        "failed_of_killed": 0,
        "impressions_lost": 0,
        **figures(verdict, started),
    }


def kill_servers(folder, task, kills, seed):
    """Return the figures of `kills` lives of a whole server; every fifth is killed while it starts."""
    started, served, start_seconds = time.monotonic(), Served(folder, task, seed), 10.0
    for life in range(kills):
        if life % 5 == 4:
            served.stillborn(start_seconds)
        else:
            served.life()
        show(f"{task} servers: {life + 1} kills")
    verdict = served.verdict()
    return {
        "kills": served.kills["server"],
        "alone": {kind: served.kills[kind] for kind in ("worker", "learner")},
        "while_starting": served.kills["starting"],
        "requests": sum(client.requests for client in served.clients),
        "failed_of_killed": served.of_killed,
        "impressions_lost": served.impressions_lost(),
        **figures(verdict, started),
    }


def figures(verdict, started):
    """What a verdict comes to in numbers, and the names of what differs."""
    return {
        "accepted": verdict.accepted,
        "examples": verdict.examples,
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "unmatched": verdict.unmatched,
        "behind": verdict.last - verdict.position,
        "differing": list(verdict.differing),
        "failed": len(verdict.failures),
        "why": sorted(set(verdict.failures))[:5],
        "seconds": round(time.monotonic() - started, 1),
    }


def visited(reports):
    return {report["hit"] for report in reports} & set(POINTS)


def show(text):
    print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


def table(found):
    """Print one line for each kind of kill."""
    columns = ("kills", "accepted", "examples", "lost", "doubled", "differing", "failed", "failed_of_killed", "seconds")
    print("\r" + f"{'':<18}" + "".join(f"{name.replace('_', ' '):>18}" for name in columns))
    for name, of in found.items():
        shown = [len(of[c]) if c == "differing" else of[c] for c in columns]
        print(f"{name:<18}" + "".join(f"{value:>18,}" for value in shown))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, default="binary", help="what is served")
    parser.add_argument("--learner", type=int, default=20, help="how often the learner alone is killed")
    parser.add_argument("--server", type=int, default=2, help="how often a whole server is killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    found, ways = {}, LABELS if given.task == "binary" else LABELS[:1]
    with tempfile.TemporaryDirectory() as folder:
        for turn, labels in enumerate(ways):
            if kills := (given.learner + turn) // len(ways):
                found[f"learner, {labels}"] = kill_learners(Path(folder) / labels, given.task, labels, kills, given.seed + turn)
        if given.server:
            found["whole server"] = kill_servers(Path(folder) / "served", given.task, given.server, given.seed)
    table(found)
    for name, of in found.items():
        print(name, {key: value for key, value in of.items() if key not in ("differing", "why")})
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    wrong = ("lost", "doubled", "unmatched", "behind", "differing", "failed")
    faults = {name: {key: of[key] for key in (*wrong, "why") if of[key]} for name, of in found.items()}
    sys.exit(f"faults: {faults}" if any(faults.values()) else 0)


if __name__ == "__main__":
    main()
