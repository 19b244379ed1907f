"""Command: the base of what an operator, or the learner itself, can request, and the protocols that it acts on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from riverdelta.core.instruction import Instruction
from riverdelta.core.strict import Strict

if TYPE_CHECKING:
    from riverdelta.core.features import Schema


class Learning(Protocol):
    """The methods of the learner that commands call."""

    frozen: bool

    def resume(self, skip: bool) -> None:
        """Continue learning and reset the breaker; learn the examples that it held, or with `skip` drop them."""

    def make_release(self, sequence: int) -> int | None:
        """Make a release at the record `sequence`; return its number, None if releases are not kept."""

    def roll_back(self, position: int, relearn: bool, sequence: int) -> None:
        """Restore the tables of the release at `position`; with `relearn`, learn the examples up to `sequence` again."""

    def forget(self, what: str, sequence: int) -> None:
        """Forget the rows before the record `sequence` that `what` names, and reset the coefficients of an id."""


class Past(Protocol):
    """The releases and records that are still kept, which decide whether a command can be applied."""

    #: Whether only champions may serve (RIVERDELTA_GUARD=release).
    champions_alone: bool

    @property
    def champion(self) -> int | None:
        """The champion at the position of the command."""

    def require(self, release: int, position: int | None) -> None:
        """Raise `NotFound` or `Corrupt` unless a release exists, is intact and, if `position` is given, was made there."""

    def require_examples(self, release: int) -> None:
        """Raise `Refused` if the examples since a release can no longer be learned again."""


class Command(Strict):
    """A command with its options; `name` is what users type.

    A field's `serialization_alias` is its name in the journal, which stays if the field is renamed.

    >>> from riverdelta.learning.commands import COMMANDS, Promote
    >>> COMMANDS["promote"](release=3)
    Promote(release=3)
    """

    name: ClassVar[str]
    #: The version of its record in the journal. Raise it when a field is added, dropped or changes its meaning.
    version: ClassVar[int] = 1
    #: By each earlier version that can be read, the values of the fields that it lacks.
    earlier: ClassVar[Mapping[int, Mapping[str, Any]]] = {}
    #: Whether it takes effect when it is requested rather than when the learner reads it.
    immediate: ClassVar[bool] = False
    #: Whether the command line executes it where no learner runs.
    offline: ClassVar[bool] = False
    #: The sentence that reports success, with fields of an `Answer` in braces.
    success: ClassVar[str]

    @classmethod
    def summary(cls) -> str:
        """Return what the command does, as one sentence."""
        return (cls.__doc__ or "").partition("\n")[0]

    @property
    def promotes(self) -> bool:
        """Whether it makes its release the champion."""
        return False

    def resolved(self, default: Callable[[], int]) -> Self:
        """Return the command with its release filled in: `default()` if it needs one and none was given."""
        return self

    def private(self, schema: Schema, request: Callable[[str], tuple[int, int] | None]) -> Self:
        """Return the command as its record holds it; `request` finds one by its client's id."""
        return self

    def shown(self) -> dict[str, Any]:
        """Return the fields that its outcome and the logbook show."""
        return self.model_dump(by_alias=True)

    def check(self, past: Past, position: int | None) -> None:
        """Check that it can be applied now; called before it is written, and again before it is applied.

        `position` is that of its release, None if the record has none. Raises `NotFound`, `Corrupt` or `Refused`.
        """

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Apply the record `sequence`, completely or not at all; return the number of the release that was made, if any."""
        return None

    def describe(self, answer: Mapping[str, Any]) -> str:
        """Return the outcome as a sentence, from the fields of an `Answer`."""
        waits = answer["waits"]
        return self.done(answer) if waits is None else f"written at position {answer['sequence']}; {waits}"

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return the sentence that reports success."""
        return self.success.format(**answer)

    def record(self, **envelope: Any) -> Instruction:
        """Return its record for the journal; `envelope` holds the other fields of `Instruction`, such as `by` and `time`.

        >>> from riverdelta.learning.commands import Promote
        >>> Promote(release=3).record(by="trial", asked=9).fields
        {'release': 3}
        """
        return Instruction(self.name, self.version, self.model_dump(by_alias=True), **envelope)
