"""A knowledge graph of films: each film's neighbours, as a bag of ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from riverdelta.core.errors import InvalidInput


def load_neighbours(folder: Path, most: int = 16) -> dict[int, list[str]]:
    """Return for each film its neighbours as `relation:entity`, at most `most`, those shared by most films first.

    Reads `kg.txt` (head, relation, tail by tabs) and `item_index2entity_id.txt` (film, entity by tabs). A neighbour of one
    film alone is left out: nothing learned of it could help another.
    """
    films = {entity: film for film, entity in _pairs(folder / "item_index2entity_id.txt")}
    found: dict[int, set[str]] = {film: set() for film in films.values()}
    for number, line in enumerate(_lines(folder / "kg.txt"), 1):
        parts = line.split("\t")
        if len(parts) != 3 or not parts[0].isdigit() or not parts[2].isdigit():
            raise InvalidInput(f"{folder / 'kg.txt'} line {number} is {line!r}; expected head, relation and tail by tabs")
        head, relation, tail = int(parts[0]), parts[1], int(parts[2])
        if head in films:
            found[films[head]].add(f"{relation}:{tail}")
        if tail in films:
            found[films[tail]].add(f"{relation}:{head}")
    films_of = Counter(neighbour for neighbours in found.values() for neighbour in neighbours)
    chosen = {
        film: sorted((n for n in neighbours if films_of[n] > 1), key=lambda n: (-films_of[n], n))[:most]
        for film, neighbours in found.items()
    }
    return {film: neighbours for film, neighbours in sorted(chosen.items()) if neighbours}


def _pairs(path: Path) -> list[tuple[int, int]]:
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        parts = line.split("\t")
        if len(parts) != 2 or not all(p.isdigit() for p in parts):
            raise InvalidInput(f"{path} line {number} is {line!r}; expected a film and an entity by a tab")
        pairs.append((int(parts[0]), int(parts[1])))
    return pairs


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
