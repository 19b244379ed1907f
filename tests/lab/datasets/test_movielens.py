"""Every layout that GroupLens publishes gives the same stream."""

import numpy as np
import pytest

from riverdelta.core.errors import InvalidInput
from riverdelta.lab.datasets.movielens import load_movielens

#: user, film, rating, time; out of order, with a tie.
RATINGS = [(2, 10, 4.0, 50), (1, 10, 3.0, 20), (1, 30, 5.0, 20), (3, 20, 1.0, 10)]


def csv(folder):
    folder.mkdir()
    rows = "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n10,"American President, The (1995)",Comedy|Drama\n'
        "20,Héros (1999),(no genres listed)\n30,X,Drama\n"
    )


def dat(folder):
    folder.mkdir()
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r:g}::{t}\n" for u, i, r, t in RATINGS).rstrip())
    films = "10::American President, The (1995)::Comedy|Drama\n20::Héros: (1999)::(no genres listed)\n30::X::Drama\n"
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))
    (folder / "users.dat").write_text("1::F::25::10::48067\n2::M::56::16::70072\n3::M::25::15::55117\n")


def hundred(folder):
    folder.mkdir()
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r:g}\t{t}\n" for u, i, r, t in RATINGS))
    flags = {10: (5, 8), 20: (), 30: (8,)}
    lines = [
        f"{i}|Film {i} (\xe9)|01-Jan-1995||http://x|" + "|".join(str(int(g in on)) for g in range(19))
        for i, on in flags.items()
    ]
    (folder / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    (folder / "u.user").write_text("1|24|F|writer|85711\n2|53|M|other|94043\n3|23|M|writer|32067\n")


@pytest.mark.parametrize("layout", [csv, dat, hundred])
def test_a_layout_is_read_in_time_order_with_ties_in_file_order(tmp_path, layout):
    layout(tmp_path / "ml")
    stream = load_movielens(tmp_path / "ml")
    assert stream.columns["user_id"].tolist() == [3, 1, 1, 2]
    assert stream.columns["item_id"].tolist() == [20, 10, 30, 10]
    assert stream.label.tolist() == [0, 0, 1, 1]
    assert stream.time.tolist() == [10, 20, 20, 50]
    genres = stream.tables["genres"]
    named = {int(k): {genres.names[g] for g in np.flatnonzero(v)} for k, v in zip(genres.keys, genres.values, strict=True)}
    assert named == {10: {"Comedy", "Drama"}, 20: set(), 30: {"Drama"}}


@pytest.mark.parametrize("layout", [dat, hundred])
def test_user_columns_are_there_where_the_release_has_them(tmp_path, layout):
    layout(tmp_path / "ml")
    columns = load_movielens(tmp_path / "ml").columns
    assert columns["gender"].tolist() == [1, 0, 0, 1]
    assert len(set(columns["occupation"].tolist())) == (3 if layout is dat else 2)
    assert columns["age"].tolist() == ([25, 25, 25, 56] if layout is dat else [23, 24, 24, 53])


def test_the_threshold_is_an_argument(tmp_path):
    csv(tmp_path / "ml")
    assert load_movielens(tmp_path / "ml", threshold=5.0).label.sum() == 1


def test_a_folder_without_a_release_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(InvalidInput, match=r"ratings\.csv, ratings\.dat or u\.data"):
        load_movielens(tmp_path)


@pytest.mark.parametrize("row", ["1,2,x,3", "1,2,3", "a,b,c,d"])
def test_a_damaged_row_is_refused_with_its_file(tmp_path, row):
    csv(tmp_path / "ml")
    with (tmp_path / "ml" / "ratings.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(InvalidInput, match=r"ratings\.csv cannot be read"):
        load_movielens(tmp_path / "ml")


def test_a_missing_side_file_is_refused_by_name(tmp_path):
    csv(tmp_path / "ml")
    (tmp_path / "ml" / "movies.csv").unlink()
    with pytest.raises(InvalidInput, match=r"movies\.csv"):
        load_movielens(tmp_path / "ml")
