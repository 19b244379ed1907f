"""Commands: what an operator, or the learner itself, can request; one class each.

The first line of a class is its help and its summary in the OpenAPI schema; its fields are the options on the command line and
the body of `POST /admin/NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import Field

from riverdelta.core.errors import Corrupt, InvalidInput, NotFound, Refused, near
from riverdelta.core.instruction import Instruction
from riverdelta.core.strict import Strict, validated

#: The largest release number.
MOST_RELEASE = 10**9
#: The default number of changes that a diff shows.
TOP = 20
#: A release number.
Number = Annotated[int, Field(ge=0, le=MOST_RELEASE)]


class Learning(Protocol):
    """The methods of the learner that commands call."""

    frozen: bool

    def resume(self, skip: bool) -> None:
        """Continue learning and reset the breaker; learn the examples that it held, or with `skip` drop them."""

    def make_release(self, sequence: int) -> int | None:
        """Make a release at the record `sequence`; return its number, None if releases are not kept."""

    def roll_back(self, position: int, relearn: bool, sequence: int) -> None:
        """Restore the tables of the release at `position`; with `relearn`, learn the examples up to `sequence` again."""


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


def _flag(alias: str, description: str) -> Any:
    return Field(default=False, serialization_alias=alias, description=description, examples=[True])


class Command(Strict):
    """A command with its options; `name` is what users type.

    A field's `serialization_alias` is its name in the journal, which stays if the field is renamed.

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

        >>> Promote(release=3).record(by="trial", asked=9).fields
        {'release': 3}
        """
        return Instruction(self.name, self.version, self.model_dump(by_alias=True), **envelope)


class Freeze(Command):
    """Stop learning; serving, feedback and measurement continue."""

    name = "freeze"
    success = "learning is frozen at position {position} until `riverdelta resume`"

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Stop learning."""
        learner.frozen = True
        return None


class Resume(Command):
    """Continue learning after a freeze, and reset the breaker.

    The examples that came while the breaker was open are learned, in order.
    """

    name = "resume"
    version = 2
    #: Nothing was held then: what came while the breaker was open was not learned.
    earlier: ClassVar[Mapping[int, Mapping[str, Any]]] = {1: {"skip": True}}

    skip: bool = _flag("skip", "Drop the examples that came while the breaker was open.")

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Continue learning."""
        learner.resume(self.skip)
        return None

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return the sentence that reports how many held examples were learned or dropped."""
        held, continues = answer["held"], f"learning continues from position {answer['position']}"
        does = "dropped" if self.skip else "learned"
        return continues if not held else f"{continues}; {held:,} held example{'s' * (held != 1)} {does}"


class Promote(Command):
    """Make a release the champion without waiting for its trial."""

    name = "promote"
    success = "release {target} is the champion"

    release: Number = Field(serialization_alias="release", description="The release to promote.", examples=[3])

    @property
    def promotes(self) -> bool:
        """True."""
        return True

    def check(self, past: Past, position: int | None) -> None:
        """Check that the release exists and is intact."""
        past.require(self.release, position)


