"""Digests and hashes are the same wherever they are taken, and one module alone takes them."""

import re
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Column
from riverdelta.core.hashing import MOST_ID_LENGTH, digest, file_digest, id64, id_of, mixed

PACKAGE = Path(__file__).parents[2] / "plugins" / "riverdelta"
ids = st.integers(-(2**63), 2**63 - 1)


@given(st.text())
def test_id64_is_an_int64_and_the_same_for_text_and_its_bytes(text):
    assert -(2**63) <= id64(text) == id64(text.encode()) < 2**63


@given(st.lists(st.binary(max_size=8), max_size=4))
def test_a_digest_is_of_the_bytes_however_they_are_cut(parts):
    assert digest(*parts) == digest(b"".join(parts))


def test_a_digest_depends_on_every_byte_on_the_key_and_on_its_size():
    found = [digest(b"ab"), digest(b"abc"), digest(b"ab\0"), digest(b"ab", key=b"k"), digest(b"ab", size=15), digest()]
    assert len({one[:15] for one in found}) == len(found)


def test_a_file_s_digest_is_that_of_its_bytes_and_of_files_that_of_one_after_another(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"x" * (1 << 22))
    second.write_bytes(b"y")
    assert file_digest(first) == digest(first.read_bytes()).hex()
    assert file_digest(first, second) == digest(first.read_bytes() + b"y").hex() != file_digest(second, first)


@given(st.lists(ids, min_size=1, max_size=8))
def test_ids_are_mixed_by_splitmix64_in_arrays_and_in_kernels(values):
    def reference(x):
        x %= 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    given = np.array(values, np.int64)
    assert mixed(given).tolist() == [kernel(x) for x in given] == [reference(x) for x in values]


kernel = numba.njit("uint64(int64)")(mixed)


def test_no_other_module_hashes():
    """Besides what others define: a publisher's checksum, and a browser's of what a page may run."""
    calls = re.compile(r"hashlib|blake2b\(|0xBF58|0x9E37", re.IGNORECASE)
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if calls.search(path.read_text())}
    assert found == {"core/hashing.py", "lab/datasets/find.py", "bento/page/render.py"}


def test_a_string_id_has_a_longest_length():
    longest = "ä" * MOST_ID_LENGTH
    assert id_of(longest) == id64(longest)
    assert id_of(longest + "a") is id_of(b"a" * (MOST_ID_LENGTH + 1)) is None
    with pytest.raises(InvalidInput, match=r"row 1 has 'äää.*ä' of type str .* a string of at most 4096 characters") as refused:
        Column("user", "int64").check(["ann", longest * 100])
    assert len(str(refused.value)) < 400
