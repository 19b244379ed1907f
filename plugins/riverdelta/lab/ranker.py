"""The default stack of the demo and of replay, for any stream of users and items."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from riverdelta.corrections.base import Correction
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.linear import Linear
from riverdelta.corrections.lookup import Lookup
from riverdelta.lab.datasets.knowledge import load_neighbours
from riverdelta.lab.stream import Stream


def genres_of(stream: Stream) -> Lookup:
    """Return the stream's genres as vectors of length 1."""
    table = stream.tables["genres"]
    length = np.sqrt(np.square(table.values).sum(axis=1, keepdims=True))
    return Lookup("genres", table.key, (table.keys, table.values / np.maximum(length, 1.0)))


def neighbours_of(graph: Path) -> Lookup:
    """Return each film's neighbours in the knowledge graph of a folder, as a bag."""
    return Lookup("neighbours", "item_id", load_neighbours(graph))


def default_corrections(genres: Lookup, neighbours: Lookup | None = None) -> list[Correction]:
    """Return the stack: calibration, neighbours where there are any, each item's appeal, each user's level and tastes.

    A user's recent rows count most (`forget`: about the last 50); an item's appeal lasts.
    """
    graph = [Linear(neighbours, rate=0.02)] if neighbours is not None else []
    return [Calibration(), *graph, Entity("item_id"), Entity("user_id", on=[genres], forget=0.98)]
