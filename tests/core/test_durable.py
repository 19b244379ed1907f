"""A file appears in full or not at all, and one module alone knows how."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.durable import atomic, overwrite, place, seal, unseal
from riverdelta.core.errors import Corrupt

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


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_that_was_made_elsewhere_takes_its_place(tmp_path, replace):
    made, target = tmp_path / "made", tmp_path / "target"
    for text in ("first", "second"):
        made.write_text(text)
        place(made, target, replace)
        assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == ("second" if replace else "first")


def test_all_of_a_folder_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    made, target, synced = tmp_path / "made", tmp_path / "target", []
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "file").write_bytes(b"x")
    monkeypatch.setattr("os.fsync", lambda file: synced.append((os.readlink(f"/proc/self/fd/{file}"), target.exists())))
    place(made, target)
    assert {path for path, placed in synced if not placed} == {str(made), str(made / "deep"), str(made / "deep" / "file")}
    assert [path for path, placed in synced if placed] == [str(tmp_path)]
    assert (target / "deep" / "file").read_bytes() == b"x"


@given(st.binary(max_size=40), st.integers(0, 55), st.integers(1, 255))
def test_sealed_bytes_are_read_back_and_refused_by_name_after_any_change(body, place, change):
    sealed = b"".join(seal(body))
    assert unseal(sealed, "it") == body
    broken = bytearray(sealed)
    broken[place % len(sealed)] ^= change
    for data in (bytes(broken), sealed[:-1], sealed + b"\0", sealed[:15], b""):
        with pytest.raises(Corrupt, match=rf"^it cannot be used: its {len(data)} bytes do not match the digest$"):
            unseal(data, "it")


def test_no_other_module_syncs_replaces_or_locks_a_file():
    calls = re.compile(r"os\.(fsync|replace|rename)\b|\.rename\(|flock")
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if calls.search(path.read_text())}
    assert found == {"core/durable.py", "core/locks.py"}
