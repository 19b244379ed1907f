"""TextSearch: questions and texts that experts graded, searched by a base that compares sentence vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Ints, Schema
from riverdelta.core.losses import Ranking
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.linear import Linear
from riverdelta.lab.datasets.dataset import DataSet, Split
from riverdelta.lab.stream import Stream
from riverdelta.learning.definition import Definition

#: Above the default: a number is divided by its largest value, of which the BM25 of two texts differ by a small part.
_RATE = 1.0


@dataclass(frozen=True)
class Judged:
    """Questions, texts, an id of each text, and grades from 0 by the numbers of question and text, in order of questions."""

    questions: Sequence[str]
    texts: Sequence[str]
    items: Ints
    grades: Mapping[tuple[int, int], int]


class TextSearch(DataSet):
    """The base compares vectors of a sentence encoder; its scale is fitted on the lists of the first questions.

    A list is the texts shown for a question, one question a second. All grades of a list are known when the next question
    comes; texts without a judgement have the grade 0. The base does not know `words`, by BM25: the words in common.
    """

    measure = "ndcg10"
    #: The best grade, and the id column of what a row shows.
    best: ClassVar[int]
    item: ClassVar[str]
    #: The number of most similar texts that are shown; None: those with a judgement.
    shown: ClassVar[int | None] = None
    #: One question in N comes before the stream.
    before: ClassVar[int]

    @abstractmethod
    def read(self, folder: Path) -> Judged:
        """Return what the publisher's files hold; raises `InvalidInput` naming a file that is missing or wrong."""

    def load(self, folder: Path, work: Path) -> Split:
        from riverdelta.lab.similarity import bm25, vectors

        judged = self.read(folder)
        if not judged.grades:
            raise InvalidInput(f"{folder} has no judgements; expected grades of texts for questions")
        asked, found = vectors(judged.questions, work), vectors(judged.texts, work)
        question, text = (np.array(numbers, np.int64) for numbers in zip(*judged.grades, strict=True))
        if self.shown is not None:
            text = np.argsort(-(asked @ found.T), axis=1, kind="stable")[:, : self.shown]
            question, text = np.repeat(np.arange(len(text)), text.shape[1]), text.ravel()
        pairs = zip(question.tolist(), text.tolist(), strict=True)
        label = np.array([judged.grades.get(pair, 0) for pair in pairs], np.float32)
        words = bm25(judged.questions, judged.texts)[question, text]
        columns: dict[str, Any] = {"query": asked[question], "text": found[text], "words": words, self.item: judged.items[text]}
        rows = Stream(self.name, columns, label, question.astype(np.float64), loss=self._loss, group=question)
        lists = np.unique(question)
        cut = int(np.searchsorted(question, lists[len(lists) // self.before]))
        return Split(rows[:cut], rows[cut:])

    def train(self, first: Stream, path: Path) -> None:
        from riverdelta.lab.similarity import train_similarity

        train_similarity(first, path)

    def definition(self, base: Path) -> Definition:
        return Definition(
            name=self.name,
            base=base,
            output="score",
            columns=Schema.of({"words": "float32", self.item: "int64"}),
            task=self._loss,
            corrections=[Calibration(), Linear("words", rate=_RATE), Entity(self.item)],
        )

    @property
    def _loss(self) -> Ranking:
        return Ranking(self.best, item=self.item)
