"""The same lines for every export: a fresh service is the base, it learns, and what it learned can be taken elsewhere."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from riverdelta import Calibration, Entity
from riverdelta.core.features import Schema
from riverdelta.graph.files import export
from riverdelta.learning.definition import Definition

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig

#: Rows of a request, a multiple of the number of users.
ROWS, USERS = 32, 4
_LOAD = "import sys, onnxruntime; [onnxruntime.InferenceSession(f, providers=['CPUExecutionProvider']) for f in sys.argv[1:]]"


@dataclass
class Export:
    """A model that a library wrote, a request, what the library itself predicts for it, and the line to write in `@online`.

    `raw` is the library's raw output where the service corrects that, else None. `exact` says that a fresh service has the bits
    of the file's own output `exact`.
    """

    path: Path
    columns: dict[str, Any]
    probability: Any
    raw: Any = None
    exact: str | None = None
    line: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    corrections: list[Any] = field(default_factory=list)


def check(made: Export, folder: Path) -> None:
    """Serve an export, teach it, and take it elsewhere."""
    columns = {**made.columns, "user": np.arange(ROWS) % USERS}
    corrections = [Calibration(), Entity("user", slots=64), *made.corrections]
    declared = Schema.of({**made.reads, "user": "int64"})
    definition = Definition("scorer", made.path, columns=declared, corrections=corrections, **made.line)
    rig = Rig(definition, folder / "home")
    try:
        fresh = rig.plane.score(columns)
        _is_the_base(made, fresh)
        liked = (columns["user"] == 0).astype(np.float32)
        for _ in range(8):
            ids = rig.plane.score(columns).impressions
            asyncio.run(rig.plane.feedback([f"{ids}.{i}" for i in range(ROWS)], liked))
            rig.step()
        rig.step(seconds=rig.settings.release_seconds + 1)
        rig.plane.follower.follow()
        taught = rig.plane.score(columns)
        assert taught.state.position > fresh.state.position
        moved = _raw(taught.scores) - _raw(fresh.scores)
        assert moved[liked == 1].mean() > moved[liked == 0].mean() + 0.1
        newest = rig.trainer.home.releases().all()[-1]
        _runs_elsewhere(export(newest.path, folder / "out" / "merged.onnx")[0], columns, taught)
    finally:
        rig.close()


def _raw(scores: Any) -> Any:
    scores = np.clip(np.asarray(scores, np.float64), 1e-7, 1 - 1e-7)
    return np.log(scores) - np.log1p(-scores)


def _is_the_base(made: Export, fresh: Any) -> None:
    base = np.ravel(fresh.base)
    if made.exact is not None:
        plain = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
        (own,) = plain.run([made.exact], {name: made.columns[name] for name in (i.name for i in plain.get_inputs())})
        assert base.tobytes() == own.astype(np.float32).tobytes()
    if made.raw is not None:
        np.testing.assert_allclose(base, np.ravel(made.raw), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fresh.scores, np.ravel(made.probability), atol=1e-6)


def _runs_elsewhere(merged: Path, columns: dict[str, Any], taught: Any) -> None:
    """Check that plain ONNX Runtime says of it what the service does."""
    plain = onnxruntime.InferenceSession(str(merged), providers=["CPUExecutionProvider"])
    feeds = {}
    for value in plain.get_inputs():
        column = np.asarray(columns[value.name])
        feeds[value.name] = column.reshape(len(column), *value.shape[1:]) if None not in value.shape[1:] else column
    score, base = plain.run(["score", "base_logit"], feeds)
    np.testing.assert_allclose(_raw(score), _raw(taught.scores), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(base, np.ravel(taught.base), rtol=1e-6, atol=1e-6)


def said(*models: Path) -> str:
    """Return what plain ONNX Runtime writes to the terminal when it loads models, less what it says of this machine."""

    def run(*files: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", _LOAD, *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if "device_discovery" not in line]

    return "\n".join(run(*map(str, models)))
