"""The suite is chosen by what the object is, reports failures that are expected, and names what cannot be checked."""

from pathlib import Path

import pytest
from broken_corrections import SCHEMA, InflateMovesOutputs, LearnsWeightZero, Shift

from riverdelta.checks import LAWS, LawBroken, MemoryLog, Part, check, parametrize_with_checks, yield_checks
from riverdelta.core.arrays import Stateful
from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.corrections.base import Correction
from riverdelta.corrections.entity import Entity
from riverdelta.storage.log import Log
from riverdelta.storage.registry import FolderRegistry, Registry


class Counter:
    def state(self):
        return {}

    def load(self, arrays):
        pass


@pytest.mark.parametrize(
    ("obj", "kind", "of"),
    [
        (Shift(), Correction, "Shift"),
        (LOG_LOSS, Loss, "LogLoss"),
        (lambda folder: MemoryLog(), Log, "MemoryLog"),
        (FolderRegistry, Registry, "FolderRegistry"),
        (Part(Counter, lambda part, start, stop: None, 3), Stateful, "Counter"),
    ],
    ids=["correction", "loss", "log", "registry", "part"],
)
def test_the_checks_are_those_of_what_the_object_is(obj, kind, of):
    checks = list(yield_checks(obj))
    assert [each.name for each in checks[1:]] == [law.__name__ for law in LAWS[kind]]
    assert {each.of for each in checks} == {of}
    assert repr(checks[0]) == f"{of}-its_methods_are_those_of_the_contract"


KNOWN = {"what_cannot_be_learned_leaves_no_trace": "rows of weight 0 are counted on purpose"}


def test_a_failure_that_is_expected_is_reported_and_not_raised():
    with pytest.raises(LawBroken, match="whose weight is 0"):
        check(LearnsWeightZero(), SCHEMA)
    ((name, found),) = check(LearnsWeightZero(), SCHEMA, expected_failed_checks=KNOWN).items()
    assert name in KNOWN
    assert found.startswith("LearnsWeightZero: what_cannot_be_learned_leaves_no_trace: with a row whose weight is 0: ")


def test_a_check_that_was_expected_to_fail_and_holds_is_an_error():
    with pytest.raises(LawBroken, match="leaves_no_trace holds; remove it from expected_failed_checks"):
        check(Shift(), SCHEMA, expected_failed_checks=KNOWN)


@pytest.mark.parametrize("ask", [check, lambda obj, *given: parametrize_with_checks([obj], *given)])
def test_an_expected_failure_of_no_check_is_refused(ask):
    with pytest.raises(ConfigurationError, match=r"names 'it_flies'; the checks of Shift are its_methods.*, it_learns, "):
        ask(Shift(), SCHEMA, LOG_LOSS, {"it_flies": "never"})


@parametrize_with_checks([LearnsWeightZero()], SCHEMA, expected_failed_checks=KNOWN)
def test_an_expected_failure_is_a_strict_xfail_in_pytest(check):
    check()


def test_pytest_s_ids_name_the_object_and_the_law_and_a_mapping_s_keys_the_objects():
    def ids(objects):
        return [param.id for param in parametrize_with_checks(objects, SCHEMA, expected_failed_checks=KNOWN).args[1]]

    assert ids([Shift()])[5] == "Shift-it_learns"
    assert ids({"mine": Shift(), "theirs": Shift()})[-1].startswith("theirs-")
    marked = [p for p in parametrize_with_checks([Shift()], SCHEMA, expected_failed_checks=KNOWN).args[1] if p.marks]
    assert [(p.marks[0].name, p.marks[0].kwargs["strict"], p.marks[0].kwargs["reason"]) for p in marked] == [
        ("xfail", True, KNOWN["what_cannot_be_learned_leaves_no_trace"])
    ]


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (Shift, r"Shift is a class; expected an instance of it: Shift\(\.\.\.\)"),
        (3, r"^3 cannot be checked; expected a correction or a loss such as Calibration\(\), a Part"),
        (MemoryLog(), r"MemoryLog object.* cannot be checked; expected .* such as lambda folder: MyLog\(folder\)"),
        (lambda: MemoryLog(), r"cannot be checked; .*takes 0 positional arguments but 1 was given"),
        (lambda folder: 3, "opened 3; expected a log, which has `transaction`, or a registry, which has `write`"),
    ],
    ids=["a class", "a number", "a log itself", "another signature", "neither log nor registry"],
)
def test_what_cannot_be_checked_is_refused_by_name(obj, words):
    with pytest.raises(ConfigurationError, match=words):
        check(obj)


class LearnsWithoutWeight(Shift):
    def learn(self, columns, offset, label):
        return offset


class HasNoExport(Shift):
    export = None


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (
            LearnsWithoutWeight(),
            r"its method is learn\(columns, offset, label\); expected learn\(self, columns: .*: too many pos",
        ),
        (HasNoExport(), r"it has no method export; expected export\(self, nodes: "),
    ],
    ids=["another signature", "no method"],
)
def test_a_method_that_is_missing_or_takes_something_else_is_named_first(obj, words):
    with pytest.raises(LawBroken, match=f"{type(obj).__name__}: its_methods_are_those_of_the_contract: {words}"):
        check(obj, SCHEMA)


def test_a_schema_that_lacks_a_column_is_the_caller_s_mistake_and_not_a_broken_law():
    with pytest.raises((ConfigurationError, InvalidInput), match="user"):
        check(Entity("user", slots=8), SCHEMA)


def test_each_check_is_alone():
    broken = [each.name for each in yield_checks(InflateMovesOutputs("u", slots=64), SCHEMA) if _raises(each)]
    assert broken == ["inflating_moves_no_output"]


def _raises(each):
    try:
        each()
    except LawBroken:
        return True
    return False


def test_a_failure_shows_pytest_the_callers_frame_alone():
    with pytest.raises(LawBroken) as raised:
        check(InflateMovesOutputs("u", slots=64), SCHEMA)
    assert [Path(str(entry.path)).name for entry in raised.traceback.filter(raised)] == ["test_suite.py"]
    assert raised.value.__suppress_context__