class Rollback(Command):
    """Serve an earlier release again, and continue learning from it.

    What was learned since that release is undone. RELEASE defaults to the champion; with RIVERDELTA_GUARD=release, where only
    champions serve, to the previous champion.
    """

    name = "rollback"

    release: Number | None = Field(
        default=None, serialization_alias="release", description="The release to serve (default: the champion).", examples=[3]
    )
    relearn: bool = _flag("relearn", "Learn the examples since that release again.")
    freeze: bool = _flag("freeze", "Stop learning until `riverdelta resume`.")
    promote: bool = _flag("promote", "Also make that release the champion.")

    @property
    def promotes(self) -> bool:
        """Whether `promote` is set."""
        return self.promote

    def resolved(self, default: Callable[[], int]) -> Self:
        """Return the rollback with its release filled in."""
        return self if self.release is not None else self.model_copy(update={"release": default()})

    def check(self, past: Past, position: int | None) -> None:
        """Check that the release is intact and may serve and, with `relearn`, that the examples since are kept.

        Impressions from before the release are not checked: if retention has deleted one that later became a negative, the
        learner refuses the rollback while it relearns.
        """
        if self.release is None or position is None:
            raise NotFound("the rollback names no release")
        past.require(self.release, position)
        if self.relearn:
            past.require_examples(self.release)
        if past.champions_alone and not self.promote and past.champion not in (None, self.release):
            flags = "".join(f" --{flag}" for flag in ("relearn", "freeze") if getattr(self, flag))
            raise Refused(
                f"release {self.release} cannot serve: with RIVERDELTA_GUARD=release only champions serve, and the champion is "
                f"{past.champion}; to promote it too, type `riverdelta rollback {self.release}{flags} --promote`"
            )

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Restore the release, and stop learning if `freeze` is set."""
        if position is None:
            raise NotFound("the rollback names no release")
        learner.roll_back(position, self.relearn, sequence)
        learner.frozen = learner.frozen or self.freeze
        return None

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return the sentence that reports what serves now."""
        target, state = answer["target"], f"{answer['release']}+{answer['swap']}"
        back = f"release {target} serves again as {state}" if answer["release"] == target else f"{state} serves now"
        learned = f"; the examples since release {target} were learned again" if self.relearn else ""
        then = (
            "learning is frozen until `riverdelta resume`" if answer["frozen"] else f"learning continues from release {target}"
        )
        return f"{back}{learned}; the champion is release {answer['champion']}; {then}"


class Release(Command):
    """Make a release of the current tables."""

    name = "release"

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Make the release."""
        return learner.make_release(sequence)

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return the sentence that reports the release."""
        return "no release was made" if answer["target"] is None else f"release {answer['target']} was made"


class RotateKey(Command):
    """Replace the key that signs impression ids.

    The new key takes effect at once, even if no learner runs; workers use it within a second. Ids signed with the old key stay
    valid for RIVERDELTA_KEY_WINDOW_SECONDS.
    """

    name = "rotate-key"
    immediate = True  # its record is only for the history
    success = "the key was replaced; ids signed with the old key stay valid for {key_window_days:g} days"


#: The commands by name.
COMMANDS: dict[str, type[Command]] = {cls.name: cls for cls in (Freeze, Resume, Promote, Rollback, Release, RotateKey)}


def known(instruction: Instruction) -> type[Command]:
    """Return the class of a recorded command; raises `Corrupt` if this version does not know the command or its version."""
    cls = COMMANDS.get(instruction.action)
    if cls is None:
        raise Corrupt(
            f"the journal holds the command {instruction.action!r:.80}, which this version of riverdelta does not know: "
            f"{near(instruction.action, COMMANDS)}; start the version that wrote it, or a later one"
        )
    if instruction.version not in (cls.version, *cls.earlier):
        raise Corrupt(
            f"the journal holds version {instruction.version} of the command {cls.name}, and this version of riverdelta reads "
            f"version {cls.version}; start the version that wrote it, or a later one"
        )
    return cls


def of_record(instruction: Instruction) -> Command:
    """Return the recorded command; raises `Corrupt` as `known` does, and `InvalidInput` naming an invalid field.

    >>> of_record(Promote(release=3).record())
    Promote(release=3)
    """
    cls, fields = known(instruction), instruction.fields
    names = {str(info.serialization_alias): name for name, info in cls.model_fields.items()}
    lacked = cls.earlier.get(instruction.version, {})
    written = [name for name in names if name not in lacked]
    if fields.keys() != set(written):
        found, expected = (", ".join(map(str, each)) or "none" for each in (fields, written))
        raise InvalidInput(f"the recorded {cls.name} has the fields {found}; expected {expected}")
    given = {names[alias]: value for alias, value in {**lacked, **fields}.items()}
    return validated(cls, given, f"the recorded {cls.name}")
