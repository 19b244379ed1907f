"""DeepFM (Guo et al. 2017, arXiv 1703.04247) over raw ids, with a trained out-of-vocabulary row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from riverdelta.core.features import Ints
from riverdelta.lab.stream import Stream


@dataclass(frozen=True)
class DeepFMOptions:
    """Sizes and training of the base; the defaults suit streams of 10⁴ to 10⁷ rows.

    `oov_rate` is the share of ids that training replaces with the out-of-vocabulary row; ids with fewer than `min_count` rows
    always use it. Training stops after `patience` epochs without a better validation loss. One of `threads` is enough for
    batches of this size: two that wait for each other on a busy machine took ten times as long.
    """

    dim: int = 16
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.3
    l2: float = 1e-5
    rate: float = 1e-3
    batch: int = 512
    epochs: int = 30
    patience: int = 3
    oov_rate: float = 0.1
    min_count: int = 3
    threads: int = 1
    seed: int = 0


class Vocabulary(nn.Module):
    """Maps raw ids int64[N] to rows by a dense table up to the largest id: 0 if unknown, else 1 and up."""

    def __init__(self, ids: Ints, min_count: int) -> None:
        super().__init__()
        known, counts = np.unique(ids, return_counts=True)
        known = known[(counts >= min_count) & (known >= 0) & (known < 2**24)]
        index = np.zeros(int(known.max(initial=0)) + 1, np.int64)
        index[known] = np.arange(1, len(known) + 1)
        self.size = len(known) + 1
        self.register_buffer("index", torch.from_numpy(index))
        self.index: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        inside = (ids >= 0) & (ids < self.index.shape[0])
        return torch.where(inside, self.index[ids.clamp(0, self.index.shape[0] - 1)], torch.zeros_like(ids))


class DeepFM(nn.Module):
    """logit = bias + Σ first-order + Σ pairwise ⟨vᵢ, vⱼ⟩ + MLP(v), over id fields and one multi-hot field of genres.

    Inputs are the id columns in `fields` order, int64[N]; the genres are looked up by item id from a buffer. The output is
    the logit float32[N].
    """

    def __init__(self, stream: Stream, options: DeepFMOptions) -> None:
        super().__init__()
        self.fields = tuple(name for name, column in stream.columns.items() if column.dtype == np.int64)
        self.options = options
        self.vocabularies = nn.ModuleDict()
        self.first = nn.ModuleDict()
        self.embedding = nn.ModuleDict()
        for name in self.fields:
            vocabulary = self.vocabularies[name] = Vocabulary(stream.columns[name], options.min_count)
            self._field(name, vocabulary.size)
        tables = {side: table for side, table in stream.tables.items() if table.key in self.fields}
        self.sides = {side: table.key for side, table in tables.items()}
        for side, table in tables.items():
            keys = np.concatenate([table.keys, [0]])
            catalogue = Vocabulary(keys[keys >= 0], 1)
            self.vocabularies[side] = catalogue
            values = np.zeros((catalogue.size, table.values.shape[1]), np.float32)
            rows = catalogue(torch.from_numpy(table.keys.astype(np.int64))).numpy()
            values[rows[rows > 0]] = table.values[rows > 0]
            values /= np.maximum(np.abs(values).sum(axis=1, keepdims=True), 1.0)
            self.register_buffer(f"{side}_values", torch.from_numpy(values))
            self._field(side, table.values.shape[1])
        width = options.dim * (len(self.fields) + len(self.sides))
        layers: list[nn.Module] = []
        for hidden in options.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(options.dropout)]
            width = hidden
        self.deep = nn.Sequential(*layers, nn.Linear(width, 1))
        self.drop = nn.Dropout(options.dropout)
        self.bias = nn.Parameter(torch.zeros(1))

    def _field(self, name: str, rows: int) -> None:
        self.first[name] = nn.Embedding(rows, 1)
        self.embedding[name] = nn.Embedding(rows, self.options.dim)
        nn.init.zeros_(self.first[name].weight)  # type: ignore[arg-type]
        nn.init.normal_(self.embedding[name].weight, std=0.05)  # type: ignore[arg-type]

    def forward(self, *ids: Tensor) -> Tensor:
        given = dict(zip(self.fields, ids, strict=True))
        linear, vectors = [], []
        for name, raw in given.items():
            rows = self.vocabularies[name](raw)
            if self.training:
                rows = rows * (torch.rand(rows.shape) >= self.options.oov_rate)
            linear.append(self.first[name](rows))
            vectors.append(self.embedding[name](rows))
        for side, key in self.sides.items():
            values = getattr(self, f"{side}_values")[self.vocabularies[side](given[key])]
            linear.append(values @ self.first[side].weight)
            vectors.append(values @ self.embedding[side].weight)
        v = torch.stack(vectors, dim=1)
        second = 0.5 * (v.sum(dim=1).square() - v.square().sum(dim=1))
        logit = self.bias + torch.cat(linear, dim=1).sum(dim=1) + self.drop(second).sum(dim=1)
        return logit + self.deep(v.flatten(1)).squeeze(1)
