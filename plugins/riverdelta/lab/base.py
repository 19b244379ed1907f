"""The base: a DeepFM trained on the first half of a stream and exported to ONNX, for the demo and replay."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from riverdelta.core.features import Floats
from riverdelta.graph.runtime import open_session
from riverdelta.lab.deepfm import DeepFM, DeepFMOptions
from riverdelta.lab.export import export_module
from riverdelta.lab.stream import Stream

_BLOCK = 8192


@dataclass(frozen=True)
class BaseReport:
    """The base's file, and how long its training took."""

    path: Path
    seconds: float


def train_base(first: Stream, folder: Path, options: DeepFMOptions | None = None, name: str = "base.onnx") -> BaseReport:
    """Train a DeepFM on `first` (usually the first half of a stream) and export it to `folder`/`name`."""
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


def train(stream: Stream, options: DeepFMOptions | None = None) -> DeepFM:
    """Return a DeepFM trained on all but the last tenth of `stream`, from the epoch that is best on that tenth.

    The same seed gives the same model on the same machine type.
    """
    options = options or DeepFMOptions()
    cut = len(stream) - len(stream) // 10
    torch.set_num_threads(options.threads)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        model = DeepFM(stream[:cut], options)
        return _fit(model, _tensors(model, stream[:cut]), _tensors(model, stream[cut:]), options)


_Rows = tuple[tuple[Tensor, ...], Tensor]


def _tensors(model: DeepFM, stream: Stream) -> _Rows:
    ids = tuple(torch.from_numpy(np.ascontiguousarray(stream.columns[name])) for name in model.fields)
    return ids, torch.from_numpy(np.ascontiguousarray(stream.label))


def _fit(model: DeepFM, rows: _Rows, held: _Rows, options: DeepFMOptions) -> DeepFM:
    loss = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate, weight_decay=options.l2)
    model.bias.data.fill_(torch.logit(rows[1].mean().clamp(1e-3, 1 - 1e-3)).item())
    best, best_state, best_epoch = _validate(model, held, loss), copy.deepcopy(model.state_dict()), 0
    for epoch in range(1, options.epochs + 1):
        model.train()
        for batch in torch.split(torch.randperm(len(rows[1])), options.batch):
            optimizer.zero_grad()
            loss(model(*(ids[batch] for ids in rows[0])), rows[1][batch]).backward()
            optimizer.step()
        now = _validate(model, held, loss)
        if now < best:
            best, best_state, best_epoch = now, copy.deepcopy(model.state_dict()), epoch
        elif epoch - best_epoch >= options.patience:
            break
    model.load_state_dict(best_state)
    model.eval()
    return model


@torch.no_grad()
def _validate(model: DeepFM, held: _Rows, loss: nn.Module) -> float:
    model.eval()
    return float(loss(model(*held[0]), held[1])) if len(held[1]) else float("inf")


def export(model: DeepFM, path: Path) -> Path:
    """Write `model` as ONNX: inputs int64[batch] named as its fields, output `logit` float32[batch]; see `export_module`."""
    ids = {field: torch.ones(3, dtype=torch.int64) for field in model.fields}
    return export_module(model, ids, ["logit"], path, variadic="ids")
