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
from riverdelta.core.hashing import id64
from riverdelta.core.losses import loss_of
from riverdelta.graph.files import export
from riverdelta.graph.inspection import declaration
from riverdelta.learning.definition import Definition
from riverdelta.learning.service import load

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig

#: Rows of a request, a multiple of the number of users.
ROWS, USERS = 32, 4
_LOAD = "import sys, onnxruntime; [onnxruntime.InferenceSession(f, providers=['CPUExecutionProvider']) for f in sys.argv[1:]]"


@dataclass
class Export:
    """A model that a library wrote, a request, what the library itself predicts for it, and the line to write in `@online`.

    `prediction` is a probability for each row, or for each class of it, or a number. `raw` is the library's raw output where
    the service corrects that, else None. `exact` says that a fresh service has the bits of the file's own output `exact`.
    """

    path: Path
    columns: dict[str, Any]
    prediction: Any
    raw: Any = None
    exact: str | None = None
    line: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    corrections: list[Any] = field(default_factory=list)
    task: str = "binary"
    classes: tuple[str, ...] | None = None


def check(made: Export, folder: Path) -> None:
    """Serve an export, teach it, and take it elsewhere."""
    columns = {**made.columns, "user": np.arange(ROWS) % USERS}
    corrections = [Calibration(), Entity("user", slots=64), *made.corrections]
    declared = Schema.of({**made.reads, "user": "int64"})
    definition = Definition("scorer", made.path, columns=declared, corrections=corrections, task=made.task, **made.line)
    assert definition.loss.classes == made.classes
    rig = Rig(definition, folder / "home")
    try:
        fresh = rig.plane.score(columns)
        _is_the_base(made, fresh)
        if not made.line:
            _is_printed(made, definition, folder)
        liked = columns["user"] == 0
        labels = _labels(definition, liked, fresh)
        for _ in range(8):
            ids = rig.plane.score(columns).impressions
            asyncio.run(rig.plane.feedback([f"{ids}.{i}" for i in range(ROWS)], labels))
        rig.step()
        rig.step(seconds=rig.settings.release_seconds + 1)
        rig.plane.follower.follow()
        taught = rig.plane.score(columns)
        assert taught.state.position > fresh.state.position
        moved = _raw(definition, taught.scores) - _raw(definition, fresh.scores)
        assert moved[liked].mean() > moved[~liked].mean() + 0.1
        newest = rig.trainer.home.releases().all()[-1]
        merged = export(newest.path, folder / "out" / "merged.onnx")[0]
        _runs_elsewhere(merged, columns, made.line.get("names", {}), taught, definition)
    finally:
        rig.close()


def _labels(definition: Definition, liked: Any, fresh: Any) -> Any:
    """Return the first class, a 1 or a larger number for the rows that are liked, and another for all others."""
    if definition.loss.classes is not None:
        return [definition.loss.classes[0 if one else -1] for one in liked]
    if definition.loss.logit:
        return liked.astype(np.float32)
    return np.round(fresh.scores) + np.where(liked, 6, 0)


def _raw(definition: Definition, scores: Any) -> Any:
    """Return a number a row that rises with the label of liked rows: of several classes, the score of the first."""
    scores = np.asarray(scores, np.float64)
    if definition.loss.classes is None and not definition.loss.logit:
        return scores
    scores = np.clip(scores if scores.ndim == 1 else scores[:, 0], 1e-7, 1 - 1e-7)
    return np.log(scores) - np.log1p(-scores)


def _is_printed(made: Export, definition: Definition, folder: Path) -> None:
    """Check that what `riverdelta inspect` prints, executed, corrects the same output by the same meaning."""
    (folder / "printed.py").write_text(declaration(made.path, loss_of(made.task)))
    found, expected = load(str(folder / "printed.py")).signature, definition.signature
    assert (found.output, found.predicts, repr(found.loss)) == (expected.output, expected.predicts, repr(expected.loss))


def _is_the_base(made: Export, fresh: Any) -> None:
    base = np.asarray(fresh.base)
    if made.exact is not None:
        plain = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
        (own,) = plain.run([made.exact], {name: made.columns[name] for name in (i.name for i in plain.get_inputs())})
        assert base.tobytes() == own.astype(np.float32).tobytes()
    if made.raw is not None:
        np.testing.assert_allclose(base, np.reshape(made.raw, base.shape), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fresh.scores, np.reshape(made.prediction, fresh.scores.shape), rtol=1e-5, atol=1e-6)


def _runs_elsewhere(
    merged: Path, columns: dict[str, Any], names: dict[str, list[str]], taught: Any, definition: Definition
) -> None:
    """Check that plain ONNX Runtime says of it what the service does."""
    plain = onnxruntime.InferenceSession(str(merged), providers=["CPUExecutionProvider"])
    feeds = {}
    for value in plain.get_inputs():
        if value.name in names:  # sent as named parts
            column = np.stack([columns[name] for name in names[value.name]], 1)
        elif value.name.endswith("_id64"):
            column = np.array([id64(text) for text in columns[value.name.removesuffix("_id64")]])
        else:
            column = np.asarray(columns[value.name])
        feeds[value.name] = column.reshape(len(column), *value.shape[1:]) if None not in value.shape[1:] else column
    score, base = plain.run(["score", f"base_{definition.loss.raw}"], feeds)
    np.testing.assert_allclose(_raw(definition, score), _raw(definition, taught.scores), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(base, taught.base, rtol=1e-6, atol=1e-6)


def said(*models: Path) -> str:
    """Return what plain ONNX Runtime writes to the terminal when it loads models, less what it says of this machine."""

    def run(*files: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", _LOAD, *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if "device_discovery" not in line]

    return "\n".join(run(*map(str, models)))
