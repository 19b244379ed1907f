"""The README's blocks run, and what it says of commands and settings is so."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from riverdelta.cli import main
from riverdelta.core.environment import TOOLS, link
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_blocks_to_run():
    assert len(BLOCKS) >= 2


def test_the_ten_lines_are_a_scorer_on_the_reference_base(tmp_path):
    for file in (ROOT / "service").glob("ranker.onnx*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "readme_service.py").write_text(BLOCKS[0])
    definition = load(f"{tmp_path / 'readme_service.py'}:Ranker")
    assert definition.new_stack().names == ("calibration", "linear", "entity_user_id")


@pytest.mark.parametrize("number", range(1, len(BLOCKS)))
def test_the_other_blocks_run_as_they_stand(number, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[number])
    runpy.run_path(str(script))


def test_every_command_that_is_named_exists_with_its_options():
    for command, options in re.findall(r"`riverdelta (\w+)([^`]*)`", README):
        help_text = CliRunner().invoke(main, [command, "--help"]).output
        assert "Usage" in help_text, command
        for option in re.findall(r"--[a-z-]+", options):
            assert option in help_text


def test_every_setting_that_is_named_exists():
    for name in set(re.findall(r"RIVERDELTA_([A-Z_]+)", README)):
        assert name.lower() in Settings.model_fields or name in TOOLS or link(name, "tcp://10.0.0.1:3000")


def test_the_tables_of_settings_are_those_of_the_code():
    assert runpy.run_path(str(ROOT / "docs" / "generate.py"))["written"](README) == README


def test_every_make_verb_that_is_named_exists():
    verbs = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (\w+)", README)) <= set(verbs) | {"it"}
