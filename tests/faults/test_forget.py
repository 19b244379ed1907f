"""kill -9 at the learner in each step of a `riverdelta forget`, while a worker scores and takes feedback."""

import shutil
import time

import pytest

from riverdelta.core.hashing import id64
from riverdelta.learning.commands import COMMANDS
from riverdelta.sidecar.operator import Operator

ANN = id64("ann")
#: In the order of an erasure: its checkpoint, those before it, releases, journal, and what is left in write-ahead logs.
STEPS = [
    ("before replace checkpoint", 1),
    ("after unlink checkpoint", 1),
    ("after replace state", 1),
    ("before replace index", 1),
    *(("after sqlite commit", nth) for nth in (1, 2, 3, 4)),
    ("before sqlite settle", 1),
    ("after sqlite settle", 1),
]


@pytest.mark.parametrize("scene", [{"labels": "kept"}], indirect=True)
def test_killed_in_each_of_its_steps_a_forget_is_complete_and_nobody_else_loses_anything(scene):
    scene.users[7] = ANN
    scene.live({"seconds": 1.5})
    scene.users[7], scene.pause = 8, 0.2
    time.sleep(0.2)  # the exchange that had begun
    sequence = Operator(scene.home, scene.plane.journal).ask(COMMANDS["forget"](what=f"user={ANN}"))
    assert ANN in scene.of.values()
    found = [scene.live({"point": point, "nth": nth, "erasing": True})["hit"] for point, nth in STEPS]
    assert found == [point for point, _ in STEPS]
    scene.live({"peace": True})
    ((_, record),) = scene.plane.journal.read(sequence - 1, 1)
    assert record.fields["what"].startswith("user=#")
    assert not any(outcome["pending"] for outcome in scene.home.read_status()["outcomes"])
    needles = ANN.to_bytes(8, "little", signed=True), str(ANN).encode()
    files = [path for path in scene.home.folder.rglob("*") if path.is_file()]
    assert [path.name for path in files for needle in needles if needle in path.read_bytes()] == []
    since = shutil.copytree(scene.home.folder, scene.folder / "since", ignore=shutil.ignore_patterns("journal"))
    scene.live({"seconds": 0.3})
    verdict = scene.verdict(forgotten=ANN, since=since)
    assert verdict.failures == ()
    assert (verdict.lost, verdict.doubled, verdict.unmatched) == (0, 0, 0)
    assert verdict.differing == ()
