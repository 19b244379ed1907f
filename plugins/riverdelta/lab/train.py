"""Training of the base: Adam, L2, dropout, and early stopping on the last tenth in time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from riverdelta.lab.deepfm import DeepFM, DeepFMOptions
from riverdelta.lab.stream import Stream


def train(stream: Stream, options: DeepFMOptions | None = None) -> DeepFM:
    """Return a DeepFM trained on all but the last tenth of `stream`, as it was after the epoch that is best on that tenth.

    The same seed gives the same model on the same machine type.
    """
    options = options or DeepFMOptions()
    cut = len(stream) - len(stream) // 10
    with torch.random.fork_rng(), _threads(options.threads):
        torch.manual_seed(options.seed)
        model = DeepFM(stream[:cut], options)
        return _fit(model, _tensors(model, stream[:cut]), _tensors(model, stream[cut:]), options)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
