"""Access: bearer tokens, and the roles that they grant."""

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
from riverdelta.core.senders import entries, valid
from riverdelta.core.settings import Settings


class Role(StrEnum):
    """The role of a token; `admin` includes the others."""

    SCORE = "score"
    FEEDBACK = "feedback"
    ADMIN = "admin"


Roles = frozenset[Role]
#: The sets of roles of which a request needs one.
ANY, ADMIN = Roles(Role), Roles({Role.ADMIN})
SCORE, FEEDBACK = ADMIN | {Role.SCORE}, ADMIN | {Role.FEEDBACK}

_FEWEST_CHARACTERS = 16
#: The syntax of a bearer token (RFC 6750, section 2.1).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_HEADER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
_MOST_PEERS = 4096


@dataclass(frozen=True)
class Caller:
    """An authenticated caller: its roles, and an int64 that identifies it: a hash of its `name`, token or address."""

    roles: Roles
    source: int
    name: str | None = None

    def __str__(self) -> str:
        """Return its name, or its number in hexadecimal digits."""
        return self.name or f"{self.source % 2**64:016x}"

    def need(self, roles: Roles, what: str) -> None:
        """Raise `Forbidden`, naming `what` and the required roles, if the caller has none of `roles`."""
        if not self.roles & roles:
            wanted = " or ".join(sorted(roles))
            raise Forbidden(f"{what} needs a token of the role {wanted}; this one has {' and '.join(sorted(self.roles))}")


class Access:
    """Finds the caller of a request by its token; if no token is configured, every caller has every role.

    A token's BLAKE2b digest is compared in constant time (`hmac.compare_digest`) with every known digest, so that the time
    taken does not depend on which one matches. Tokens with one name are one caller, so a token can be replaced by another.

    >>> access = Access({Role.SCORE: ["score-token-of-the-shop"]})
    >>> access.caller(["Bearer score-token-of-the-shop"], "10.0.0.7").need(SCORE, "POST /score")
    >>> [str(Access({Role.SCORE: [token]}).caller(["Bearer a-secret-of-the-shop"], "")) for token in (
    ...     "shop=a-secret-of-the-shop", "a-secret-of-the-shop")]
    ['shop', '6fe4399c12c08d5d']
    >>> access.caller(["Bearer some-other-token"], "10.0.0.7")
    Traceback (most recent call last):
    riverdelta.core.errors.Unauthenticated: the token is not one that this service knows
    """

    def __init__(self, tokens: Mapping[Role, Sequence[str]]) -> None:
        """Each token is `name=token` or `token`.

        Raises `ConfigurationError` naming the setting of a token that is too short or has invalid characters, or whose name is
        invalid or not the one that it has elsewhere.
        """
        granted: dict[bytes, set[Role]] = {}
        named: dict[bytes, str] = {}
        for role, given in tokens.items():
            for place, (name, token) in enumerate(entries(",".join(given)), 1):
                _check(role, place, name, token)
                known = digest(token.encode(), size=32)
                granted.setdefault(known, set()).add(role)
                if name is not None and named.setdefault(known, name) != name:
                    raise ConfigurationError(
                        f"token {place} of {_variable(role)} has the name {name!r}, and {named[known]!r} in another place: "
                        f"give each token one name"
                    )
        self._callers = [
            (known, Caller(ANY if Role.ADMIN in roles else Roles(roles), id64(named.get(known, known)), named.get(known)))
            for known, roles in granted.items()
        ]
        self.missing = [_variable(role) for role in Role if not any(role in roles for roles in granted.values())]

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Return the access that the settings configure."""
        return cls({role: [getattr(settings, f"{role}_tokens").get_secret_value()] for role in Role})

    @property
    def on(self) -> bool:
        """Whether requests need a token."""
        return bool(self._callers)

    def caller(self, authorization: Sequence[str], peer: str) -> Caller:
        """Return the caller by the request's `Authorization` headers and its address `peer`; raises `Unauthenticated`."""
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
    """Raise `ConfigurationError` if the service is reachable from other machines and a role has no token.

    `http_host` is the address of the HTTP server, None if unknown. The message has the commands that serve `service` safely.
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
        f"{where}, reachable from other machines, without {', '.join(missing)}: any client could score, teach and roll back.\n"
        f"To serve this machine only, type:\n  {alone}\nTo serve others, give each role a token first:\n  export {tokens}"
    )


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether `host` is reachable from this machine only: a loopback address, `localhost`, or the path of a Unix socket.

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


def _check(role: Role, place: int, name: str | None, token: str) -> None:
    # The message names the token by its place, not its value, because it is logged; a name may be a token in the wrong place.
    wrong = None
    if name is not None and not valid(name):
        raise ConfigurationError(
            f"the name of token {place} of {_variable(role)} has {len(name)} characters or is invalid; expected 1 to 32 "
            f"letters, digits and ._- other than `other`, before the first =, as in "
            f"{_variable(role)}=shop=$(openssl rand -hex 32)"
        )
    if name is None and token.endswith("=") and len(token) < _FEWEST_CHARACTERS and valid(of := token.rstrip("=")):
        wrong = f"the name {of!r} and nothing after the ="
    elif len(token) < _FEWEST_CHARACTERS:
        wrong = f"{len(token)} characters; expected at least {_FEWEST_CHARACTERS}"
    elif not _TOKEN.fullmatch(token):
        wrong = "invalid characters; expected letters, digits and -._~+/ (RFC 6750)"
    if wrong:
        raise ConfigurationError(f"token {place} of {_variable(role)} has {wrong}: create one with openssl rand -hex 32")
