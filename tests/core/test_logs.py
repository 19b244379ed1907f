"""Logs as JSON: one line a record, whatever the record says."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.logs import JsonLines, Throttled, use_json


@given(st.text(), st.text(max_size=20))
def test_any_message_is_one_line_that_reads_back(message, argument):
    record = logging.makeLogRecord({"name": "riverdelta.x", "levelname": "INFO", "msg": "%s|%s", "args": (message, argument)})
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == f"{message}|{argument}"
    assert "trace_id" not in json.loads(line)


@pytest.fixture
def logger():
    log = logging.getLogger("riverdelta")
    before = log.handlers[:], log.level, log.propagate
    yield log
    log.handlers[:], log.level, log.propagate = before


def test_an_error_is_told_with_its_traceback_and_its_trace_once_however_often_it_was_set_up(logger):
    stream = io.StringIO()
    for _ in range(2):
        use_json(lambda: ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"), stream)
    try:
        raise OSError("the disk\nis full")
    except OSError:
        logging.getLogger("riverdelta.sidecar").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("ERROR", "riverdelta.sidecar", "it failed")
    assert told["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert told["error"].endswith("OSError: the disk\nis full")


def counted(pairs):
    """What is logged when `count` things happen at each of these times."""
    said = []
    throttled = Throttled(said.append, 60.0)
    for count, now in pairs:
        throttled.add(count, now)
    return said


def test_the_first_is_logged_at_once_and_the_next_together_a_minute_later():
    assert counted([(0, 0.0), (3, 0.0), (1, 1.0), (2, 59.0), (0, 59.9), (0, 60.0), (0, 200.0), (4, 200.0)]) == [3, 3, 4]


def test_a_clock_that_was_set_back_silences_nothing():
    assert counted([(1, 1e9), (1, 5.0), (1, 6.0), (1, 65.0)]) == [1, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e3)), max_size=30))
def test_every_count_is_logged_once_and_never_twice_within_the_time(pairs):
    pairs.sort(key=lambda pair: pair[1])
    said = counted([*pairs, (0, float("inf"))])
    assert sum(said) == sum(count for count, _ in pairs)
    assert 0 not in said
    assert len(said) <= 2 + (pairs[-1][1] - pairs[0][1]) / 60 if pairs else said == []
