"""Network: a small classifier on a vector, whose hidden layer corrections can read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from riverdelta.core.features import Floats
from riverdelta.lab.export import export_module

_HIDDEN, _EPOCHS, _BATCH, _RATE, _DROPOUT = 64, 40, 64, 1e-3, 0.3


class Network(nn.Module):
    """Standardizes features, then one hidden layer and K logits; returns both."""

    def __init__(self, features: Tensor, classes: int) -> None:
        super().__init__()
        self.mean, self.scale = nn.Buffer(features.mean(0)), nn.Buffer(features.std(0).clamp(min=1e-3))
        self.hidden = nn.Sequential(nn.Linear(features.shape[1], _HIDDEN), nn.ReLU())
        self.dropout, self.out = nn.Dropout(_DROPOUT), nn.Linear(_HIDDEN, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden((features - self.mean) / self.scale)
        return self.out(self.dropout(hidden)), hidden


def train_network(features: Floats, label: Floats, classes: int, path: Path) -> None:
    """Train a network and export it: input `features`, outputs `logits` and `hidden`."""
    rows, target = torch.from_numpy(features), torch.from_numpy(label).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, loss = Network(rows, classes), nn.CrossEntropyLoss()
        optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
        for _ in range(_EPOCHS):
            for batch in torch.split(torch.randperm(len(target)), _BATCH):
                optimizer.zero_grad()
                loss(model(rows[batch])[0], target[batch]).backward()
                optimizer.step()
    export_module(model, {"features": rows[:3]}, ["logits", "hidden"], path)
