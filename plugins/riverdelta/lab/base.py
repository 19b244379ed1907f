"""A trained and exported base, and its logits: what the demo and replay begin with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riverdelta.core.features import Floats
from riverdelta.graph.runtime import open_session
from riverdelta.lab.deepfm import DeepFMOptions
from riverdelta.lab.export import export
from riverdelta.lab.stream import Stream
from riverdelta.lab.train import train

_BLOCK = 8192


@dataclass(frozen=True)
class BaseReport:
    """Where the base is, and how long its training took."""

    path: Path
    seconds: float


def train_base(first: Stream, folder: Path, options: DeepFMOptions | None = None, name: str = "base.onnx") -> BaseReport:
    """Train a DeepFM on `first` (by custom the first half of a stream) and export it to `folder`/`name`."""
    start = time.perf_counter()
    path = export(train(first, options), folder / name)
    return BaseReport(path, time.perf_counter() - start)


def base_logits(model: Path, stream: Stream) -> Floats:
    """Return the frozen base's logit of every row, float32[N]."""
    session = open_session(model, ("CPUExecutionProvider",))
    names = [i.name for i in session.get_inputs()]
    parts = [
        session.run(["logit"], {name: stream.columns[name][at : at + _BLOCK] for name in names})[0]
        for at in range(0, len(stream), _BLOCK)
    ]
    return np.concatenate(parts).reshape(-1)
