"""MovieLens: ratings in every format that GroupLens publishes: latest, 100K, 1M, 10M, 20M, 25M, 32M."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as csv

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Ints
from riverdelta.lab.stream import SideTable, Stream

_NO_GENRES = "(no genres listed)"
#: The 19 genre flags of `u.item`, in the file's order.
_FLAGS = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()


def load_movielens(folder: str | Path, threshold: float = 4.0) -> Stream:
    """Return the ratings as a stream, sorted by time, ties in file order; the label is 1 if rating >= `threshold`.

    Columns: user_id and item_id, and gender (0 F, 1 M), age and occupation (int64 codes) if the release has them. The side
    table `genres` has a multi-hot vector per film. Raises `InvalidInput` naming the folder or file that is wrong.
    """
    folder = Path(folder)
    for marker, read in (("ratings.csv", _read_csv), ("ratings.dat", _read_dat), ("u.data", _read_100k)):
        if (folder / marker).is_file():
            ratings, users, genres = read(folder)
            return _stream(folder.name, ratings, users, genres, threshold)
    raise InvalidInput(f"{folder} has no MovieLens release; expected ratings.csv, ratings.dat or u.data in it")


_Users = dict[str, tuple[Ints, Ints]]
_Parts = tuple[pa.Table, _Users, SideTable]


def _read_csv(folder: Path) -> _Parts:
    ratings = _read(folder / "ratings.csv", ",")
    movies = _read(folder / "movies.csv", ",", names=["item", "title", "genres"], skip=1, text=("genres", "title"))
    return ratings, {}, _genres(movies)


def _read_dat(folder: Path) -> _Parts:
    ratings = _read(folder / "ratings.dat", "::", skip=0)
    movies = _read(folder / "movies.dat", "::", names=["item", "title", "genres"], skip=0, text=("genres", "title"))
    users: _Users = {}
    if (folder / "users.dat").is_file():
        names = ["user", "gender", "age", "occupation", "zip"]
        table = _read(folder / "users.dat", "::", names=names, skip=0, text=("gender", "zip"))
        users = _user_columns(table, table["occupation"].to_numpy())
    return ratings, users, _genres(movies)


def _read_100k(folder: Path) -> _Parts:
    ratings = _read(folder / "u.data", "\t", skip=0)
    names = ["item", "title", "released", "video", "url", *_FLAGS]
    items = _read(folder / "u.item", "|", names=names, skip=0, text=("title", "released", "video", "url"))
    values = np.stack([items[flag].to_numpy() for flag in _FLAGS], axis=1).astype(np.float32)
    genres = SideTable("item_id", items["item"].to_numpy(), values, tuple(_FLAGS))
    people = ["user", "age", "gender", "occupation", "zip"]
    table = _read(folder / "u.user", "|", names=people, skip=0, text=("gender", "occupation", "zip"))
    occupations = np.unique(table["occupation"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    return ratings, _user_columns(table, occupations), genres


def _read(path: Path, delimiter: str, names: list[str] | None = None, skip: int = 1, text: tuple[str, ...] = ()) -> pa.Table:
    """Read a delimited file and check its numbers; an error names the file."""
    columns = names or ["user", "item", "rating", "time"]
    types = {n: pa.string() if n in text else pa.float64() if n == "rating" else pa.int64() for n in columns}
    try:
        data = path.read_bytes()
        data = data.decode("utf-8" if path.suffix == ".csv" else "latin-1").encode()
        if delimiter == "::":
            # The parser accepts only one-byte delimiters; the unit separator occurs in no release.
            data, delimiter = data.replace(b"::", b"\x1f"), "\x1f"
        return csv.read_csv(
            io.BytesIO(data),
            csv.ReadOptions(column_names=columns, skip_rows=skip),
            csv.ParseOptions(delimiter=delimiter, quote_char='"' if delimiter == "," else False),
            csv.ConvertOptions(column_types=types),
        )
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} cannot be read as MovieLens columns {'|'.join(columns)}: {error}") from error


def _genres(movies: pa.Table) -> SideTable:
    lists = [[g for g in (row or "").split("|") if g and g != _NO_GENRES] for row in movies["genres"].to_pylist()]
    names = sorted({genre for row in lists for genre in row})
    place = {name: i for i, name in enumerate(names)}
    values = np.zeros((len(lists), max(len(names), 1)), np.float32)
    for row, genres in enumerate(lists):
        values[row, [place[g] for g in genres]] = 1.0
    return SideTable("item_id", movies["item"].to_numpy(), values, tuple(names) or ("none",))


def _user_columns(users: pa.Table, occupation: npt.NDArray[np.integer]) -> _Users:
    ids = users["user"].to_numpy()
    gender = (users["gender"].to_numpy(zero_copy_only=False) == "M").astype(np.int64)
    columns = {"gender": gender, "age": users["age"].to_numpy(), "occupation": occupation.astype(np.int64)}
    return {name: (ids, values) for name, values in columns.items()}


def _stream(name: str, ratings: pa.Table, users: _Users, genres: SideTable, threshold: float) -> Stream:
    order = np.argsort(ratings["time"].to_numpy(), kind="stable")
    columns = {"user_id": ratings["user"].to_numpy()[order], "item_id": ratings["item"].to_numpy()[order]}
    for column, (ids, values) in users.items():
        by_id = np.argsort(ids, kind="stable")
        at = np.minimum(np.searchsorted(ids[by_id], columns["user_id"]), len(ids) - 1)
        known = ids[by_id][at] == columns["user_id"]
        columns[column] = np.where(known, values[by_id][at], -1)
    label = (ratings["rating"].to_numpy()[order] >= threshold).astype(np.float32)
    return Stream(name, columns, label, ratings["time"].to_numpy()[order].astype(np.float64), {"genres": genres})
