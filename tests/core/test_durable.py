"""A file appears in full or not at all, and one module alone knows how."""

import re
from pathlib import Path

import pytest

from riverdelta.core.durable import atomic, overwrite

PACKAGE = Path(__file__).parents[2] / "plugins" / "riverdelta"


def test_a_file_appears_in_full_or_not_at_all(tmp_path):
    target = tmp_path / "folder" / "file"
    with atomic(target) as file:
        file.write(b"first")
        assert not target.exists()
    with pytest.raises(ValueError, match="closed"), atomic(target) as file:
        file.close()
    assert target.read_bytes() == b"first"
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o644


def test_the_first_of_two_writers_that_do_not_replace_wins(tmp_path):
    target = tmp_path / "key"
    with atomic(target, 0o600, replace=False) as slow:
        slow.write(b"slow")
        with atomic(target, 0o600, replace=False) as quick:
            quick.write(b"quick")
    assert target.read_bytes() == b"quick"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("broken", ["fsync", "replace", "link"])
def test_after_an_error_nothing_is_left_behind(tmp_path, monkeypatch, broken, replace):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"os.{broken}", full)
    if broken == ("link" if replace else "replace"):
        monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic(tmp_path / "file", replace=replace) as file:
        file.write(b"lost")
    assert list(tmp_path.iterdir()) == []


def test_what_is_overwritten_has_the_old_contents_until_it_has_the_new(tmp_path, monkeypatch):
    target = tmp_path / "head"
    overwrite(target, b"old")
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", lambda *_: None)
        overwrite(target, b"new and longer")
    assert target.read_bytes() == b"old"
    overwrite(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_no_other_module_syncs_or_replaces_a_file():
    """Besides the lab, which moves what it downloaded or exported into place."""
    calls = re.compile(r"os\.(fsync|replace)\b")
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if calls.search(path.read_text())}
    assert {name for name in found if not name.startswith("lab/")} == {"core/durable.py"}
