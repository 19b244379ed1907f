"""MedQuAD with LiveQA: medical questions and answers that experts graded 1 (incorrect) to 4 (excellent)."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.lab.datasets.text_search import Judged, TextSearch


class MedQuad(TextSearch):
    """The graded answers of a question, and the questions in the order of their numbers. `source` is an answer's website.

    Of an answer with two judgements the better counts.
    """

    name = "medquad"
    about = "answers to a question; base: similarity by all-MiniLM-L6-v2, scale fitted on the first quarter of the questions"
    #: The experts' grades 1 to 4 count as 0 to 3.
    best, item, before = 3, "source", 4

    def read(self, folder: Path) -> Judged:
        folder = folder / "liveqa" if (folder / "liveqa").is_dir() else folder
        questions, answers, judged = _questions(folder), _answers(folder), _judgements(folder)
        if missing := [f"question {q} or answer {a}" for q, a in judged if q not in questions or a not in answers]:
            raise InvalidInput(f"{folder} has a judgement of {missing[0]}, whose text is missing")
        numbers, rated, sources = sorted(questions), sorted({a for _, a in judged}), sorted({a.split("_")[0] for a in answers})
        items = np.array([sources.index(a.split("_")[0]) for a in rated])
        grades = {(numbers.index(q), rated.index(a)): grade for (q, a), grade in judged.items()}
        return Judged([questions[q] for q in numbers], [answers[a] for a in rated], items, grades)


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


def _judgements(folder: Path) -> dict[tuple[int, str], int]:
    """Return grades from 0 by (question, answer), in order of questions."""
    file, found = _one(folder, "*qrels*.txt"), dict[tuple[int, str], int]()
    for at, line in enumerate(file.read_text().splitlines(), 1):
        question, judgement, answer = (*line.split(), "", "", "")[:3]
        grade = judgement.partition("-")[0]
        if not (question.isdigit() and answer and grade in ("1", "2", "3", "4")):
            raise InvalidInput(f"{file} has {line!r} in line {at}; expected such as '1 2-Related ADAM_0002818_Sec2.txt'")
        found[int(question), answer] = max(int(grade) - 1, found.get((int(question), answer), 0))
    return dict(sorted(found.items(), key=lambda each: each[0][0]))


def _one(folder: Path, pattern: str) -> Path:
    if not (found := sorted(folder.glob(pattern))):
        raise InvalidInput(f"{folder} has no {pattern}; give the folder of LiveQA's graded answers")
    return found[0]


DATASET = MedQuad()
