"""Commands: what an operator, or the learner itself, can ask of the learner; one class each.

The first sentence of a class is its help and its summary in the OpenAPI schema; its fields are the options of the command line
and the body of `POST /admin/NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import Field

from riverdelta.core.errors import Corrupt, InvalidInput, NotFound, Refused, near
from riverdelta.core.instruction import Instruction
from riverdelta.core.strict import Strict, validated

#: The largest number of a release.
MOST_RELEASE = 10**9
#: The number of changed coefficients that are shown by default.
TOP = 20
#: The number of a release.
Number = Annotated[int, Field(ge=0, le=MOST_RELEASE)]


class Learning(Protocol):
    """What a command does its work with: the learner."""

    frozen: bool

    def resume(self) -> None:
        """Close the breaker."""

    def note_release(self) -> None:
        """Count the examples until the next release from here on."""

    def make_release(self, sequence: int) -> int | None:
        """Make a release at the record `sequence`; return its number where releases are kept."""

    def roll_back(self, position: int, relearn: bool, sequence: int) -> None:
        """Go back to the tables of the release at `position`, and learn the examples before `sequence` again where asked."""


class Past(Protocol):
    """What is kept of the past: whether a command can be carried out depends on it."""

    #: Whether only champions serve (RIVERDELTA_GUARD=release).
    champions_alone: bool

    @property
    def champion(self) -> int | None:
        """The champion at the position of the command."""

    def require(self, release: int, position: int | None) -> None:
        """Raise `NotFound` or `Corrupt` where a release, of `position` if given, is not there or not intact."""

    def require_examples(self, release: int) -> None:
        """Raise `Refused` where the examples since a release can no longer be learned again."""


class Command(Strict):
    """A command with its options; each class has the `name` that it is called by.

    `serialization_alias` is what a field is called in the journal: it stays as it is where the field is renamed.

    >>> COMMANDS["promote"](release=3)
    Promote(release=3)
    """

    name: ClassVar[str]
    #: The version of what the journal holds of it: one more where a field is added, dropped, or means something else.
    version: ClassVar[int] = 1
    #: Whether it is done when it is asked for, and not when the learner reads it.
    immediate: ClassVar[bool] = False

    @classmethod
    def summary(cls) -> str:
        """Return what the command does, as one sentence.

        >>> Freeze.summary()
        'Stop learning; serving, feedback and measuring go on.'
        """
        return (cls.__doc__ or "").partition("\n")[0]

    @property
    def promotes(self) -> bool:
        """Whether the release that it names is the champion from then on."""
        return False

    def resolved(self, default: Callable[[], int]) -> Self:
        """Return the command with the release that it takes where none was given: `default` returns that."""
        return self

    def check(self, past: Past, position: int | None) -> None:
        """Check that it can be carried out now: before it is written, and again before it is obeyed.

        `position` is that of the release that it names, None where that is not on record. Raises `NotFound`, `Corrupt` or
        `Refused`.
        """

    @classmethod
    def noted(cls, learner: Learning) -> None:
        """Do what is done at its record whether it is refused or not."""

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Carry out the record `sequence`, all of it or nothing; return the number of a release that was made."""
        return None

    def describe(self, answer: Mapping[str, Any]) -> str:
        """Return in words what came of it; `answer` is that of `Operator.outcome`."""
        waits = answer["waits"]
        return self.done(answer) if waits is None else f"written at position {answer['sequence']}; {waits}"

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return in words that it was done."""
        return f"{self.name} was done"

    def record(self, **envelope: Any) -> Instruction:
        """Return what the journal holds of it; `envelope` says who asks, where and when, as `Instruction` has it.

        >>> Promote(release=3).record(by="trial", asked=9).fields
        {'release': 3}
        """
        return Instruction(self.name, self.version, self.model_dump(by_alias=True), **envelope)


class Freeze(Command):
    """Stop learning; serving, feedback and measuring go on."""

    name = "freeze"

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Freeze."""
        learner.frozen = True
        return None

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return in words that learning stands still."""
        return f"learning is frozen at position {answer['position']}, until `riverdelta resume`"


class Resume(Command):
    """Learn again after a freeze, and close the breaker."""

    name = "resume"

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Resume."""
        learner.frozen = False
        learner.resume()
        return None

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return in words that learning goes on."""
        return f"learning continues from position {answer['position']}"


class Promote(Command):
    """Make a release the champion, without waiting for its trial."""

    name = "promote"

    release: Number = Field(serialization_alias="release", description="The release to promote.", examples=[3])

    @property
    def promotes(self) -> bool:
        """Always."""
        return True

    def check(self, past: Past, position: int | None) -> None:
        """Check that the release is there and intact."""
        past.require(self.release, position)

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return in words that the champion changed."""
        return f"release {self.release} is the champion"


