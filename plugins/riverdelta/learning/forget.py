"""Forget: the command that erases the rows of an id or of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from riverdelta.learning.command import Command, Learning

if TYPE_CHECKING:
    from riverdelta.core.features import Schema

#: The longest text that names what to forget, in characters.
_MOST_LENGTH = 8_192


class Forget(Command):
    """Erase the rows of one id or of one request, and what was learned about the id alone.

    WHAT is COLUMN=VALUE, such as user_id=ann, or request_id=VALUE. Rows scored before the command leave the journal with their
    feedback, the checkpoints and the releases; the id's own coefficients are reset in all of them. An integer is the id itself;
    write a string of digits in double quotes, as in user_id='"42"'. Copies made by `riverdelta backup` are not reached.
    """

    name = "forget"
    offline = True

    what: str = Field(
        min_length=3,
        max_length=_MOST_LENGTH,
        serialization_alias="what",
        description="What to forget: COLUMN=VALUE of an id, or request_id=VALUE of a request.",
        examples=["user_id=ann", "request_id=order-17"],
    )

    def private(self, schema: Schema, request: Callable[[str], tuple[int, int] | None]) -> Self:
        """Return it with the hash of the id, or the number of the request, in place of the text."""
        from riverdelta.core.hashing import id64  # these take long to import, and `riverdelta --help` does without
        from riverdelta.core.ids import parse_ids
        from riverdelta.learning.erased import REQUEST, Subject

        name, _, value = self.what.partition("=")
        if name == REQUEST and name not in schema:
            subject = Subject(None, id64(value), request(value) or (0, 0))
        else:
            ids = parse_ids([self.what], schema) or {}
            subject = Subject(name, ids[name])
        return self.model_copy(update={"what": str(subject)})

    def shown(self) -> dict[str, Any]:
        """Return only the column."""
        return {"what": self.what.partition("=")[0]}

    def apply(self, learner: Learning, sequence: int, position: int | None) -> int | None:
        """Forget it; a record that has only a digest is done already."""
        learner.forget(self.what, sequence)
        return None

    def done(self, answer: Mapping[str, Any]) -> str:
        """Return the sentence that reports what was removed and what remains."""
        found = {kind: count for kind, count in (answer["removed"] or {}).items() if count}
        if not found.keys() - {"coefficients", "releases rewritten"}:
            digits = ", a string of digits in double quotes" if self.what.partition("=")[2].isdecimal() else ""
            reset = "; what its slots had learned is reset" if "coefficients" in found else ""
            return f"no row of {self.what} was found{reset}; write it as clients send it{digits}"
        removed = ", ".join(f"{kind} {count:,}" for kind, count in found.items())
        return (
            f"removed: {removed}; what rows share (calibration, numbers, other ids, slots, crosses whose rows the "
            "journal no longer had) keeps their effect, and copies made by `riverdelta backup` are not reached"
        )
