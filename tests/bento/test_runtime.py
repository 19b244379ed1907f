"""The runtime: on the event loop where that is quick, beside it where it is not."""

import asyncio
import threading

import pytest

from riverdelta.bento.runtime import Runtime
from riverdelta.core.errors import InvalidInput, Unavailable

COLUMNS = {"user": [1], "x": [1.0], "shop": [0.0]}


def test_before_its_start_and_after_its_end_it_is_unavailable_and_says_so(definition):
    made = Runtime(definition)
    assert not made.ready
    with pytest.raises(Unavailable, match="ranker is starting or stopping"):
        asyncio.run(made.score(COLUMNS, None, "rest"))
    made.stop()


class Slow:
    """A dataplane that takes its time, and notes in which thread."""

    def __init__(self, plane, seconds):
        self.plane, self.wait, self.threads = plane, threading.Event(), []
        self.seconds, self.metrics, self.settings = seconds, plane.metrics, plane.settings

    def read(self, *given):
        return self.plane.read(*given)

    def score_block(self, *given):
        self.threads.append(threading.current_thread() is threading.main_thread())
        self.wait.wait(self.seconds)
        return self.plane.score_block(*given)


def test_what_has_proved_slow_leaves_the_event_loop(runtime, definition):
    slow = Slow(runtime.plane, 0.05)
    made = Runtime(definition)
    made.start(slow)
    for _ in range(3):
        asyncio.run(made.score(COLUMNS, None, "rest"))
    assert slow.threads == [True, False, False]


def test_other_sizes_stay_on_the_event_loop(runtime, definition):
    slow = Slow(runtime.plane, 0.05)
    made = Runtime(definition)
    made.start(slow)
    asyncio.run(made.score(COLUMNS, None, "rest"))
    asyncio.run(made.score({name: value * 8 for name, value in COLUMNS.items()}, None, "rest"))
    assert slow.threads == [True, True]


@pytest.mark.parametrize("columns", [None, [], {}, 3, "user", {"user": 3}, {"user": None}])
def test_what_is_no_object_of_columns_is_refused(runtime, columns):
    with pytest.raises(InvalidInput):
        asyncio.run(runtime.score(columns, None, "rest"))
