"""A trained and exported base: the one call that the demo and replay make."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from riverdelta.lab.deepfm import DeepFMOptions
from riverdelta.lab.export import export
from riverdelta.lab.stream import Stream
from riverdelta.lab.train import train


@dataclass(frozen=True)
class BaseReport:
    """Where the base is, how long its training took, the epoch that was kept and its validation log loss."""

    path: Path
    seconds: float
    epoch: int
    log_loss: float


def train_base(first: Stream, folder: Path, options: DeepFMOptions | None = None, name: str = "base.onnx") -> BaseReport:
    """Train a DeepFM on `first` (by custom the first half of a stream) and export it to `folder`/`name`."""
    start = time.perf_counter()
    training = train(first, options)
    path = export(training.model, folder / name)
    return BaseReport(path, time.perf_counter() - start, training.epoch, training.log_loss)
