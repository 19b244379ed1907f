"""The command line as a whole: what help costs, what fits a terminal, JSON and exit codes."""

import functools
import io
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import riverdelta
from riverdelta.cli import tables
from riverdelta.cli.main import main
from riverdelta.evaluation.trial import Verdict
from riverdelta.learning.commands import COMMANDS

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
#: What help must not import: each costs more than the rest of it.
HEAVY = ("numpy", "numba", "onnx", "onnxruntime", "pyarrow", "bentoml", "river", "torch", "rich")


def imported_by(*arguments):
    code = "import sys\nfrom riverdelta.cli.main import main\ntry:\n    main(sys.argv[1:])\nfinally:\n    print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("rollback", "--help"), ("releases", "--help")])
def test_help_imports_nothing_heavy(arguments):
    assert not imported_by(*arguments) & set(HEAVY)


@pytest.mark.parametrize("name", riverdelta.__all__)
def test_every_public_name_is_there(name):
    assert getattr(riverdelta, name).__name__ == name


def test_it_lists_its_public_names_alone():
    assert dir(riverdelta) == sorted(riverdelta.__all__)


def test_the_version_is_that_of_the_package():
    assert version("riverdelta") in CliRunner().invoke(main, ["--version"]).output


@pytest.mark.parametrize("name", main.list_commands(None))
def test_every_command_prints_json_but_the_learner(name):
    assert ("--json" in CliRunner().invoke(main, [name, "--help"]).output) is (name != "sidecar")


def test_help_lists_each_command_with_the_first_sentence_of_its_own_help():
    listed = CliRunner().invoke(main, ["--help"], terminal_width=200).output
    for name in main.list_commands(None):
        assert f"  {name:10}  {main.get_command(None, name).get_short_help_str(100)}\n" in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command_are_the_fields_of_its_class(name):
    given_by = {parameter.name for parameter in main.get_command(None, name).params} - {"target", "as_json"}
    assert given_by == COMMANDS[name].model_fields.keys()


@pytest.mark.parametrize("name", main.list_commands(None))
def test_every_command_is_in_the_documents(name):
    assert f"`riverdelta {name}" in PAGE


def test_the_exit_codes_are_in_the_documents():
    for code in (0, 1, 2, os.EX_TEMPFAIL, os.EX_CONFIG):
        assert f"| {code} |" in PAGE


VERDICTS = [None, "on trial", *map(str, Verdict)]
ROWS = st.fixed_dictionaries(
    {
        "release": st.integers(0, 99_999),
        "time": st.floats(0, 4e9),
        "examples": st.integers(0, 10**10),
        "loss_base": st.none() | st.floats(0, 56),
        "loss_served": st.none() | st.floats(0, 56),
        "gain_on_champion": st.none() | st.floats(-56, 56),
        "verdict": st.sampled_from(VERDICTS),
        "trial_examples": st.none() | st.integers(0, 10**9),
        "bytes": st.integers(0, 10**11),
        "champion": st.booleans(),
        "serving": st.booleans(),
    }
)


@given(rows=st.lists(ROWS, min_size=1, max_size=3))
def test_releases_fit_80_columns_with_every_number_and_verdict(rows):
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "Console", functools.partial(Console, file=out, width=80))
        tables.print_releases(rows)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for row, line in zip(rows, lines[1:], strict=False):
        assert line.split()[0] == str(row["release"])
        assert f" {row['examples']:,} " in line
        assert line.rstrip().endswith(row["verdict"] or "-")
