"""Senders: the names of tokens, so that a sender stays the same when its token is replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping

from riverdelta.core.hashing import id64
from riverdelta.core.settings import Settings

#: The name that stands for every sender without one.
OTHER = "other"
#: The settings that hold tokens.
TOKENS = ("score_tokens", "feedback_tokens", "admin_tokens")
#: Names shown; those after them are `OTHER`.
_MOST = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)


def entries(text: str) -> list[tuple[str | None, str]]:
    """Return the name and the token of each entry of a setting, None for a token without a name; a token may end in `=`.

    >>> entries("shop=c2VjcmV0Cg==, c2VjcmV0Cg==,")
    [('shop', 'c2VjcmV0Cg=='), (None, 'c2VjcmV0Cg==')]
    """
    found = list[tuple[str | None, str]]()
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, token = entry.partition("=")
        found.append((name.strip(), token.strip()) if token.strip("= ") else (None, entry))
    return found


def valid(name: str) -> bool:
    """Whether a name can be used: 1 to 32 letters, digits and ._-, the first a letter or a digit, and not `other`.

    >>> [valid(name) for name in ("shop", "eu-1.app", "", "-shop", "other", "x" * 33)]
    [True, True, False, False, False, False]
    """
    return name != OTHER and _NAME.fullmatch(name) is not None


def names(settings: Settings) -> Mapping[int, str]:
    """Return the names of the settings' tokens by the number of their sender, the first 100."""
    given = [name for of in TOKENS for name, _ in entries(getattr(settings, of).get_secret_value())]
    return {id64(name): name for name in [*dict.fromkeys(name for name in given if name and valid(name))][:_MOST]}
