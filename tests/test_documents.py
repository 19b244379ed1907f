"""The documents agree with the code: their Python runs, and the commands, settings, verbs and links that they name exist."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from riverdelta.cli.main import main
from riverdelta.core.environment import TOOLS, link
from riverdelta.core.settings import Settings
from riverdelta.learning.service import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "monitoring" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())
TEN_LINES = re.search(r"```python\n(.*?)```", TEXTS["README.md"], re.DOTALL)[1]
SCRIPTS = [
    pytest.param(block, id=f"{name}:{number}")
    for name, text in TEXTS.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    if block != TEN_LINES
]


def test_the_ten_lines_are_a_scorer_on_the_reference_base(tmp_path):
    for file in (ROOT / "service").glob("ranker.onnx*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "readme_service.py").write_text(TEN_LINES)
    definition = load(f"{tmp_path / 'readme_service.py'}:Ranker")
    assert definition.new_stack().names == ("calibration", "linear", "entity_user_id")


@pytest.mark.parametrize("block", SCRIPTS)
def test_a_python_block_runs_as_it_stands(block, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(block)
    runpy.run_path(str(script))


def test_every_command_that_is_named_exists_with_its_options():
    named = re.findall(r"(?:`|^\$ )riverdelta ([a-z-]+)([^`\n]*)", EVERYTHING, re.MULTILINE)
    assert len(named) > 20
    for command, options in named:
        asked = CliRunner().invoke(main, [command, "--help"])
        assert asked.exit_code == 0, command
        for option in re.findall(r"--[a-z-]+", options):
            assert option in asked.output, (command, option)


def test_every_setting_that_is_named_exists():
    for name in set(re.findall(r"RIVERDELTA_([A-Z_]+)", EVERYTHING)):
        assert name.lower() in Settings.model_fields or name in TOOLS or link(name, "tcp://10.0.0.1:3000")


def test_the_tables_of_settings_are_those_of_the_code():
    settings = TEXTS["docs/settings.md"]
    assert runpy.run_path(str(ROOT / "docs" / "generate.py"))["written"](settings) == settings


def test_every_make_verb_that_is_named_exists():
    verbs = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^\$ )make ([\w-]+)", EVERYTHING, re.MULTILINE)) <= set(verbs)


def _sections(page):
    """Return the names by which the headings of a page are linked."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_and_file_that_is_named_exists(name):
    text = re.sub(r"```.*?```", "", TEXTS[name], flags=re.DOTALL)
    for target, section in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        page = (ROOT / name).parent / target if target else ROOT / name
        assert target.startswith("https://") or page.exists(), target
        assert not section or section in _sections(page), (target, section)
    for path in re.findall(r"`(?:python )?((?:plugins|tests|monitoring|docs|service)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
