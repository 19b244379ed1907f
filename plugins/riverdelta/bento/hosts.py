"""Hosts: the names by which requests may address a service without tokens."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from riverdelta.bento.access import is_loopback
from riverdelta.core.errors import ConfigurationError, Forbidden, short

#: A name or an address as in a URL, and the port.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII)
_MOST_CHARACTERS = 300


class Hosts:
    """Refuses requests that a web page sends from another site: by DNS rebinding, or by a form.

    A browser that opens `http://evil.example:3000` sends that name in `Host`, even after the name was made to point to this
    machine. So a request must name an IP address, `localhost`, or a name in `RIVERDELTA_HOSTS`. With an `Origin`, which a
    browser adds to every POST and script request to another site, that must be this machine, such a name, or the same host. A
    request that only admins may make must name this machine: a proxy may pass on any `Host` that it knows.

    >>> hosts = Hosts("scorer.internal")
    >>> hosts.check(["127.0.0.1:3000"], []), hosts.check(["Scorer.internal"], ["http://localhost:8080"])
    (None, None)
    >>> hosts.check(["evil.example"], [])
    Traceback (most recent call last):
    riverdelta.core.errors.Forbidden: the request is for Host 'evil.example'; a service without tokens answers to IP addresses,
    localhost and the names in RIVERDELTA_HOSTS: if the name is yours, set RIVERDELTA_HOSTS=$RIVERDELTA_HOSTS,evil.example
    """

    def __init__(self, names: str = "") -> None:
        """Take names separated by commas; raises `ConfigurationError` for one that no `Host` can have."""
        given = [name.strip() for name in names.split(",") if name.strip()]
        self._names = [_name(name) for name in given]
        if None in self._names:
            wrong = short(given[self._names.index(None)])
            line = "RIVERDELTA_HOSTS=scorer.internal"
            raise ConfigurationError(f"RIVERDELTA_HOSTS has {wrong}; expected host names, separated by commas: write {line}")

    def check(self, hosts: Sequence[str], origins: Sequence[str], admin: bool = False) -> None:
        """Raise `Forbidden` by the request's `Host` and `Origin` headers; its last words are the line that permits the name."""
        if len(hosts) != 1:
            raise Forbidden(f"the request has {len(hosts) or 'no'} Host headers; expected one, such as Host: localhost")
        name = _name(hosts[0])
        if admin and not (name and is_loopback(name)):
            raise Forbidden(
                f"the request is for Host {short(hosts[0])}; without tokens /admin takes only 127.0.0.1, [::1] and localhost: "
                f"set RIVERDELTA_SCORE_TOKENS, RIVERDELTA_FEEDBACK_TOKENS and RIVERDELTA_ADMIN_TOKENS"
            )
        if not self._known(name) and not _is_address(name):
            raise self._refused(f"is for Host {short(hosts[0])}", name)
        for origin in origins:
            theirs = _origin(origin)
            if theirs.lower() != hosts[0].lower() and not self._known(_name(theirs)):
                raise self._refused(f"comes from Origin {short(origin)}", _name(theirs))

    def _known(self, name: str | None) -> bool:
        return name is not None and (name in self._names or is_loopback(name))

    def _refused(self, what: str, name: str | None) -> Forbidden:
        # The names are not repeated: a page of another site may read this.
        present = "$RIVERDELTA_HOSTS," if self._names else ""
        return Forbidden(
            f"the request {what}; a service without tokens answers to IP addresses, localhost and the names in "
            f"RIVERDELTA_HOSTS: if the name is yours, set RIVERDELTA_HOSTS={present}{name or 'scorer.internal'}"
        )


@lru_cache(maxsize=256)
def _name(host: str | None) -> str | None:
    """Return the name or address of `name:port`, in lower case and without a last dot; None if it is neither.

    >>> _name("LOCALHOST.:3000"), _name("[::1]:3000"), _name("localhost@evil.example"), _name("")
    ('localhost', '[::1]', None, None)
    """
    found = _HOST.fullmatch(host.lower()) if host and len(host) <= _MOST_CHARACTERS else None
    return found[1].removesuffix(".") or None if found else None


@lru_cache(maxsize=256)
def _is_address(name: str | None) -> bool:
    try:
        return name is not None and bool(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False


def _origin(origin: str) -> str:
    """Return the host and port of an origin; nothing if it has none, as `null`."""
    try:
        return urlsplit(origin).netloc if len(origin) <= _MOST_CHARACTERS else ""
    except ValueError:
        return ""
