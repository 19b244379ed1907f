"""MedQuAD with LiveQA: medical questions and answers that experts graded 1 (incorrect) to 4 (excellent)."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from xml.etree import ElementTree

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

#: The best grade: the experts' 1 to 4 count as 0 to 3.
_GRADES = 3
_LOSS = Ranking(_GRADES, item="source")


class MedQuad(DataSet):
    """The base compares vectors of a sentence encoder; its scale is fitted on the first quarter of the questions.

    A list is the graded answers of a question, one question a second, in the order of their numbers. All grades of a list are
    known when the next question comes. `source` is the website of an answer.
    """

    name = "medquad"
    about = "answers to a question; base: similarity by all-MiniLM-L6-v2, scale fitted on the first quarter of the questions"
    measure = "ndcg10"

    def load(self, folder: Path, work: Path) -> Split:
        from riverdelta.lab.similarity import vectors

        folder = folder / "liveqa" if (folder / "liveqa").is_dir() else folder
        questions, answers, judged = _questions(folder), _answers(folder), _judgements(folder)
        if missing := [f"question {q} or answer {a}" for q, a, _ in judged if q not in questions or a not in answers]:
            raise InvalidInput(f"{folder} has a judgement of {missing[0]}, whose text is missing")
        numbers, rated = np.array([q for q, _, _ in judged]), sorted({a for _, a, _ in judged})
        asked = dict(zip(questions, vectors(list(questions.values()), work), strict=True))
        found = dict(zip(rated, vectors([answers[a] for a in rated], work), strict=True))
        sources = sorted({a.split("_")[0] for a in answers})
        columns = {
            "query": np.stack([asked[q] for q, _, _ in judged]),
            "text": np.stack([found[a] for _, a, _ in judged]),
            "source": np.array([sources.index(a.split("_")[0]) for _, a, _ in judged]),
        }
        label = np.array([grade for _, _, grade in judged], np.float32)
        rows = Stream(self.name, columns, label, numbers.astype(np.float64), loss=_LOSS, group=numbers)
        lists = np.unique(numbers)
        cut = int(np.searchsorted(numbers, lists[len(lists) // 4]))
        return Split(rows[:cut], rows[cut:])

    def train(self, first: Stream, path: Path) -> None:
        from riverdelta.lab.similarity import train_similarity

        train_similarity(first, path)

    def definition(self, base: Path) -> Definition:
        return Definition(
            name="medquad",
            base=base,
            output="score",
            taps={"product": "product"},
            columns=Schema.of({"source": "int64"}),
            task=_LOSS,
            corrections=[Calibration(), Linear("product"), Entity("source")],
        )


def _questions(folder: Path) -> dict[int, str]:
    """Return the questions in the experts' words, or the users' where there are none, by number."""
    file, found = _one(folder, "*.xml"), dict[int, str]()
    for question in ElementTree.fromstring(file.read_bytes()).iter("NLM-QUESTION"):
        texts = (question.findtext(where) or "" for where in ("NIST-PARAPHRASE", "Original-Question/MESSAGE"))
        found[int(question.attrib["qid"].removeprefix("TQ"))] = next((" ".join(t.split()) for t in texts if t.strip()), "")
    return found


def _answers(folder: Path) -> dict[str, str]:
    csv.field_size_limit(1 << 24)
    with gzip.open(_one(folder, "*.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        return {row["AnswerID"]: " ".join(row["Answer"].split()) for row in csv.DictReader(file)}


def _judgements(folder: Path) -> list[tuple[int, str, int]]:
    """Return (question, answer, grade from 0), by question."""
    file, found = _one(folder, "*qrels*.txt"), list[tuple[int, str, int]]()
    for at, line in enumerate(file.read_text().splitlines(), 1):
        question, judgement, answer = (*line.split(), "", "", "")[:3]
        grade = judgement.partition("-")[0]
        if not (question.isdigit() and answer and grade in ("1", "2", "3", "4")):
            raise InvalidInput(f"{file} has {line!r} in line {at}; expected such as '1 2-Related ADAM_0002818_Sec2.txt'")
        found.append((int(question), answer, int(grade) - 1))
    return sorted(found, key=lambda row: row[0])


def _one(folder: Path, pattern: str) -> Path:
    if not (found := sorted(folder.glob(pattern))):
        raise InvalidInput(f"{folder} has no {pattern}; give the folder of LiveQA's graded answers")
    return found[0]


DATASET = MedQuad()
