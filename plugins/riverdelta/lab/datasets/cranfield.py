"""Cranfield: questions about aerodynamics and 1,400 abstracts, with graded judgements."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Schema
from riverdelta.core.losses import Ranking
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.linear import Linear
from riverdelta.lab.datasets.dataset import DataSet, Split
from riverdelta.lab.stream import Stream
from riverdelta.learning.definition import Definition

#: The best grade; the publisher's codes are 1 (best) to 4, and -1 for a document of no interest.
_GRADES, _CANDIDATES = 4, 50
_LOSS = Ranking(_GRADES, item="document")


class Cranfield(DataSet):
    """The base compares vectors of a sentence encoder; its scale is fitted on the first fifth of the queries.

    A list is the 50 abstracts that are most similar to a query, one query a second, in the publisher's order. All grades of a
    list are known when the next query comes; abstracts without a judgement have the grade 0.
    """

    name = "cranfield"
    about = "abstracts for a question; base: similarity by all-MiniLM-L6-v2, its scale fitted on the first fifth of the queries"
    measure = "ndcg10"

    def load(self, folder: Path, work: Path) -> Split:
        from riverdelta.lab.similarity import vectors

        texts, queries = (list(read_texts(folder / name).values()) for name in ("cran.all.1400", "cran.qry"))
        grades = np.zeros((len(queries), len(texts)), np.float32)
        for asking, judged, code in _judgements(folder / "cranqrel", len(queries), len(texts)):
            grades[asking, judged] = _GRADES + 1 - code if code > 0 else 0
        asked, found = vectors(queries, work), vectors(texts, work)
        best = np.argsort(-(asked @ found.T), axis=1, kind="stable")[:, :_CANDIDATES]
        query, text = np.repeat(np.arange(len(queries)), best.shape[1]), best.ravel()
        columns: dict[str, Any] = {"query": asked[query], "text": found[text], "document": text}
        rows = Stream(self.name, columns, grades[query, text], query.astype(np.float64), loss=_LOSS, group=query)
        cut = len(queries) // 5 * best.shape[1]
        return Split(rows[:cut], rows[cut:])

    def train(self, first: Stream, path: Path) -> None:
        from riverdelta.lab.similarity import train_similarity

        train_similarity(first, path)

    def definition(self, base: Path) -> Definition:
        return Definition(
            name="cranfield",
            base=base,
            output="score",
            taps={"product": "product"},
            columns=Schema.of({"document": "int64"}),
            task=_LOSS,
            corrections=[Calibration(), Linear("product"), Entity("document")],
        )


def read_texts(file: Path) -> dict[str, str]:
    """Return the texts of a file of entries `.I id`, … `.W` and text, by id, in the file's order."""
    try:
        entries = re.split(r"^\.I +", file.read_text(encoding="latin-1"), flags=re.MULTILINE)[1:]
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from error
    found = {entry.split(None, 1)[0]: " ".join(entry.partition("\n.W")[2].split()) for entry in entries if entry.strip()}
    if not found:
        raise InvalidInput(f"{file} has no entries; expected lines such as '.I 1', each followed by '.W' and a text")
    return found


def _judgements(file: Path, queries: int, texts: int) -> list[tuple[int, int, int]]:
    """Return (query, text, code), counted from 0: the publisher's numbers of queries are their places in the file."""
    found = list[tuple[int, int, int]]()
    for at, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():  # the publisher's file has some
            continue
        try:
            query, text, code = map(int, line.split())
        except ValueError:
            raise InvalidInput(f"{file} has {line!r} in line {at}; expected a query, a document and a code") from None
        if not (1 <= query <= queries and 1 <= text <= texts and code in (-1, 1, 2, 3, 4)):
            raise InvalidInput(
                f"{file} has {line!r} in line {at}; expected a query from 1 to {queries}, a document from 1 to {texts}, and a "
                f"code from 1 to 4, or -1"
            )
        found.append((query - 1, text - 1, code))
    return found


DATASET = Cranfield()
