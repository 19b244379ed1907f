"""Ids name a request, and nobody else can make one."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.errors import ConfigurationError
from riverdelta.journal.ids import Ids, load_key

IDS = Ids(bytes(range(32)))


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**40 - 1), st.integers(0, 999_999_999))
def test_an_id_reads_back_as_what_was_issued(incarnation, request, row):
    name = IDS.issue(incarnation, request)
    assert len(name) == 22
    assert IDS.parse(f"{name}.{row}") == (incarnation, request, row)


@given(st.integers(0, 21), st.sampled_from("ABCabc019-_"))
def test_an_id_with_another_character_is_refused(place, letter):
    name = IDS.issue(7, 42)
    forged = name[:place] + letter + name[place + 1 :]
    assert forged == name or IDS.parse(f"{forged}.0") is None


@pytest.mark.parametrize(
    "text",
    ["", ".", "x", IDS.issue(1, 2), IDS.issue(1, 2) + ".", IDS.issue(1, 2) + ".-1", IDS.issue(1, 2) + ".1.2"]
    + [IDS.issue(1, 2) + ".1234567890", IDS.issue(1, 2) + ".²", "é" * 22 + ".0", IDS.issue(1, 2) + "=.0", "A" * 10**6 + ".0"],
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
