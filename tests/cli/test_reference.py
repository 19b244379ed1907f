"""`riverdelta reference`: from a table to the file beside the base, and each mistake in one line."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import csv, feather, parquet

from riverdelta.cli.main import main
from riverdelta.cli.rows import blocks, read
from riverdelta.core.arrays import read_arrays
from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Column, Schema
from riverdelta.core.losses import LOG_LOSS, Multiclass
from riverdelta.core.request import Request
from riverdelta.evaluation.drift import Reference
from riverdelta.learning.service import load

SERVICE = Path(__file__).parents[2] / "service" / "service.py"
WRITERS = {"parquet": parquet.write_table, "feather": feather.write_feather, "csv": csv.write_csv}


def table(n=1_500, **more):
    rng = np.random.default_rng(0)
    columns = {
        "user_id": rng.integers(0, 300, n),
        "item_id": rng.integers(0, 500, n),
        "hour": rng.uniform(0, 24, n).astype(np.float32),
        "clicked": rng.integers(0, 2, n),
    }
    return pa.table(columns | more)


def run(path, *arguments):
    return CliRunner().invoke(main, ["reference", str(path), "--service", f"{SERVICE}:Ranker", *map(str, arguments)])


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_table_gives_the_same_file(tmp_path, kind):
    rows, out = tmp_path / f"rows.{kind}", tmp_path / "made.reference"
    WRITERS[kind](table(), rows)
    done = run(rows, "--label", "clicked", "-o", out)
    assert done.exit_code == 0, done.output
    assert done.output == f"{out}: 1,500 rows of user_id, item_id, hour\n"
    arrays = dict(read_arrays(out))
    assert arrays.pop("base").tobytes().hex() == load(f"{SERVICE}:Ranker").signature.digest
    found = Reference.of_arrays(arrays)
    assert found.rows == 1_472
    assert found.usual.keys() == {"user_id", "item_id", "hour", "item_vec", "score"}


def test_the_last_rows_count(tmp_path):
    parquet.write_table(table(3_000), tmp_path / "rows.parquet")
    done = run(tmp_path / "rows.parquet", "--label", "clicked", "--last", 1_024, "-o", tmp_path / "made")
    assert "1,024 rows" in done.output


@pytest.mark.parametrize(
    ("rows", "label", "message"),
    [
        (table(), "click", "has no column 'click': did you mean clicked?"),
        (table().drop_columns("hour"), "clicked", "has no column 'hour'"),
        (table(hour=[None] * 1_500), "clicked", "rows.parquet: column 'hour' is empty at row 0; fill it"),
        (table(clicked=["yes"] * 1_500), "clicked", "rows.parquet: column 'clicked' holds 'yes' at row 0; expected 0 or 1"),
        (table(1_000), "clicked", "the reference has 1000 rows; expected at least 1024"),
    ],
    ids=["label", "column", "empty", "text", "few"],
)
def test_a_table_that_will_not_do_is_one_line_and_writes_nothing(tmp_path, rows, label, message):
    parquet.write_table(rows, tmp_path / "rows.parquet")
    done = run(tmp_path / "rows.parquet", "--label", label, "-o", tmp_path / "made")
    assert done.exit_code == 1
    assert message in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_a_file_of_another_kind_is_named_with_those_that_are_read(tmp_path):
    for name, said in (("rows.txt", "ends in '.txt'; expected .parquet, .feather, .csv"), ("rows.parquet", "cannot be read")):
        (tmp_path / name).write_text("nothing")
        done = run(tmp_path / name, "--label", "clicked", "-o", tmp_path / "made")
        assert (done.exit_code, said in done.output) == (1, True), done.output


def as_csv(path, **columns):
    """Write 1,500 rows of text as it is given; a list is repeated."""
    given = {"user_id": ["7"], "item_id": ["1"], "hour": ["1.5"], "clicked": ["0", "1"]} | columns
    rows = [",".join(values[i % len(values)] for values in given.values()) for i in range(1_500)]
    path.write_text("\n".join([",".join(given), *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    "odd", ["007", "12345678901234567890", "1e5", "+3", "1.0", " 7", "-0", "ann", "7\u0663", "9223372036854775808"]
)
def test_csv_ids_that_are_no_integers_of_json_are_asked_for_by_name(tmp_path, odd):
    path = as_csv(tmp_path / "rows.csv", user_id=["41", odd])
    done = run(path, "--label", "clicked", "-o", tmp_path / "made")
    assert done.exit_code == 1
    assert f"column 'user_id' holds {odd!r} at row 1; expected integers of 64 bits; if clients send" in done.output
    assert done.output.endswith("add --text user_id\n")
    assert run(path, "--label", "clicked", "--text", "user_id", "-o", tmp_path / "made").exit_code == 0


@pytest.mark.parametrize(
    ("written", "text", "values"),
    [
        (["7", "-9223372036854775808", "9007199254740993"], (), [7, -(2**63), 2**53 + 1]),
        (["007", "7"], ("id",), ["007", "7"]),
        (['"7"', "7"], ("id",), ["7", "7"]),
        (["true", "False"], ("id",), ["true", "False"]),
        (["2024-01-05", "NA"], ("id",), ["2024-01-05", "NA"]),
        (["nan", "0x1f", "1e5", "+3"], ("id",), ["nan", "0x1f", "1e5", "+3"]),
    ],
)
def test_csv_ids_keep_every_digit_and_letter(tmp_path, written, text, values):
    (tmp_path / "rows.csv").write_text("\n".join(["id", *written]) + "\n")
    found = read(tmp_path / "rows.csv", ["id"], text).values(Column("id", "int64"))
    assert list(found) == values


@pytest.mark.parametrize(
    ("written", "values"), [(["007", "+3", "1e5", ".5"], [7, 3, 1e5, 0.5]), (["true", "FALSE"], [True, False]), (["1"], [1])]
)
def test_csv_numbers_are_read_by_their_kind(tmp_path, written, values):
    (tmp_path / "rows.csv").write_text("\n".join(["x", *written]) + "\n")
    assert read(tmp_path / "rows.csv", ["x"]).numbers("x", "numbers").tolist() == values


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"hour": ["1.5", "2024-01-05"]}, "column 'hour' holds '2024-01-05' at row 1; expected float32[N] values"),
        ({"hour": ["1.5", ""]}, "column 'hour' is empty at row 1; fill it"),
        ({"clicked": ["0", "maybe"]}, "column 'clicked' holds 'maybe' at row 1; expected 0 or 1"),
        ({"hour": ["1.5", "nan"]}, "column 'hour' holds 'nan' at row 1"),
    ],
)
def test_csv_values_that_do_not_fit_are_named_with_their_row(tmp_path, columns, message):
    done = run(as_csv(tmp_path / "rows.csv", **columns), "--label", "clicked", "-o", tmp_path / "made")
    assert (done.exit_code, message in done.output) == (1, True), done.output


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(1_500.0), "double"),
        (pa.array([date(2024, 1, 5)] * 1_500), "date32"),
        (pa.array([Decimal("1.5")] * 1_500), "decimal128"),
        (np.ones(1_500, bool), "bool"),
    ],
)
def test_an_arrow_type_that_is_no_id_is_named(tmp_path, values, kind):
    parquet.write_table(table(user_id=values), tmp_path / "rows.parquet")
    done = run(tmp_path / "rows.parquet", "--label", "clicked", "-o", tmp_path / "made")
    assert done.exit_code == 1
    assert f"column 'user_id' holds {kind}" in done.output
    assert "cast it to integers of 64 bits or strings" in done.output


def test_a_dictionary_of_strings_is_strings(tmp_path):
    parquet.write_table(table(user_id=pa.array(["ann", "bob"] * 750).dictionary_encode()), tmp_path / "rows.parquet")
    assert run(tmp_path / "rows.parquet", "--label", "clicked", "-o", tmp_path / "made").exit_code == 0


def test_text_of_a_column_that_is_not_there_is_answered_with_near_names(tmp_path):
    done = run(as_csv(tmp_path / "rows.csv"), "--label", "clicked", "--text", "user", "-o", tmp_path / "made")
    assert "--text user: the service has no such column; did you mean user_id?" in done.output


def test_an_id_that_does_not_fit_is_named_with_its_row_in_any_block(tmp_path, monkeypatch):
    monkeypatch.setattr("riverdelta.cli.rows._BLOCK_ROWS", 2)
    (tmp_path / "rows.csv").write_text("\n".join(["id", "7", "8", "ann"]) + "\n")
    kept = list(blocks(tmp_path / "rows.csv", ["id"]))
    assert list(kept[0].values(Column("id", "int64"))) == [7, 8]
    with pytest.raises(InvalidInput, match=r"holds 'ann' at row 2; .*add --text id"):
        kept[1].values(Column("id", "int64"))


def test_a_file_with_types_keeps_them_and_text_says_only_strings(tmp_path):
    parquet.write_table(pa.table({"id": [7, 8], "word": ["007", "7"]}), tmp_path / "rows.parquet")
    found = read(tmp_path / "rows.parquet", ["id", "word"], ["word"])
    assert found.values(Column("id", "int64")).tolist() == [7, 8]
    assert found.values(Column("word", "int64")) == ["007", "7"]
    with pytest.raises(InvalidInput, match=r"column 'id' holds int64, and is int64.N.; cast it to strings"):
        read(tmp_path / "rows.parquet", ["id"], ["id"]).values(Column("id", "int64"))


def test_a_vector_in_a_csv_is_refused_with_where_it_can_be(tmp_path):
    (tmp_path / "rows.csv").write_text("v\n1\n")
    with pytest.raises(InvalidInput, match=r"holds string, and is float32\[N, 2\]; cast it to lists, in a .parquet"):
        read(tmp_path / "rows.csv", ["v"]).values(Column("v", "float32", (2,)))


def test_a_file_has_an_input_or_its_named_parts_and_strings_as_they_are_written(tmp_path):
    request = Request(
        {"X": Column("X", "float64", (2,)), "city": Column("city", "string", (1,)), "n": Column("n", "int32", (1,))}
    )
    request.names = {"X": Schema.of({"a": "float64", "b": "float64"})}
    (tmp_path / "rows.csv").write_text("a,b,city,n,other\n1.5,2,007,3,x\n-1,0,ann,4,y\n")
    rows = read(tmp_path / "rows.csv", (), (), request)
    columns, _ = request.check(rows.columns(request))
    assert columns["X"].tolist() == [[1.5, 2.0], [-1.0, 0.0]]
    assert columns["city"].tolist() == [["007"], ["ann"]]
    assert columns["n"].tolist() == [[3], [4]]


def test_labels_of_classes_are_read_as_text_or_numbers(tmp_path):
    loss = Multiclass(["bird", "cat"])
    parquet.write_table(pa.table({"kind": ["cat", "bird"], "place": [1, 0]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("kind,place\ncat,1\nbird,0\n")
    for file in ("rows.parquet", "rows.csv"):
        rows = read(tmp_path / file, ["kind", "place"])
        assert loss.read_labels(rows.labels("kind", loss)).tolist() == [1, 0]
        assert loss.read_labels(rows.labels("place", loss)).tolist() == [1, 0]
    with pytest.raises(InvalidInput, match="holds 'cat' at row 0; expected 0 or 1"):
        read(tmp_path / "rows.csv", ["kind"]).labels("kind", LOG_LOSS)
