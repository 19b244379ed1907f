"""`riverdelta reference`: from a table to the file beside the base, and each mistake in one line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import csv, feather, parquet

from riverdelta.cli.main import main
from riverdelta.core.arrays import read_arrays
from riverdelta.evaluation.drift import Reference
from riverdelta.learning.definition import load

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
        (table(clicked=["yes"] * 1_500), "clicked", "rows.parquet: column 'clicked' holds 'yes' at row 0; expected 0 and 1"),
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
