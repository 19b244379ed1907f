"""Ids name a request, and nobody else can make one; a new key replaces the last one without refusing its ids at once."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError
from riverdelta.storage.journal.ids import Ids, load_key, new_incarnation, rotate_key

IDS = Ids(bytes(range(32)))
#: What version 0.1 issued with the same key, and what it meant.
OLD = {"AAAHAAAAACrHh7HhgciGwg": (7, 42), "___________OpZzMfc-yKw": (2**24 - 1, 2**40 - 1)}


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40 - 1), st.integers(0, 999_999_999))
def test_an_id_reads_back_as_what_was_issued(incarnation, request, row):
    name = IDS.issue(incarnation, request)
    assert len(name) == 28
    assert IDS.parse(f"{name}.{row}") == (incarnation, request, row)


@given(st.integers(0, 27), st.sampled_from("ABCabc019-_"))
def test_an_id_with_another_character_is_refused(place, letter):
    name = IDS.issue(7, 42)
    forged = name[:place] + letter + name[place + 1 :]
    assert forged == name or IDS.parse(f"{forged}.0") is None


@pytest.mark.parametrize(("name", "request_of"), OLD.items())
def test_an_id_of_version_0_1_is_read(name, request_of):
    assert IDS.parse(f"{name}.3") == (*request_of, 3)
    assert IDS.parse(f"{name[:-1]}.3") is None


@given(
    st.integers(1, 2**23 - 1), st.integers(1, 2**23 - 1), st.binary(min_size=5, max_size=5), st.binary(min_size=5, max_size=5)
)
def test_incarnations_differ_where_their_places_or_their_randomness_do(place, other, random, others):
    made, second = new_incarnation(place, lambda _: random), new_incarnation(other, lambda _: others)
    assert (made == second) == ((place, random) == (other, others))
    assert 2**40 <= made < 2**63  # above any of version 0.1, and an int64


def test_incarnations_of_one_place_differ_by_default():
    assert len({new_incarnation(7) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    "text",
    ["", ".", "x", IDS.issue(1, 2), IDS.issue(1, 2) + ".", IDS.issue(1, 2) + ".-1", IDS.issue(1, 2) + ".1.2"]
    + [
        IDS.issue(1, 2) + ".1234567890",
        IDS.issue(1, 2) + ".²",
        "é" * 28 + ".0",
        IDS.issue(1, 2) + "=.0",
        IDS.issue(1, 2) + ".01",
        IDS.issue(1, 2) + ".00",
        "A" * 10**6 + ".0",
    ],
)
def test_a_malformed_id_is_refused(text):
    assert IDS.parse(text) is None


@given(st.text(max_size=40))
def test_any_text_is_refused_without_an_error(text):
    assert IDS.parse(text) is None


def test_a_row_after_a_refused_id_of_the_same_request_is_still_read():
    name = IDS.issue(1, 2)
    assert [IDS.parse(f"{name}.0"), IDS.parse("x.0"), IDS.parse(f"{name}.1")] == [(1, 2, 0), None, (1, 2, 1)]


def test_another_service_s_id_is_refused():
    assert IDS.parse(Ids(b"other key" * 3).issue(7, 42) + ".0") is None


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    key = load_key(tmp_path / "deep" / "key")
    assert load_key(tmp_path / "deep" / "key") == key
    assert (tmp_path / "deep" / "key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "deep") == ["key"]


def test_workers_that_start_at_once_agree_on_one_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        together = Barrier(8)
        keys = pool.map(lambda _: (together.wait(), load_key(tmp_path / "key"))[1], range(8))
        assert len(set(keys)) == 1


def test_a_damaged_key_is_named(tmp_path):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match=r"key has 5 bytes; a key has 32"):
        load_key(tmp_path / "key")


@pytest.fixture
def path(tmp_path):
    load_key(tmp_path / "key")
    return tmp_path / "key"


def test_an_id_of_the_last_key_is_read_until_its_window_ends(path):
    ids = Ids.load(path, 1000.0)
    name = ids.issue(7, 42)
    rotate_key(path, 1000.0, 60.0)
    for loaded in (ids, Ids.load(path, 1000.0)):
        loaded.refresh(1059.9)
        assert loaded.parse(f"{name}.3") == (7, 42, 3)
        loaded.refresh(1060.0)
        assert loaded.parse(f"{name}.3") is None
        assert loaded.parse(loaded.issue(7, 42) + ".3") == (7, 42, 3)
    assert Ids.load(path, 1060.0).parse(f"{name}.3") is None


def test_a_running_worker_issues_with_the_new_key_from_its_next_refresh_on(path):
    ids = Ids.load(path, 0.0)
    rotate_key(path, 0.0, 60.0)
    before = ids.issue(1, 1)
    ids.refresh(0.0)
    after = ids.issue(1, 1)
    only_new = Ids(path.read_bytes())
    assert before != after
    assert (only_new.parse(f"{before}.0"), only_new.parse(f"{after}.0")) == (None, (1, 1, 0))


def test_an_id_that_another_worker_issued_with_a_newer_key_is_read_before_the_refresh(path):
    slow = Ids.load(path, 0.0)
    rotate_key(path, 0.0, 60.0)
    assert slow.parse(Ids.load(path, 0.0).issue(2, 3) + ".0") == (2, 3, 0)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 100)), min_size=1, max_size=6))
def test_after_any_rotations_an_id_is_read_exactly_as_long_as_its_own_window(rotations):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        ids, now, issued = Ids.load(path, 0.0), 0.0, []
        for pause, window in rotations:
            now += pause
            ids.refresh(now)
            issued.append((ids.issue(1, len(issued)), now + window))
            rotate_key(path, now, window)
        for at in sorted([now, *(until for _, until in issued)]):
            if at >= now:
                fresh = Ids.load(path, at)
                ids.refresh(at)
                for name, until in issued:
                    assert (fresh.parse(f"{name}.0") is not None) == (at < until)
                    assert (ids.parse(f"{name}.0") is not None) == (at < until)


def test_a_key_without_a_window_stays_invalid_when_the_clock_is_set_back(path):
    ids = Ids.load(path, 1_000.0)
    name = ids.issue(1, 1)
    rotate_key(path, 1_000.0, 0.0)
    assert Ids.load(path, 400.0).parse(f"{name}.0") is None


def test_a_rotation_leaves_two_files_that_only_their_owner_reads(path):
    for _ in range(3):
        rotate_key(path, 0.0, 60.0)
    assert sorted(p.name for p in path.parent.iterdir()) == [".key.turn", "key", "key.previous"]
    assert [p.stat().st_mode & 0o777 for p in (path, path.with_name("key.previous"))] == [0o600] * 2
    assert path.with_name("key.previous").stat().st_size == 3 * 40


def test_rotations_at_once_lose_no_key(path):
    ids = [Ids.load(path, 0.0)]
    names = [ids[0].issue(0, 0)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: rotate_key(path, 0.0, 60.0), range(8)))
    assert Ids.load(path, 1.0).parse(f"{names[0]}.0") == (0, 0, 0)
    assert path.with_name("key.previous").stat().st_size == 8 * 40


MORTAL = """
import os, sys
from pathlib import Path
from riverdelta.storage.journal.ids import Ids, rotate_key

