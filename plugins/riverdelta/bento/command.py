"""Commands: what the body of a POST below /admin may hold, and what it asks the operator for."""

from __future__ import annotations

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
#: The commands: what each one does, and what its body may have besides `wait`.
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "release": ("Make a release of the present tables.", ()),
    "promote": ("Make a release the champion, without waiting for its trial.", ("release",)),
    "rollback": (
        "Serve a release again, the champion by default, and learn on from it.",
        ("release", "relearn", "freeze", "promote"),
    ),
    "freeze": ("Stop learning; serving, feedback and measuring go on.", ()),
    "resume": ("Learn again, and close the breaker.", ()),
}


def parse_command(name: str, parsed: Any) -> tuple[Callable[[Operator], int], float]:
    """Return what a command does, and the seconds to wait for the learner; raises `InvalidInput` naming what is wrong.

    >>> parse_command("promote", {"release": 3, "wait": 5})[1]
    5.0
    """
    body = json_object(parsed, (*COMMANDS[name][1], "wait"))
    seconds, number = body.pop("wait", WAIT_SECONDS), body.pop("release", None)
    if type(seconds) not in (int, float) or not 0 <= seconds <= MOST_SECONDS:
        raise InvalidInput(f"wait is {seconds!r}; expected 0 to {MOST_SECONDS:g} seconds")
    if number is None and name == "promote":
        raise InvalidInput('the body has no release; expected {"release": 3}')
    if number is not None:
        if type(number) is not int or not 0 <= number <= MOST_RELEASE:
            raise InvalidInput(f"release is {number!r}; expected the number of a release, as GET /admin/releases lists them")
        body["number"] = number
    for flag in COMMANDS[name][1][1:]:
        if not isinstance(body.get(flag, False), bool):
            raise InvalidInput(f"{flag} is {body[flag]!r}; expected true or false")
    return lambda operator: getattr(operator, name)(**body), float(seconds)
