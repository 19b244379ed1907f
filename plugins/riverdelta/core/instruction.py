"""Instruction: a command in the journal, whose field names belong to the format, not to a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

#: The commands that version 0.1 wrote as controls, with the values of fields that it did not write; its rollbacks promoted.
OF_0_1: dict[str, dict[str, Any]] = {
    "freeze": {},
    "resume": {},
    "release": {},
    "promote": {"release": None},
    "rollback": {"release": None, "relearn": False, "freeze": False, "promote": True},
}
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Instruction:
    """A command at its position in the journal: its action, the `fields` of its `version`, and its sender.

    `by` is the sender: operator, or a part of the learner (breaker, trial, schedule). `asked` is the last position at which it
    was requested, `position` that of the release that it names, `trip` the breaker's trip that it responds to, and `time` is in
    Unix seconds.
    """

    kind: ClassVar[str] = "command"

    action: str
    version: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    by: str = "operator"
    asked: int | None = None
    position: int | None = None
    trip: int | None = None
    time: float = 0.0

    def __post_init__(self) -> None:
        for name, of in (("action", str), ("by", str), ("fields", Mapping), ("version", int)):
            if not isinstance(value := getattr(self, name), of) or isinstance(value, bool):
                raise TypeError(f"its {name} is {value!r:.80}")
        for name in ("version", "asked", "position", "trip"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 0 <= value <= _LARGEST):
                raise ValueError(f"its {name} is {value!r:.80}; expected an integer of 0 to {_LARGEST}")

    @property
    def release(self) -> int | None:
        """The number of the release that it names; None if it names none."""
        number = self.fields.get("release")
        return number if type(number) is int and 0 <= number <= _LARGEST else None


def of_0_1(action: str, arguments: Mapping[str, Any], time: float) -> Instruction:
    """Return the instruction that version 0.1 wrote as a control, with the command's fields separated from the others.

    >>> of_0_1("rollback", {"release": 3, "position": 9}, 0.0).fields
    {'release': 3, 'relearn': False, 'freeze': False, 'promote': True}
    """
    envelope = {name: arguments[name] for name in ("by", "asked", "position", "trip") if name in arguments}
    fields = {name: arguments.get(name, default) for name, default in OF_0_1[action].items()}
    return Instruction(action, 1, fields, **envelope, time=time)
