"""Cranfield: questions about aerodynamics and 1,400 abstracts, with graded judgements."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.lab.datasets.text_search import Judged, TextSearch


class Cranfield(TextSearch):
    """The 50 abstracts that are most similar to a question, and the questions in the publisher's order."""

    name = "cranfield"
    about = "abstracts for a question; base: similarity by all-MiniLM-L6-v2, scale fitted on the first fifth of the questions"
    #: The publisher's codes are 1 (best) to 4, and -1 for a document of no interest.
    best, item, shown, before = 4, "document", 50, 5

    def read(self, folder: Path) -> Judged:
        texts, questions = (_texts(folder / name) for name in ("cran.all.1400", "cran.qry"))
        codes = _judgements(folder / "cranqrel", len(questions), len(texts))
        grades = {pair: self.best + 1 - code if code > 0 else 0 for pair, code in codes.items()}
        return Judged(questions, texts, np.arange(len(texts)), grades)


def _texts(file: Path) -> list[str]:
    """Return the texts of a file of entries `.I id`, … `.W` and text, in the file's order."""
    try:
        entries = re.split(r"^\.I +", file.read_text(encoding="latin-1"), flags=re.MULTILINE)[1:]
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from error
    found = [" ".join(entry.partition("\n.W")[2].split()) for entry in entries if entry.strip()]
    if not found:
        raise InvalidInput(f"{file} has no entries; expected lines such as '.I 1', each followed by '.W' and a text")
    return found


def _judgements(file: Path, queries: int, texts: int) -> dict[tuple[int, int], int]:
    """Return codes by (query, text), counted from 0: the publisher's numbers of queries are their places in the file."""
    found = dict[tuple[int, int], int]()
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
        found[query - 1, text - 1] = code
    return found


DATASET = Cranfield()
