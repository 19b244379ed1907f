"""Export: PyTorch modules as ONNX, compared with torch before the file appears."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from riverdelta.core.durable import place
from riverdelta.core.errors import ParityError
from riverdelta.graph.runtime import open_session

_TOLERANCE = 1e-4


def export_module(
    model: nn.Module, rows: Mapping[str, Tensor], outputs: Sequence[str], path: Path, variadic: str | None = None
) -> Path:
    """Write `model` as ONNX with a dynamic first axis: inputs and example `rows` by name, weights in `<path>.data`.

    `variadic` is the name of the one parameter of `forward` that takes all inputs. Nothing is left behind if the export fails;
    raises `ParityError` if ONNX Runtime and torch differ by more than 1e-4 of the largest value, or of 1.
    """
    model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        made, batch = Path(work) / path.name, torch.export.Dim("batch", min=1)
        shapes: Any = tuple({0: batch} for _ in rows)
        with _quietly():
            torch.onnx.export(
                model,
                tuple(rows.values()),
                str(made),
                input_names=list(rows),
                output_names=list(outputs),
                dynamic_shapes={variadic: shapes} if variadic else shapes,
                dynamo=True,
                external_data=True,
                verbose=False,
            )
        _verify(model, rows, outputs, made)
        data = made.with_name(made.name + ".data")
        if data.exists():
            place(data, path.with_name(data.name))
        place(made, path)
    return path


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter's output about its internals: prints, warnings, and notes on optional packages."""
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
def _verify(model: nn.Module, rows: Mapping[str, Tensor], outputs: Sequence[str], path: Path) -> None:
    session = open_session(path, ("CPUExecutionProvider",))
    draw = torch.Generator().manual_seed(0)
    for count in (1, 2, 7, 512):
        fed = {name: _drawn(tensor, count, draw) for name, tensor in rows.items()}
        made = model(*fed.values())
        theirs = session.run(list(outputs), {name: tensor.numpy() for name, tensor in fed.items()})
        for name, mine, their in zip(outputs, made if isinstance(made, tuple) else (made,), theirs, strict=True):
            limit = _TOLERANCE * max(1.0, float(mine.abs().max()))
            gap = float(np.abs(their - mine.numpy()).max())
            if not gap <= limit:
                raise ParityError(
                    f"{name} of {path.name} differs from torch by {gap:.3g} at {count} rows; expected {limit:.3g}"
                )


def _drawn(tensor: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Return random rows: ids that the model may not know, or numbers."""
    shape = (count, *tensor.shape[1:])
    if tensor.is_floating_point():
        return torch.randn(shape, generator=draw)
    return torch.randint(-5, 2000, shape, generator=draw, dtype=tensor.dtype)