class Rollback(Command):
    """Serve an earlier release again, the champion by default, and learn on from it.

    What was learned from the examples since is undone. Where only champions serve (RIVERDELTA_GUARD=release), the release by
    default is the champion before this one.
    """

    name = "rollback"

    release: Number | None = Field(
        default=None, serialization_alias="release", description="The release to serve; the champion by default.", examples=[3]
    )
    relearn: bool = Field(
        default=False,
        serialization_alias="relearn",
        description="Learn the examples since that release again.",
        examples=[True],
    )
    freeze: bool = Field(
        default=False, serialization_alias="freeze", description="Learn nothing more until it is resumed.", examples=[True]
    )
    promote: bool = Field(
        default=False, serialization_alias="promote", description="Make that release the champion, too.", examples=[True]
    )

    @property
    def promotes(self) -> bool:
        """Where it is asked for."""
        return self.promote

    def resolved(self, default: Callable[[], int]) -> Self:
        """Return it with a release."""
        return self if self.release is not None else self.model_copy(update={"release": default()})

    def check(self, past: Past, position: int | None) -> None:
        """Check that the release is intact and may serve, and that the examples since are there where they are needed.

        Showings of before the release are not looked at: where retention has deleted one that has become a negative since, the
        learner finds out while it relearns, and refuses then.
        """
        if self.release is None or position is None:
            raise NotFound("the rollback names no release")
        past.require(self.release, position)
        if self.relearn:
            past.require_examples(self.release)
        if past.champions_alone and not self.promote and past.champion not in (None, self.release):
            flags = "".join(f" --{flag}" for flag in ("relearn", "freeze") if getattr(self, flag))
            raise Refused(
                f"release {self.release} cannot serve: with RIVERDELTA_GUARD=release only champions do, and the champion is "
                f"{past.champion}; to promote it as well type `riverdelta rollback {self.release}{flags} --promote`"
            )

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Go back, and freeze where it is asked for."""
        if position is None:
            raise NotFound("the rollback names no release")
        learner.roll_back(position, self.relearn, sequence)
        learner.frozen = learner.frozen or self.freeze
        return None

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return in words that an earlier release serves."""
        target, state = answer["target"], f"{answer['release']}+{answer['swap']}"
        if answer["release"] == target:
            back = f"release {target} serves again as {state}"
        else:
            back = f"learning went back to release {target}, and {state} serves now"
        then = "learning is frozen, until `riverdelta resume`" if answer["frozen"] else "learning continues from it"
        return f"{back}; the champion is {answer['champion']}; {then}"


class Release(Command):
    """Make a release of the present tables."""

    name = "release"

    @classmethod
    def noted(cls, learner: Learning) -> None:
        """Wait for new examples until the next one is asked for."""
        learner.note_release()

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Make it."""
        return learner.make_release(sequence)

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return in words that it was made."""
        return "no release was made" if answer["target"] is None else f"release {answer['target']} was made"


class RotateKey(Command):
    """Make a new key for impression ids; ids of the key before it stay valid for a while.

    The key is renewed at once, whether a learner runs or not, and every worker takes it up within a second.
    RIVERDELTA_KEY_WINDOW_SECONDS says how long ids of the key before are accepted. Its record is for the history: whoever reads
    it renews nothing.
    """

    name = "rotate-key"
    immediate = True

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return in words that the key is new."""
        return "the key is new; ids of the key before stay valid for RIVERDELTA_KEY_WINDOW_SECONDS"


#: The commands by their names.
COMMANDS: dict[str, type[Command]] = {cls.name: cls for cls in (Freeze, Resume, Promote, Rollback, Release, RotateKey)}


def known(instruction: Instruction) -> type[Command]:
    """Return the class of a command on record; raises `Corrupt` naming one that this version does not know."""
    cls = COMMANDS.get(instruction.action)
    if cls is None:
        raise Corrupt(
            f"the journal holds the command {instruction.action!r:.80}, which this version of riverdelta does not know: "
            f"{near(instruction.action, COMMANDS)}; start the version that wrote it, or a later one"
        )
    if instruction.version != cls.version:
        raise Corrupt(
            f"the journal holds version {instruction.version} of the command {cls.name}, and this version of riverdelta reads "
            f"version {cls.version}; start the version that wrote it, or a later one"
        )
    return cls


def of_record(instruction: Instruction) -> Command:
    """Return the command on record; raises `Corrupt` as `known` does, and `InvalidInput` naming a field that is not valid.

    >>> of_record(Promote(release=3).record())
    Promote(release=3)
    """
    cls, fields = known(instruction), instruction.fields
    names = {str(info.serialization_alias): name for name, info in cls.model_fields.items()}
    if fields.keys() != names.keys():
        found, expected = (", ".join(map(str, each)) or "none" for each in (fields, names))
        raise InvalidInput(f"the fields of the {cls.name} on record are {found}; expected {expected}")
    given = {names[alias]: value for alias, value in fields.items()}
    return validated(cls, given, f"the {cls.name} on record")