path, names = Path(sys.argv[1]), []
first = Ids.load(path, 0.0)

def rotate(steps):
    def counted(call):
        def other(*given):
            nonlocal steps
            steps -= 1
            return call(*given) if steps >= 0 else os._exit(9)
        return other
    for name in ("fsync", "replace", "urandom"):
        setattr(os, name, counted(getattr(os, name)))
    rotate_key(path, 0.0, 60.0)
    os._exit(0)

for steps in range(9):
    names.append(Ids.load(path, 0.0).issue(1, steps))
    child = os.fork() or rotate(steps)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ids = Ids.load(path, 1.0)
    assert [ids.parse(f"{name}.0") for name in names] == [(1, i, 0) for i in range(len(names))], steps
    assert first.parse(ids.issue(2, 2) + ".0") == (2, 2, 0)
    print(code)
"""


def test_a_rotation_that_is_killed_at_any_step_refuses_no_id(path):
    done = subprocess.run([sys.executable, "-c", MORTAL, path], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["9"] * 7 + ["0"] * 2


@pytest.mark.parametrize("name", ["key", "key.previous"])
def test_a_key_that_others_could_read_is_closed_to_them_with_a_warning(path, name, caplog):
    rotate_key(path, 0.0, 60.0)
    file = path.with_name(name)
    file.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        Ids.load(path, 0.0)
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"{file} had mode 0640" in caplog.text
    assert "rotate-key" in caplog.text


def test_a_key_that_others_read_and_that_is_not_ours_to_close_is_refused(path, monkeypatch):
    path.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", lambda *_: (_ for _ in ()).throw(PermissionError("not yours")))
    with pytest.raises(ConfigurationError, match=r"key has mode 0644 .*not yours.*chmod 600"):
        load_key(path)


def test_damaged_former_keys_are_named(path):
    rotate_key(path, 0.0, 60.0)
    path.with_name("key.previous").write_bytes(b"x" * 41)
    with pytest.raises(ConfigurationError, match=r"key.previous has 41 bytes; expected 40 a key"):
        Ids.load(path, 0.0)


def test_a_key_file_that_is_gone_changes_nothing_for_those_that_run(path):
    ids = Ids.load(path, 0.0)
    name = ids.issue(1, 2)
    path.unlink()
    ids.refresh(1.0)
    assert ids.parse(f"{name}.0") == (1, 2, 0)
    assert ids.parse("A" * 28 + ".0") is None
