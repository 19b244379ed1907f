"""Knowledge: a film's neighbours in a knowledge graph, as a bag of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from riverdelta.core.errors import InvalidInput


def load_neighbours(folder: Path, most: int = 16) -> dict[int, list[str]]:
    """Return each film's neighbours as `relation:entity`, at most `most`, those shared by most films first.

    Reads `kg.txt` (head, relation, tail by tabs) and `item_index2entity_id.txt` (film, entity by tabs). A neighbour of only
    one film is left out: what is learned about it could not help another.
    """
    films = {int(entity): int(film) for film, entity in _rows(folder / "item_index2entity_id.txt", ("film", "entity"))}
    found: dict[int, set[str]] = {film: set() for film in films.values()}
    for head, relation, tail in _rows(folder / "kg.txt", ("head", "relation", "tail")):
        for one, other in ((int(head), tail), (int(tail), head)):
            if one in films:
                found[films[one]].add(f"{relation}:{int(other)}")
    films_of = Counter(neighbour for neighbours in found.values() for neighbour in neighbours)
    chosen = {
        film: sorted((n for n in neighbours if films_of[n] > 1), key=lambda n: (-films_of[n], n))[:most]
        for film, neighbours in found.items()
    }
    return {film: neighbours for film, neighbours in sorted(chosen.items()) if neighbours}


def _rows(path: Path, expected: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the lines of a file split at tabs; the first and the last field of each are numbers."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        parts = line.split("\t")
        if len(parts) != len(expected) or not (parts[0].isdigit() and parts[-1].isdigit()):
            raise InvalidInput(f"{path} line {number} is {line!r}; expected {', '.join(expected)} separated by tabs")
        yield parts
