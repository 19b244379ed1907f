"""DataSet: one public data set, as a service would have met it: a base trained on its past, and a stream after it."""

from __future__ import annotations

import csv
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.core.hashing import digest
from riverdelta.lab.stream import Stream
from riverdelta.learning.definition import Definition

#: Another stream, and the options of `Definition` in place of those of the scorer.
Other = tuple[Stream, Mapping[str, Any]]


@dataclass(frozen=True)
class Split:
    """What the base is trained on, the stream after it, and rows that are only scored, after the stream.

    `others` are learned in place of `later`, by name: a fresh scorer learns each and then scores the rows held out.
    """

    first: Stream
    later: Stream
    held_out: Mapping[str, Stream] = field(default_factory=dict)
    others: Mapping[str, Other] = field(default_factory=dict)


class DataSet(ABC):
    """A data set by the name of its folder: how it is read and split, its base, and the scorer that corrects it.

    A new one is a file in this folder that defines a subclass and its instance `DATASET`. Nothing in it is tuned on the stream:
    options of corrections are defaults, or were chosen on the rows before it.
    """

    #: The name of the folder that has the data, and of `riverdelta replay --dataset`.
    name: ClassVar[str]
    #: What the base predicts and what it was trained on, in one sentence.
    about: ClassVar[str]
    #: The measure that decides whether learning helped.
    measure: ClassVar[str]
    #: The rows held out whose measure decides, as reports call them; None: those of the stream.
    decides: ClassVar[str | None] = None
    #: After how many later rows, or lists, or seconds, a label is known.
    lag_rows: ClassVar[int] = 0
    lag_seconds: ClassVar[float] = 0.0
    #: Numbers of labels after which learning stops once, to score all later rows.
    after: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def load(self, folder: Path, work: Path) -> Split:
        """Return the rows of the publisher's files in `folder`; what takes long may be kept in `work`.

        Raises `InvalidInput` naming a file that is missing or wrong.
        """

    @abstractmethod
    def train(self, first: Stream, path: Path) -> None:
        """Train the base and export it to `path`; the same rows give the same file."""

    def trained(self, first: Stream, work: Path) -> Path:
        """Return the path of the base in `work`, kept by the rows and the code it is made from, inherited code included."""
        arrays = (np.ascontiguousarray(array).tobytes() for array in (*first.columns.values(), first.label))
        code = (inspect.getsource(each).encode() for each in type(self).mro() if issubclass(each, DataSet))
        path = work / f"base-{digest(*code, *arrays, size=8).hex()}.onnx"
        if not path.exists():
            self.train(first, path)
        return path

    @abstractmethod
    def definition(self, base: Path) -> Definition:
        """Return the scorer: the base, the task and the corrections."""


def read_csv(path: Path, columns: tuple[str, ...], delimiter: str = ",") -> dict[str, list[str]]:
    """Return the columns of a file with a header, as texts; raises `InvalidInput` naming the file and what it lacks."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file, delimiter=delimiter)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read as {delimiter!r}-separated text with a header: {error}") from error
    if missing := [name for name in columns if name not in head]:
        raise InvalidInput(f"{path} has the columns {', '.join(head)}; expected {', '.join(missing)} as well")
    wrong = next((at for at, row in enumerate(rows) if len(row) != len(head)), None)
    if wrong is not None:
        raise InvalidInput(f"{path} has {len(rows[wrong])} values in line {wrong + 2}; expected {len(head)}")
    return {name: [row[head.index(name)] for row in rows] for name in columns}
