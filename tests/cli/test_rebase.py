"""`riverdelta rebase`: what it prints, for people and programs, and how a log of each kind is read."""

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from pyarrow import csv, feather, parquet

from riverdelta.cli.main import main
from riverdelta.cli.rebase import _serving
from riverdelta.core.settings import Settings
from riverdelta.learning.service import load
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.sidecar.rebase import Rebased

ROOT = Path(__file__).parents[2]
SERVICE = "service.py:Ranker"
WRITERS = {"parquet": parquet.write_table, "feather": feather.write_feather, "csv": csv.write_csv}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder with a service and its home, which has learned 240 rows; an id of them."""
    folder = tmp_path_factory.mktemp("taught")
    shutil.copytree(ROOT / "service", folder, dirs_exist_ok=True)
    definition, settings = load(f"{folder}/{SERVICE}"), Settings.load(home=folder / "state")
    with closing(DataPlane(definition, settings, registry=CollectorRegistry())) as plane:
        trainer = Trainer(definition, settings)
        for seed in range(10):
            rng = np.random.default_rng(seed)
            columns = {"user_id": rng.integers(0, 50, 24), "item_id": rng.integers(0, 50, 24), "hour": np.full(24, 1.0)}
            answer = plane.score(columns)
            ids = [f"{answer.impressions}.{i}" for i in range(24)]
            asyncio.run(plane.feedback(ids, (columns["user_id"] % 2).astype(np.float32)))
            trainer.step()
        trainer.close()
    (folder / "state" / "ranker").rename(folder / "state" / "ranker.old")
    service = folder / "service.py"
    service.write_text(service.read_text().replace("forget=0.98", "forget=0.98, slots=512"))
    return folder, ids[0]


@pytest.fixture
def old(taught, tmp_path, monkeypatch):
    """A home that has learned 240 rows, moved aside, and its service with another option; its folder and an id."""
    shutil.copytree(taught[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "ranker.old", taught[1]


def rebase(old, *arguments):
    return CliRunner().invoke(main, ["rebase", "--service", SERVICE, "--from", str(old), *map(str, arguments)])


def log(rows=3_000, **more):
    """Return a log, some columns of which are given."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, 50, rows)
    columns = {"user_id": user, "item_id": rng.integers(0, 50, rows), "hour": rng.uniform(0, 24, rows).astype(np.float32)}
    return pa.table(columns | {"clicked": user % 2, "seconds": np.arange(rows)} | more)


def test_it_ends_with_the_losses_on_the_same_rows_readable_at_80_columns(old):
    done = rebase(old[0])
    assert done.exit_code == 0, done.output
    folder, records, examples, *rest = done.stdout.splitlines()
    assert folder == str(old[0].with_name("ranker"))
    assert records.startswith("carried over: ")
    assert examples == "learned: 240 of 240 rows"
    table = [line for line in rest if ", alone" in line or ", corrected" in line or ", as served" in line]
    assert [line.split("  ")[0] for line in table] == [
        "base, alone", "old stack, corrected", "old stack, as served", "new stack, corrected", "new stack, as served"
    ]  # fmt: skip
    assert all(line.split()[-3] == "240" for line in table)
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[1:])
    assert rest[-1].startswith("it serves the new stack, mixed with the base, at the gate's weight of 0.9")


def test_rows_that_were_served_before_any_table_are_explained_and_what_is_worse_is_said():
    same, worse = {"loss": 0.5, "auc": 0.5}, {"loss": 0.7, "auc": 0.5}
    done = Rebased("home", learned=9, guard="live", weight=1e-6, gate_restarted=True)
    lines = list(_serving(done, {"base": same, "corrected": same, "served": worse, "old_served": same}))
    assert lines == [
        "the new stack scored all of these rows as the base did: they were served before any table had learned",
        "it serves the base: on these rows the new stack, as served, did not beat it; the gate starts over from the base,",
        "and gives the new stack weight as it predicts better; release 1, the new stack, is on trial",
        "warning: on these rows the new stack, as served, lost more than the old one",
    ]
    done = Rebased("home", guard="release")
    assert list(_serving(done, {"base": same, "corrected": worse})) == [
        "it serves release 0, the base, until the trial of release 1, the new stack, promotes it"
    ]


def test_a_home_of_the_same_definition_is_said_to_need_no_rebase(old, caplog):
    service = Path("service.py")
    service.write_text(service.read_text().replace("forget=0.98, slots=512", "forget=0.98"))
    assert rebase(old[0]).exit_code == 0
    assert "nothing that affects learning differs from the definition of " in caplog.text


def test_a_refusal_ends_in_the_way_back(old):
    service = Path("service.py")
    service.write_text(service.read_text().replace('Linear("user_id"', 'Linear("user_id", "price"'))
    service.write_text(service.read_text().replace("columns={", 'columns={"price": "float32", '))
    shown = rebase(old[0])
    assert shown.exit_code == 1
    assert shown.output.strip().endswith(f"restore the old code and type: mv {old[0]} {old[0].with_name('ranker')}")


