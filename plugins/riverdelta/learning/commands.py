"""Commands: what an operator, or the learner itself, can request; one class each.

The first line of a class is its help and its summary in the OpenAPI schema; its fields are the options on the command line and
the body of `POST /admin/NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from riverdelta.core.errors import Corrupt, InvalidInput, NotFound, Refused, near
from riverdelta.core.instruction import Instruction
from riverdelta.core.strict import validated
from riverdelta.learning.command import Command, Learning, Past
from riverdelta.learning.forget import Forget

#: The largest release number.
MOST_RELEASE = 10**9
#: The default number of changes that a diff shows.
TOP = 20
#: A release number.
Number = Annotated[int, Field(ge=0, le=MOST_RELEASE)]


def _flag(alias: str, description: str) -> Any:
    return Field(default=False, serialization_alias=alias, description=description, examples=[True])


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
        """Return the sentence that reports how many held rows were learned or dropped."""
        held, continues = answer["held"], f"learning continues from position {answer['position']}"
        does = "dropped" if self.skip else "learned"
        return continues if not held else f"{continues}; {held:,} held row{'s' * (held != 1)} {does}"


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
COMMANDS: dict[str, type[Command]] = {cls.name: cls for cls in (Freeze, Resume, Promote, Rollback, Release, RotateKey, Forget)}


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
