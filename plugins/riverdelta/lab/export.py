"""Export of the base by torch's dynamo exporter, with a dynamic batch axis and its weights in a file beside it."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from riverdelta.core.durable import place
from riverdelta.core.errors import ParityError
from riverdelta.lab.deepfm import DeepFM

_TOLERANCE = 1e-4


def export(model: DeepFM, path: Path) -> Path:
    """Write `model` as ONNX: inputs int64[batch] named as its fields, output `logit` float32[batch], weights in `<path>.data`.

    Nothing is left behind when the export fails; raises `ParityError` when ONNX Runtime and torch differ by over 1e-4.
    """
    model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        made = Path(work) / path.name
        example = tuple(torch.ones(3, dtype=torch.int64) for _ in model.fields)
        batch = torch.export.Dim("batch", min=1)
        with _quietly():
            torch.onnx.export(
                model,
                example,
                str(made),
                input_names=list(model.fields),
                output_names=["logit"],
                dynamic_shapes={"ids": tuple({0: batch} for _ in model.fields)},
                dynamo=True,
                external_data=True,
                verbose=False,
            )
        _verify(model, made)
        data = made.with_name(made.name + ".data")
        place(data, path.with_name(data.name))
        place(made, path)
    return path


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what the exporter says of its own internals: prints, warnings, and notes on packages that nobody needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@torch.no_grad()
def _verify(model: DeepFM, path: Path) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    for rows in (1, 2, 7, 512):
        ids = [draw.integers(-5, 2000, rows) for _ in model.fields]
        theirs = session.run(["logit"], dict(zip(model.fields, ids, strict=True)))[0]
        gap = float(np.abs(theirs - model(*map(torch.from_numpy, ids)).numpy()).max())
        if not gap <= _TOLERANCE:
            raise ParityError(f"{path.name} differs from torch by {gap:.3g} logits at {rows} rows; expected {_TOLERANCE}")