def test_with_json_a_program_reads_the_same_and_the_old_rows_say_what_they_were_served(old):
    shown = rebase(old[0], "--json")
    assert shown.exit_code == 0, shown.output
    done = json.loads(shown.stdout)
    assert (done["examples"], done["rows"], done["swept"], done["unusable"], done["champion"]) == (240, 240, 0, 0, 1)
    assert done["comparison"]["examples"] == 240
    assert {"loss", "auc", "accuracy"} <= set(done["comparison"]["old_served"])
    row = CliRunner().invoke(main, ["impression", old[1], "--service", SERVICE, "--json"])
    assert row.exit_code == 0, row.output
    found = json.loads(row.stdout)
    assert {"corrected_before", "served_before"} < set(found["logits"])
    assert not any(name.startswith("#") for name in found["columns"])


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_log_is_learned_alike(old, tmp_path, kind):
    WRITERS[kind](log(), tmp_path / f"rows.{kind}")
    shown = rebase(old[0], "--log", tmp_path / f"rows.{kind}", "--label", "clicked", "--time", "seconds", "--json")
    assert shown.exit_code == 0, shown.output
    done = json.loads(shown.stdout)
    assert (done["log_rows"], done["examples"], done["learned"], done["comparison"]["examples"]) == (3000, 3000, 3000, 3000)
    assert "old_served" not in done["comparison"]


def but(rows, at, wrong):
    """Return a column of zeros, but for one row."""
    return np.where(np.arange(rows) == at, wrong, 0.0)


LONG = 20_000
TIMED = ("--label", "clicked", "--time", "seconds")
WRONG = {
    "a label that is missing": (log(), ("--label", "click"), "has no column 'click'"),
    "a label of another task": (
        log(LONG, clicked=but(LONG, 17_000, 3)),
        ("--label", "clicked"),
        "rows.parquet: row 17000 has the label 3; expected",
    ),
    "a weight beyond the range": (
        log(LONG, w=np.where(np.arange(LONG) == 17_000, 101.0, 1.0)),
        ("--label", "clicked", "--weight", "w"),
        "row 17000 has the weight 101; expected 0 to 100",
    ),
    "weights that are text": (log(w=["1 kg"] * 3_000), ("--label", "clicked", "--weight", "w"), "expected weights of 0 to 100"),
    "labels that are text": (log(clicked=["no"] * 3_000), ("--label", "clicked"), "holds 'no' at row 0; expected 0 or 1"),
    "a label that is empty": (
        log(LONG, clicked=pa.array([1] * 17_000 + [None] * 3_000)),
        ("--label", "clicked"),
        "rows.parquet: column 'clicked' is empty at row 17000",
    ),
    "a value that is not finite": (
        log(LONG, hour=but(LONG, 17_000, np.inf)),
        ("--label", "clicked"),
        "rows.parquet: column 'hour' holds inf at row 17000",
    ),
    "a column that is missing": (log().drop_columns(["hour"]), ("--label", "clicked"), "has no column 'hour'"),
    "times that go back": (
        log(LONG, seconds=but(LONG, 17_000, -1)),
        TIMED,
        "rows.parquet: 'seconds' goes back at row 17000; sort the rows by 'seconds'",
    ),
    "times that go back between blocks": (
        log(LONG, seconds=np.arange(LONG) % 16_384),
        TIMED,
        "rows.parquet: 'seconds' goes back at row 16384; sort the rows by 'seconds'",
    ),
    "a time that is not a number": (
        log(LONG, seconds=but(LONG, 17_000, np.nan)),
        TIMED,
        "rows.parquet: 'seconds' is not a number at row 17000; expected Unix seconds",
    ),
}


@pytest.mark.parametrize(("table", "options", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_log_is_refused_in_one_line_and_nothing_is_made(old, tmp_path, table, options, said):
    parquet.write_table(table, tmp_path / "rows.parquet")
    shown = rebase(old[0], "--log", tmp_path / "rows.parquet", *options)
    assert shown.exit_code == 1
    assert shown.output.startswith("Error: ")
    assert said in shown.output
    assert [p.name for p in old[0].parent.iterdir()] == ["ranker.old"]


@pytest.mark.parametrize("options", [("--label", "clicked"), ("--log", "service.py"), ("--time", "seconds")])
def test_a_log_and_its_labels_come_together(old, options):
    shown = rebase(old[0], *options)
    assert shown.exit_code == 2
    assert "--log rows.parquet --label clicked" in shown.output


def test_a_home_that_is_there_already_is_refused_with_the_line_to_type(old):
    assert rebase(old[0]).exit_code == 0
    again = rebase(old[0])
    assert again.exit_code == 1
    new = old[0].with_name("ranker")
    aside = f"mv {new} {new}.old2"  # .old is the home that was carried over
    assert f"{new} already exists; move it away, or set RIVERDELTA_HOME to another folder: {aside}" in again.output
    itself = rebase(new)
    assert f"{aside} && riverdelta rebase " in itself.output
    assert itself.output.rstrip().endswith(f"--from {new}.old2")
