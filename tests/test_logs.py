"""Logs as JSON: one line a record, whatever the record says."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.logs import JsonLines, use_json


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
        logging.getLogger("riverdelta.trainer").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("ERROR", "riverdelta.trainer", "it failed")
    assert told["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert told["error"].endswith("OSError: the disk\nis full")
