"""Impression ids and bearer tokens: any text is read or refused as documented, and none that was not given out passes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.bento.access import Access, Role, is_loopback
from riverdelta.core.errors import ConfigurationError, Unauthenticated
from riverdelta.core.senders import entries
from riverdelta.storage.journal.ids import Ids

FUZZ = settings.get_profile("fuzz")
IDS = Ids(bytes(range(32)))
TOKENS = {Role.SCORE: ["score-token-of-the-shop"], Role.ADMIN: ["admin+token/of~the.shop=="]}
ACCESS = Access(TOKENS)
LETTERS = st.sampled_from("ABCXYZabcxyz0189-_+/=. \n\t\0é²٣") | st.characters()
#: A place, how many characters go there, and what comes in their stead.
EDITS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.text(LETTERS, max_size=3)), max_size=3)
NUMBERS = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**40 - 1), st.integers(0, 10**9 - 1))


def edited(text, edits):
    for place, count, other in edits:
        at = place % (len(text) + 1)
        text = text[:at] + other + text[at + count :]
    return text


@settings(FUZZ)
@given(NUMBERS, EDITS)
def test_an_edited_id_is_refused_unless_its_request_is_still_the_issued_one(numbers, edits):
    name = IDS.issue(*numbers[:2])
    text = edited(f"{name}.{numbers[2]}", edits)
    found = IDS.parse(text)
    kept, _, row = text.partition(".")
    if found is None:
        assert kept != name or not (row.isascii() and row.isdigit() and len(row) <= 9)
    else:
        # The MAC covers the request; any of its rows may be named.
        assert (kept, found) == (name, (*numbers[:2], int(row)))


@settings(FUZZ)
@given(NUMBERS, NUMBERS, st.integers(1, 27))
def test_two_ids_joined_anywhere_are_neither_or_one_of_the_two(left, right, cut):
    names = [IDS.issue(*numbers[:2]) for numbers in (left, right)]
    joined = names[0][:cut] + names[1][cut:]
    assert joined in names or IDS.parse(f"{joined}.0") is None


@settings(FUZZ)
@given(NUMBERS, st.binary(min_size=1, max_size=64))
def test_an_id_of_another_key_is_refused(numbers, key):
    assert key == bytes(range(32)) or IDS.parse(Ids(key).issue(*numbers[:2]) + ".0") is None


@settings(FUZZ)
@given(st.sampled_from([token for given in TOKENS.values() for token in given]), st.sampled_from(["Bearer", "bearer"]), EDITS)
def test_an_edited_header_passes_with_a_known_token_alone(token, scheme, edits):
    header = edited(f"{scheme} {token}", edits)
    try:
        caller = ACCESS.caller([header], "10.0.0.7")
    except Unauthenticated as error:
        # What was tried ends in no answer and in no log.
        assert token not in str(error)  # noqa: PT017
    else:
        kind, _, sent = header.strip().partition(" ")
        owner = next(role for role, given in TOKENS.items() if sent.strip(" ") in given)
        assert kind.lower() == "bearer"
        assert owner in caller.roles


@settings(FUZZ)
@given(st.lists(st.text(LETTERS, max_size=40), max_size=3), st.text(max_size=20))
def test_headers_that_hold_no_known_token_are_unauthenticated(headers, peer):
    with pytest.raises(Unauthenticated):
        ACCESS.caller(headers, peer)


@settings(FUZZ)
@given(st.text(LETTERS, max_size=40))
def test_any_text_is_a_token_that_lets_in_or_is_refused_by_its_setting(token):
    try:
        access = Access({Role.FEEDBACK: [token]})
    except ConfigurationError as error:
        assert "RIVERDELTA_FEEDBACK_TOKENS" in str(error)  # noqa: PT017
    else:
        given = entries(token)
        assert access.on == bool(given)
        for _, each in given:
            assert access.caller([f"Bearer {each}"], "").roles == {Role.FEEDBACK}
        assert ("RIVERDELTA_FEEDBACK_TOKENS" in access.missing) != access.on


@settings(FUZZ)
@given(st.text(st.sampled_from("0123456789abcf.:[]%/lochst"), max_size=24))
def test_any_text_is_an_address_of_this_machine_or_not(host):
    assert is_loopback(host) in (True, False)
