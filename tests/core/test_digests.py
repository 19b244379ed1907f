"""Digests of files: always of the bytes that are there, and read in full only where that could be in doubt."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverdelta.core import digests
from riverdelta.core.digests import file_digest, keep, remember

MANY = 1 << 20


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Begin and end as a new process does."""
    monkeypatch.setattr(digests, "_known", {})
    return lambda: digests._known.clear()


@pytest.fixture
def reads(monkeypatch):
    """The files that are opened for their digest, in order."""
    opened, real = [], Path.open

    def spy(self, *args, **given):
        opened.append(self.name)
        return real(self, *args, **given)

    monkeypatch.setattr(Path, "open", spy)
    return opened


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(MANY))
    settle()
    return path


def settle():
    """Wait until another write would have another time."""
    time.sleep(2 * digests._TICK_NS / 1e9)


def true(*paths):
    return hashlib.blake2b(b"".join(path.read_bytes() for path in paths), digest_size=16).hexdigest()


def test_a_large_file_is_read_once_in_a_process_and_not_at_all_in_the_next(large, tmp_path, forget, reads):
    expected = true(large)
    assert [file_digest(large) for _ in range(3)] == [expected] * 3
    assert reads.count(large.name) == 1 + 1
    keep(tmp_path / "digests.json")
    forget()
    remember(tmp_path / "digests.json")
    assert file_digest(large) == expected
    assert reads.count(large.name) == 1 + 1


def write_in_place(path):
    with path.open("r+b") as file:
        file.write(b"?")


def put_the_times_back(path):
    before = path.stat()
    write_in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_in_its_place(path):
    other = path.with_name("other")
    other.write_bytes(os.urandom(path.stat().st_size))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)


@pytest.mark.parametrize("change", [write_in_place, put_the_times_back, put_another_in_its_place])
def test_a_file_that_was_changed_is_read_again_also_where_it_hides_the_change(large, tmp_path, forget, change):
    before = file_digest(large)
    keep(tmp_path / "digests.json")
    change(large)
    assert file_digest(large) == true(large) != before
    forget()
    remember(tmp_path / "digests.json")
    assert file_digest(large) == true(large)


def test_a_file_that_changes_while_it_is_read_is_read_again(large, monkeypatch):
    real = Path.open

    def late(self, *args, **given):
        write_in_place_of(real, self)
        return real(self, *args, **given)

    with monkeypatch.context() as busy:
        busy.setattr(Path, "open", late)
        file_digest(large)
    assert digests._known == {}


def write_in_place_of(opener, path):
    with opener(path, "r+b") as file:
        file.write(os.urandom(1))


def test_a_file_just_written_and_a_small_one_are_always_read(tmp_path):
    (small := tmp_path / "small").write_bytes(b"x")
    settle()
    file_digest(small)
    (fresh := tmp_path / "fresh").write_bytes(bytes(MANY))
    file_digest(fresh)
    assert digests._known == {}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["append", "in place", "replace", "wait", "restart"]), max_size=8))
def test_whatever_happens_to_files_their_digest_is_that_of_their_bytes(tmp_path_factory, forget, monkeypatch, steps):
    monkeypatch.setattr(digests, "_LEAST_BYTES", 0)
    folder = tmp_path_factory.mktemp("files")
    a, b = folder / "a", folder / "b"
    a.write_bytes(b"first")
    b.write_bytes(b"second")
    for step in steps:
        if step == "append":
            a.write_bytes(a.read_bytes() + b"more")
        elif step == "in place":
            write_in_place(b)
        elif step == "replace":
            put_another_in_its_place(a)
        elif step == "wait":
            settle()
        else:
            keep(folder / "digests.json")
            forget()
            remember(folder / "digests.json")
        assert (file_digest(a, b), file_digest(b)) == (true(a, b), true(b))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[[]]",
        '{"files": 1}',
        "[1]",
        '[{"files": "a", "identities": [1], "digest": 3}]',
        "[" * 100_000,
        '[{"files": ["a"], "identities": [[Infinity]], "digest": "x"}]',
        '[{"files": ["/tmp/a\\u0000b"], "identities": [[1, 2, 3, 4, 5]], "digest": "x"}]',
    ],
)
def test_a_damaged_file_of_digests_is_passed_over(large, tmp_path, text):
    (tmp_path / "digests.json").write_text(text)
    remember(tmp_path / "digests.json")
    assert file_digest(large) == true(large)
    keep(tmp_path / "digests.json")
    assert [entry["digest"] for entry in json.loads((tmp_path / "digests.json").read_text())] == [true(large)]


def test_a_file_that_is_gone_is_kept_no_longer(large, tmp_path):
    file_digest(large)
    keep(tmp_path / "digests.json")
    large.unlink()
    keep(tmp_path / "digests.json")
    assert json.loads((tmp_path / "digests.json").read_text()) == []
