"""Graph neighbours: shared ones only, most shared first, bounded."""

import pytest

from riverdelta.core.errors import InvalidInput
from riverdelta.lab.datasets.knowledge import load_neighbours


def write(folder, triples, films="1\t0\n2\t1\n3\t2\n"):
    (folder / "kg.txt").write_text("".join(f"{h}\t{r}\t{t}\n" for h, r, t in triples))
    (folder / "item_index2entity_id.txt").write_text(films)


def test_neighbours_that_two_films_share_are_kept_by_relation(tmp_path):
    write(tmp_path, [(0, "actor", 9), (1, "actor", 9), (2, "actor", 8), (1, "writer", 9)])
    assert load_neighbours(tmp_path) == {1: ["actor:9"], 2: ["actor:9"]}


def test_the_most_shared_come_first_and_no_more_than_asked(tmp_path):
    write(tmp_path, [(f, "genre", 5) for f in (0, 1, 2)] + [(f, "actor", 6) for f in (0, 1)])
    assert load_neighbours(tmp_path)[1] == ["genre:5", "actor:6"]
    assert load_neighbours(tmp_path, most=1)[1] == ["genre:5"]


def test_a_damaged_line_is_refused_by_number(tmp_path):
    write(tmp_path, [(0, "actor", 9)])
    with (tmp_path / "kg.txt").open("a") as file:
        file.write("broken line\n")
    with pytest.raises(InvalidInput, match=r"kg\.txt line 2 is 'broken line'"):
        load_neighbours(tmp_path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidInput, match="item_index2entity_id"):
        load_neighbours(tmp_path)
