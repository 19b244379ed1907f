"""Access: who may do what, by bearer tokens."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from riverdelta.core.errors import ConfigurationError, Forbidden, Unauthenticated
from riverdelta.core.hashing import digest, id64
from riverdelta.core.settings import Settings


class Role(StrEnum):
    """What a token allows. `admin` allows everything."""

    SCORE = "score"
    FEEDBACK = "feedback"
    ADMIN = "admin"


Roles = frozenset[Role]
#: What a request may need: a token of one of these roles.
ANY, ADMIN = Roles(Role), Roles({Role.ADMIN})
SCORE, FEEDBACK = ADMIN | {Role.SCORE}, ADMIN | {Role.FEEDBACK}

_FEWEST_CHARACTERS = 16
#: RFC 6750, section 2.1: what a bearer token may look like.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_HEADER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
_MOST_PEERS = 4096


@dataclass(frozen=True)
class Caller:
    """Someone who was let in: what they may do, and the int64 that stands for them (a hash of the token or of the address)."""

    roles: Roles
    source: int

    def need(self, roles: Roles, what: str) -> None:
        """Raise `Forbidden`, naming `what` and the roles that would do, where the caller has none of them."""
        if not self.roles & roles:
            wanted = " or ".join(sorted(roles))
            raise Forbidden(f"{what} needs a token of the role {wanted}; this one has {' and '.join(sorted(self.roles))}")


class Access:
    """Knows the digests of all tokens; without any token, everybody may do everything.

    A token is looked for by comparing its BLAKE2b digest with every known one in constant time (`hmac.compare_digest`), to
    the last: how long it takes tells nothing about which one it is, or nearly is.

    >>> access = Access({Role.SCORE: ["score-token-of-the-shop"]})
    >>> access.caller(["Bearer score-token-of-the-shop"], "10.0.0.7").need(SCORE, "POST /score")
    >>> access.caller(["Bearer some-other-token"], "10.0.0.7")
    Traceback (most recent call last):
    riverdelta.core.errors.Unauthenticated: the token is not one that this service knows
    """

    def __init__(self, tokens: Mapping[Role, Sequence[str]]) -> None:
        """Raises `ConfigurationError` naming the setting of a token that is too short or of other characters."""
        granted: dict[bytes, set[Role]] = {}
        for role, given in tokens.items():
            for place, token in enumerate(given, 1):
                _check(role, place, token)
                granted.setdefault(digest(token.encode(), size=32), set()).add(role)
        self._callers = [
            (known, Caller(ANY if Role.ADMIN in roles else Roles(roles), id64(known))) for known, roles in granted.items()
        ]
        self.missing = [_variable(role) for role in Role if not tokens.get(role)]

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Return the access that the settings describe."""
        given = {role: getattr(settings, f"{role}_tokens").get_secret_value().split(",") for role in Role}
        return cls({role: [token.strip() for token in tokens if token.strip()] for role, tokens in given.items()})

    @property
    def on(self) -> bool:
        """Whether a token is asked for."""
        return bool(self._callers)

    def caller(self, authorization: Sequence[str], peer: str) -> Caller:
        """Return who sends a request with these `Authorization` headers from the address `peer`; raises `Unauthenticated`."""
        if not self._callers:
            return _neighbour(peer)
        if len(authorization) != 1:
            raise Unauthenticated(
                f"the request has {len(authorization) or 'no'} Authorization headers; expected Bearer <token>"
            )
        match = _HEADER.fullmatch(authorization[0].strip())
        if match is None:
            raise Unauthenticated("the Authorization header is not Bearer <token>")
        given, found = digest(match[1].encode(), size=32), None
        for known, caller in self._callers:
            if hmac.compare_digest(known, given):
                found = caller
        if found is None:
            raise Unauthenticated("the token is not one that this service knows")
        return found


def refuse_exposure(settings: Settings, http_host: str | None, service: str = "service:Ranker") -> None:
    """Raise `ConfigurationError` where others than this machine could come in and a role has no token.

    `http_host` is where HTTP is served, None where that is not known. The message says what to type to serve `service`.
    """
    missing = Access.of(settings).missing
    if not missing:
        return
    if http_host is not None and not is_loopback(http_host):
        where, alone = f"HTTP would be served on {http_host}", f"bentoml serve --host 127.0.0.1 {service}"
    elif settings.grpc_port and not is_loopback(settings.grpc_host):
        where = f"gRPC would be served on {settings.grpc_host}"
        alone = "export RIVERDELTA_GRPC_HOST=127.0.0.1   # or RIVERDELTA_GRPC_PORT=0: no gRPC"
    else:
        return
    tokens = " ".join(f"{name}=$(openssl rand -hex 32)" for name in missing)
    raise ConfigurationError(
        f"{where}, where others can reach it, without {', '.join(missing)}: whoever comes could score, teach and roll back.\n"
        f"For this machine alone, type:\n  {alone}\nFor others, give each role a token first:\n  export {tokens}"
    )


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: a loopback address, `localhost`, or a socket that is a file.

    >>> [is_loopback(host) for host in ("127.0.0.1", "[::1]", "localhost", "/tmp/a.sock")]
    [True, True, True, True]
    >>> [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.7", "127.0.0.1.example.org", "")]
    [False, False, False, False, False]
    """
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


@lru_cache(maxsize=_MOST_PEERS)
def _neighbour(peer: str) -> Caller:
    return Caller(ANY, id64(peer))


def _variable(role: Role) -> str:
    return f"RIVERDELTA_{role.value.upper()}_TOKENS"


def _check(role: Role, place: int, token: str) -> None:
    # By its place and not by its value: this message ends in logs.
    wrong = None
    if len(token) < _FEWEST_CHARACTERS:
        wrong = f"{len(token)} characters; expected at least {_FEWEST_CHARACTERS}"
    elif not _TOKEN.fullmatch(token):
        wrong = "characters that no bearer token has; expected letters, digits and -._~+/ (RFC 6750)"
    if wrong:
        raise ConfigurationError(f"token {place} of {_variable(role)} has {wrong}: openssl rand -hex 32 makes one")
