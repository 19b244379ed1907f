"""Commands: each comes back from the journal as it was written, by whatever version, and what is not one is refused by name."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from riverdelta.core.errors import Corrupt, InvalidInput, NotFound
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import Control, decode, encode
from riverdelta.learning.command import Command
from riverdelta.learning.commands import (
    COMMANDS,
    MOST_RELEASE,
    Forget,
    Freeze,
    Promote,
    Release,
    Resume,
    Rollback,
    RotateKey,
    of_record,
)
from riverdelta.learning.erased import Subject

NUMBERS = st.integers(0, MOST_RELEASE)
PLACES = st.none() | st.integers(0, 2**63 - 1)
ANY = st.one_of(
    st.sampled_from([Freeze(), Release(), RotateKey()]),
    st.builds(Resume, skip=st.booleans()),
    st.builds(Promote, release=NUMBERS),
    st.builds(Forget, what=st.text(min_size=3, max_size=50)),
    st.builds(Rollback, release=st.none() | NUMBERS, relearn=st.booleans(), freeze=st.booleans(), promote=st.booleans()),
)
#: What this version writes, byte for byte: every later one reads it as the same command.
WRITTEN = {
    b'{"action": "freeze", "asked": 7, "by": "operator", "fields": {}, "kind": "command", "position": null, "time": 9.5, '
    b'"trip": null, "version": 1}': (Freeze(), {}),
    b'{"action": "resume", "asked": 7, "by": "operator", "fields": {"skip": false}, "kind": "command", "position": null, '
    b'"time": 9.5, "trip": null, "version": 2}': (Resume(), {}),
    b'{"action": "promote", "asked": 7, "by": "trial", "fields": {"release": 3}, "kind": "command", "position": null, '
    b'"time": 9.5, "trip": null, "version": 1}': (Promote(release=3), {"by": "trial"}),
    b'{"action": "rollback", "asked": 7, "by": "breaker", "fields": {"freeze": false, "promote": false, "relearn": true, '
    b'"release": 3}, "kind": "command", "position": 5, "time": 9.5, "trip": 2, "version": 1}': (
        Rollback(release=3, relearn=True),
        {"by": "breaker", "position": 5, "trip": 2},
    ),
    b'{"action": "release", "asked": 7, "by": "schedule", "fields": {}, "kind": "command", "position": null, "time": 9.5, '
    b'"trip": null, "version": 1}': (Release(), {"by": "schedule"}),
    b'{"action": "forget", "asked": 7, "by": "operator", "fields": {"what": "user=-7"}, "kind": "command", "position": null, '
    b'"time": 9.5, "trip": null, "version": 1}': (Forget(what="user=-7"), {}),
    b'{"action": "rotate-key", "asked": 7, "by": "operator", "fields": {}, "kind": "command", "position": null, '
    b'"time": 9.5, "trip": null, "version": 1}': (RotateKey(), {}),
}
#: What earlier versions wrote: nothing was held then, so what came while the breaker was open is dropped.
EARLIER = {
    b'{"action": "resume", "asked": 7, "by": "operator", "fields": {}, "kind": "command", "position": null, "time": 9.5, '
    b'"trip": null, "version": 1}': Resume(skip=True),
}


@given(ANY, st.sampled_from(["operator", "breaker", "trial", "schedule"]), PLACES, PLACES, PLACES, st.floats(0, 1e11))
def test_a_command_and_who_asked_for_it_come_back_from_the_journal(command, by, asked, position, trip, time):
    record = command.record(by=by, asked=asked, position=position, trip=trip, time=time)
    assert decode(encode(record)) == record
    assert of_record(decode(encode(record))) == command


@pytest.mark.parametrize("payload", EARLIER)
def test_the_bytes_of_earlier_versions_are_read_as_what_they_meant(payload):
    assert of_record(decode(payload)) == EARLIER[payload]
    with pytest.raises(InvalidInput, match="the recorded resume has the fields skip; expected none"):
        of_record(Instruction("resume", 1, {"skip": False}))


@pytest.mark.parametrize("payload", WRITTEN)
def test_the_bytes_of_this_version_are_written_and_read_for_good(payload):
    command, envelope = WRITTEN[payload]
    assert encode(command.record(asked=7, time=9.5, **envelope)) == payload
    assert of_record(decode(payload)) == command


def test_the_bytes_of_each_command_are_kept_here():
    assert {type(command) for command, _ in WRITTEN.values()} == set(COMMANDS.values())


def test_a_field_that_is_renamed_is_read_from_old_records_and_written_as_before(monkeypatch):
    class Renamed(Command):
        """Make a release the champion."""

        name = "promote"
        number: int = Field(serialization_alias="release")

    (old,) = (payload for payload, (command, _) in WRITTEN.items() if isinstance(command, Promote))
    monkeypatch.setitem(COMMANDS, "promote", Renamed)
    assert of_record(decode(old)) == Renamed(number=3)
    assert encode(Renamed(number=3).record(by="trial", asked=7, time=9.5)) == old


@pytest.mark.parametrize("cls", COMMANDS.values())
def test_each_is_described_and_each_of_its_fields_has_a_name_in_the_journal(cls):
    assert cls.summary().endswith(".")
    assert all(info.serialization_alias and info.description and info.examples for info in cls.model_fields.values())
    assert set(cls.model_json_schema().get("properties", {})) == set(cls.model_fields)


@pytest.mark.parametrize(
    ("arguments", "fields", "envelope"),
    [
        ({"release": 3, "position": 5}, {"relearn": False, "freeze": False, "promote": True}, {}),
        (
            {"release": 3, "position": 5, "relearn": True, "freeze": True, "promote": False},
            {"relearn": True, "freeze": True, "promote": False},
            {},
        ),
        (
            {"release": 3, "position": 5, "promote": False, "trip": 2, "by": "breaker", "asked": 8},
            {"relearn": False, "freeze": False, "promote": False},
            {"trip": 2, "by": "breaker", "asked": 8},
        ),
    ],
)
def test_a_rollback_of_version_0_1_is_read_as_the_command(arguments, fields, envelope):
    found = decode(encode(Control("rollback", arguments, 9.0)))
    assert found == Instruction("rollback", 1, {"release": 3, **fields}, position=5, time=9.0, **envelope)
    assert of_record(found) == Rollback(release=3, **fields)


@pytest.mark.parametrize(
    ("action", "arguments", "command"),
    [
        ("freeze", {}, Freeze()),
        ("resume", {}, Resume(skip=True)),
        ("release", {}, Release()),
        ("promote", {"release": 3, "by": "trial", "asked": 8}, Promote(release=3)),
    ],
)
def test_the_other_commands_of_version_0_1_are_read_too_and_other_controls_stay_controls(action, arguments, command):
    assert of_record(decode(encode(Control(action, arguments, 9.0)))) == command
    for other in ("settings", "drift", "refused"):
        assert decode(encode(Control(other, arguments, 9.0))) == Control(other, arguments, 9.0)


HOSTILE = {"NUL": "\0", "beyond": 10**400, "float": 3.0, "true": True, "text": "3", "list": [3], "below": -1, "null": None}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_of_another_kind_is_refused_by_its_field_wherever_it_comes_from(name):
    value = HOSTILE[name]
    with pytest.raises(ValidationError, match="release"):
        Promote(release=value)
    with pytest.raises(InvalidInput, match=r"the recorded promote: release is .*; expected an integer"):
        of_record(Instruction("promote", 1, {"release": value}))
    if value is not True:
        with pytest.raises(InvalidInput, match=r"the recorded rollback: relearn is .*; expected true or false"):
            of_record(Instruction("rollback", 1, {**Rollback().record().fields, "relearn": value}))


@pytest.mark.parametrize("fields", [{}, {"release": 3, "more": 1}, {"rel\0ease": 3}, {"Release": 3}])
def test_fields_that_are_missing_or_more_than_there_are_are_refused_by_name(fields):
    with pytest.raises(InvalidInput, match=r"the recorded promote has the fields .*; expected release"):
        of_record(Instruction("promote", 1, fields))


@pytest.mark.parametrize(
    ("action", "version", "said"),
    [
        ("merge", 1, "the command 'merge', which this version of riverdelta does not know"),
        ("promot", 1, "did you mean promote"),
        ("freeze\0", 1, r"'freeze\\x00'"),
        ("", 1, "the command ''"),
        ("freeze", 2, "version 2 of the command freeze, and this version of riverdelta reads version 1"),
        ("freeze", 0, "version 0 of the command freeze"),
        ("freeze", 2**63 - 1, "version 9223372036854775807"),
    ],
)
def test_a_command_of_another_version_of_riverdelta_is_corrupt_by_name_and_never_skipped(action, version, said):
    with pytest.raises(Corrupt, match=said):
        of_record(decode(encode(Instruction(action, version))))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("action", [None, 7, ["freeze"]]),
        ("version", [None, True, "1", 1.0, -1, 2**63, 10**400]),
        ("fields", [None, [], "release"]),
        ("by", [None, 7, True]),
        *((name, [True, "1", 1.0, -1, 2**63, 10**400, []]) for name in ("asked", "position", "trip")),
        ("time", [None, True, "9", [], 1e20, -1e20, float("nan"), float("inf")]),
        ("more", [1]),
    ],
)
def test_an_envelope_that_is_not_one_is_corrupt(name, values):
    whole = json.loads(next(iter(WRITTEN)))
    for value in values:
        with pytest.raises(Corrupt, match="not a journal record"):
            decode(json.dumps({**whole, name: value}).encode())
    for key in ("action", "version"):
        with pytest.raises(Corrupt, match="not a journal record"):
            decode(json.dumps({k: v for k, v in whole.items() if k != key}).encode())


def test_a_rollback_without_a_release_takes_the_one_by_default_and_is_refused_where_it_has_none():
    assert Rollback(freeze=True).resolved(lambda: 4) == Rollback(release=4, freeze=True)
    assert Rollback(release=2).resolved(lambda: 4) == Rollback(release=2)
    assert Promote(release=2).resolved(lambda: 4) == Promote(release=2)
    with pytest.raises(NotFound, match="names no release"):
        Rollback().check(None, None)
    with pytest.raises(NotFound, match="names no release"):
        Rollback(release=2).apply(None, 9, None)


ADDED = '''
from pydantic import Field

from riverdelta.learning.commands import COMMANDS, Command, Number, of_record


class Probe(Command):
    """Look at one release."""

    name = "probe"
    release: Number = Field(serialization_alias="release", description="The release.", examples=[3])
    deep: bool = Field(default=False, serialization_alias="deep", description="Look closely.", examples=[True])


COMMANDS["probe"] = Probe
from riverdelta.bento.access import ADMIN
from riverdelta.bento.endpoints import http_endpoint
from riverdelta.cli.main import main

assert of_record(Probe(release=3).record()) == Probe(release=3)
row = http_endpoint("POST", "/admin/probe")
assert (row.roles, row.summary, row.takes.model_fields.keys()) == (ADMIN, "Look at one release.", {"release", "deep", "wait"})
command = main.get_command(None, "probe")
assert command.help == "Look at one release."
assert {p.name for p in command.params} >= {"release", "deep", "target", "as_json"}
'''


def test_a_command_is_one_class_from_which_record_route_body_and_options_follow():
    done = subprocess.run([sys.executable, "-c", ADDED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("what", "recorded"),
    [
        ("user=ann", f"user={id64('ann')}"),
        ("user=42", "user=42"),
        ('user="42"', f"user={id64('42')}"),
        ("user=#ann", f"user={id64('#ann')}"),
        ("user=a=b", f"user={id64('a=b')}"),
        ("request_id=order-17", f"request_id=4.2.{id64('order-17')}"),
        ("request_id=never", f"request_id=0.0.{id64('never')}"),
    ],
)
def test_what_is_forgotten_is_recorded_by_its_hash_alone(what, recorded):
    made = Forget(what=what).private(Schema.of({"user": "int64"}), {"order-17": (4, 2)}.get)
    assert made.record().fields == {"what": recorded}
    assert str(Subject.parse(recorded)) == recorded
    assert made.shown() == {"what": recorded.partition("=")[0]}


@pytest.mark.parametrize("what", ["ann", "hour=3", "shop=7"])
def test_what_is_no_id_that_the_journal_keeps_is_refused_by_name(what):
    with pytest.raises(InvalidInput, match=r"expected column=value|is not an id column"):
        Forget(what=what).private(Schema.of({"user": "int64", "hour": "float32"}), {}.get)
