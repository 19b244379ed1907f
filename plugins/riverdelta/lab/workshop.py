"""Workshop: everything that the demo and replay need from one data set, prepared in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from riverdelta.corrections.base import Correction
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.linear import Linear
from riverdelta.corrections.lookup import Lookup
from riverdelta.lab.base import BaseReport, train_base
from riverdelta.lab.datasets.find import Found
from riverdelta.lab.datasets.knowledge import load_neighbours
from riverdelta.lab.datasets.movielens import load_movielens
from riverdelta.lab.deepfm import DeepFMOptions
from riverdelta.lab.simulator import Simulation
from riverdelta.lab.stream import Stream
from riverdelta.learning import reference
from riverdelta.learning.definition import Definition
from riverdelta.serving import profile

_SIMULATED_ROWS = 100_000


@dataclass(frozen=True)
class Workshop:
    """A trained base and its service file, the rows it was trained on, and the rows after them."""

    folder: Path
    first: Stream
    second: Stream
    report: BaseReport
    definition: Definition


def load_stream(found: Found) -> Stream:
    """Return the ratings if they were found, else a simulated log with ids that the ranker accepts."""
    if found.folder is not None:
        return load_movielens(found.folder)
    log = Simulation(rows=_SIMULATED_ROWS).generate()
    return log.stream.select("user_id", "item_id")


def open_workshop(stream: Stream, folder: Path, graph: Path | None = None, options: DeepFMOptions | None = None) -> Workshop:
    """Train the base on the first half, export it, and write the service that corrects it."""
    first, second = stream.halves()
    folder.mkdir(parents=True, exist_ok=True)
    report = train_base(first, folder, options)
    genres = genres_of(stream)
    neighbours = Lookup("neighbours", "item_id", load_neighbours(graph)) if graph is not None else None
    for name, lookup in {"genres": genres, "neighbours": neighbours}.items():
        if lookup is not None:
            lookup.save(folder / f"{name}.safetensors")
        else:
            (folder / f"{name}.safetensors").unlink(missing_ok=True)
    (folder / "service.py").write_text(files("riverdelta.lab").joinpath("service.template").read_text())
    definition = Definition(name="ranker", base=report.path, logit="logit", corrections=default_corrections(genres, neighbours))
    held_out = first[len(first) - len(first) // 10 :]
    if len(held_out) >= profile.LEAST_ROWS:
        reference.save(definition, profile.measure(definition, held_out.columns, held_out.label))
    else:
        reference.path_of(definition).unlink(missing_ok=True)
    return Workshop(folder, first, second, report, definition)


def genres_of(stream: Stream) -> Lookup:
    """Return the stream's genres as vectors of length 1."""
    table = stream.tables["genres"]
    length = np.sqrt(np.square(table.values).sum(axis=1, keepdims=True))
    return Lookup("genres", table.key, (table.keys, table.values / np.maximum(length, 1.0)))


def default_corrections(genres: Lookup, neighbours: Lookup | None = None) -> list[Correction]:
    """Return the stack: calibration, neighbours if there are any, each item's appeal, each user's level and tastes.

    A user's recent rows count most (`forget`: about the last 50); an item's appeal lasts.
    """
    graph = [Linear(neighbours, rate=0.02)] if neighbours is not None else []
    return [Calibration(), *graph, Entity("item_id"), Entity("user_id", on=[genres], forget=0.98)]
