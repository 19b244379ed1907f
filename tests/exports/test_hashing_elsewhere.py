"""The page on the exported model: every recipe for ids gives the ids of its table, which are riverdelta's."""

import json
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from riverdelta.core.hashing import id64

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \|(?: `([0-9a-f]*)`)? *\| (-?\d+) \|$", PAGE, re.MULTILINE)
#: Around the length of a block of BLAKE2b, and the longest that a service takes.
LONG = ["a" * length for length in (1, 7, 8, 9, 127, 128, 129, 255, 256, 257, 4096)] + ["é" * 64, "\0", " user-42", "User-42"]


def text_of(row):
    shown, encoded, _ = row
    if repeated := re.fullmatch(r"(\d+) times `(.)`", shown):
        return repeated[2] * int(repeated[1])
    return bytes.fromhex(encoded).decode()


def test_the_table_has_the_ids_of_riverdelta():
    texts = [text_of(row) for row in ROWS]
    assert [id64(text) for text in texts] == [int(row[2]) for row in ROWS]
    composed, apart = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    assert {"", "42", "user-42", composed, apart, "a" * 128, "a" * 129} <= set(texts)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_javascript_gives_the_same_ids():
    (script,) = re.findall(r"```javascript\n(.*?)```", PAGE, re.DOTALL)
    texts = [*map(text_of, ROWS), *LONG]
    script += f"\nconsole.log(JSON.stringify({json.dumps(texts)}.map((text) => id64(text).toString())));"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert [int(found) for found in json.loads(done.stdout)] == [id64(text) for text in texts]


@pytest.mark.parametrize("number", range(3))
def test_the_python_within_a_function_of_a_database_gives_the_same_ids(number):
    body = re.findall(r"```sql\n.*?AS \$\$\n(.*?)\$\$;", PAGE, re.DOTALL)[number]
    if not body.count("def "):
        body = "def id64(text):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    scope = {}
    exec(body, scope)
    assert [scope["id64"](text) for text in LONG] == [id64(text) for text in LONG]


def test_every_python_function_of_the_page_gives_the_same_ids():
    blocks = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def id64" in block]
    assert len(blocks) == 2
    for block in blocks:
        scope = {}
        exec(block, scope)
        assert [scope["id64"](text) for text in LONG] == [id64(text) for text in LONG]
