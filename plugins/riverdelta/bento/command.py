"""Commands: what the body of a POST below /admin may hold, and what it asks the operator for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from riverdelta.bento.http import json_object
from riverdelta.core.errors import InvalidInput
from riverdelta.sidecar.operator import Operator

#: How long the answer waits for the learner, by default and at most, in seconds.
WAIT_SECONDS, MOST_SECONDS = 2.0, 30.0
#: The largest number of a release.
MOST_RELEASE = 10**9
#: The most changes that one answer shows.
MOST_CHANGES = 1000
#: The commands, and what each one's body may have besides `wait`.
COMMANDS: dict[str, tuple[str, ...]] = {
    "release": (),
    "promote": ("release",),
    "rollback": ("release", "relearn", "freeze", "promote"),
    "freeze": (),
    "resume": (),
}
Do = Callable[[Operator], int]


def parse_command(name: str, parsed: Any) -> tuple[Do, float]:
    """Return what a command does, and the seconds to wait for the learner; raises `InvalidInput` naming what is wrong.

    >>> parse_command("promote", {"release": 3, "wait": 5})[1]
    5.0
    """
    body = json_object(parsed, (*COMMANDS[name], "wait"))
    seconds = _seconds(body)
    if name == "promote":
        number = _release(body)
        if number is None:
            raise InvalidInput('the body has no release; expected {"release": 3}')
        return lambda operator: operator.promote(number), seconds
    if name == "rollback":
        back = _release(body), *(_flag(body, name) for name in ("relearn", "freeze", "promote"))
        return lambda operator: operator.rollback(*back), seconds
    plain: dict[str, Do] = {"release": Operator.release, "freeze": Operator.freeze, "resume": Operator.resume}
    return plain[name], seconds


def _release(body: dict[str, Any]) -> int | None:
    number = body.get("release")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MOST_RELEASE):
        raise InvalidInput(f"release is {number!r}; expected the number of a release, as GET /admin/releases lists them")
    return number


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is {value!r}; expected true or false")
    return value


def _seconds(body: dict[str, Any]) -> float:
    seconds = body.get("wait", WAIT_SECONDS)
    fits = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if not fits or not 0 <= seconds <= MOST_SECONDS:
        raise InvalidInput(f"wait is {seconds!r}; expected 0 to {MOST_SECONDS:g} seconds")
    return float(seconds)
