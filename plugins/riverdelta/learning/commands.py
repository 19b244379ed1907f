"""Commands: what an operator, or the learner itself, can ask of the learner; one class each.

The first sentence of a class is its help and its summary in the OpenAPI schema; its fields are the options of the command line
and the body of `POST /admin/NAME`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

#: The largest number of a release.
MOST_RELEASE = 10**9
#: The number of a release.
Number = Annotated[int, Field(ge=0, le=MOST_RELEASE)]


class Command(BaseModel):
    """A command with its options; each class has the `name` that it is called by.

    `serialization_alias` is what a field is called in the journal: it stays as it is where the field is renamed.

    >>> COMMANDS["promote"](release=3)
    Promote(release=3)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ClassVar[str]

    @classmethod
    def summary(cls) -> str:
        """Return what the command does, as one sentence.

        >>> Freeze.summary()
        'Stop learning; serving, feedback and measuring go on.'
        """
        return (cls.__doc__ or "").partition("\n")[0]


class Freeze(Command):
    """Stop learning; serving, feedback and measuring go on."""

    name = "freeze"


class Resume(Command):
    """Learn again after a freeze, and close the breaker."""

    name = "resume"


class Promote(Command):
    """Make a release the champion, without waiting for its trial."""

    name = "promote"

    release: Number = Field(serialization_alias="release", description="The release to promote.", examples=[3])


class Rollback(Command):
    """Serve an earlier release again, the champion by default, and learn on from it.

    What was learned from the examples since is undone. Where only champions serve (RIVERDELTA_GUARD=release), the release by
    default is the champion before this one.
    """

    name = "rollback"

    release: Number | None = Field(
        None, serialization_alias="release", description="The release to serve; the champion by default.", examples=[3]
    )
    relearn: bool = Field(
        False, serialization_alias="relearn", description="Learn the examples since that release again.", examples=[True]
    )
    freeze: bool = Field(
        False, serialization_alias="freeze", description="Learn nothing more until it is resumed.", examples=[True]
    )
    promote: bool = Field(
        False, serialization_alias="promote", description="Make that release the champion, too.", examples=[True]
    )


class Release(Command):
    """Make a release of the present tables."""

    name = "release"


class RotateKey(Command):
    """Make a new key for impression ids; ids of the key before it stay valid for a while.

    The key is renewed at once, whether a learner runs or not, and every worker takes it up within a second.
    RIVERDELTA_KEY_WINDOW_SECONDS says how long ids of the key before are accepted.
    """

    name = "rotate-key"


#: The commands by their names.
COMMANDS: dict[str, type[Command]] = {cls.name: cls for cls in (Freeze, Resume, Promote, Rollback, Release, RotateKey)}
