"""Hosts: the names by which requests may address a service without tokens."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from riverdelta.core.errors import ConfigurationError, Forbidden, short
from riverdelta.core.settings import Settings

#: A name or an address as in a URL, and the port.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII)
_MOST_CHARACTERS = 300


class Hosts:
    """Refuses requests that a web page sends from another site: by DNS rebinding, or by a form.

    A browser that opens `http://evil.example:3000` sends that name in `Host`, even after the name was made to point to this
    machine. So a request must name an IP address, `localhost`, or a name in `RIVERDELTA_HOSTS`. With an `Origin`, which a
    browser adds to every POST and script request to another site, that must be this machine, such a name, or the same host.

    >>> hosts = Hosts(["scorer.internal"])
    >>> hosts.check(["127.0.0.1:3000"], []), hosts.check(["Scorer.internal"], ["http://localhost:8080"])
    (None, None)
    >>> hosts.check(["evil.example"], [])
    Traceback (most recent call last):
    riverdelta.core.errors.Forbidden: the request is for Host 'evil.example'; a service without tokens answers to IP addresses,
    localhost and the names in RIVERDELTA_HOSTS: if the name is yours, set RIVERDELTA_HOSTS=evil.example
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        """Raises `ConfigurationError` for a name that no `Host` can have."""
        for name in names:
            if _name(name) is None:
                raise ConfigurationError(
                    f"RIVERDELTA_HOSTS has {short(name)}; expected host names, separated by commas: write "
                    f"RIVERDELTA_HOSTS=scorer.internal"
                )
        self._names = tuple(str(_name(name)) for name in names)

    @classmethod
    def of(cls, settings: Settings) -> Hosts:
        """Return the hosts that the settings name."""
        return cls([name.strip() for name in settings.hosts.split(",") if name.strip()])

    def check(self, hosts: Sequence[str], origins: Sequence[str]) -> None:
        """Raise `Forbidden` by the request's `Host` and `Origin` headers; its last words are the line that permits the name."""
        if len(hosts) != 1:
            raise Forbidden(f"the request has {len(hosts) or 'no'} Host headers; expected one, such as Host: localhost")
        name = _name(hosts[0])
        if not (name in self._names or name == "localhost" or _is_address(name)):
            raise _refused(f"is for Host {short(hosts[0])}", name)
        for origin in origins:
            theirs = _origin(origin)
            sent_here = theirs is not None and theirs.lower() == hosts[0].lower()
            if not (sent_here or (its := _name(theirs)) in self._names or _is_local(its)):
                raise _refused(f"comes from Origin {short(origin)}", its)


def _refused(what: str, name: str | None) -> Forbidden:
    return Forbidden(
        f"the request {what}; a service without tokens answers to IP addresses, localhost and the names in RIVERDELTA_HOSTS: "
        f"if the name is yours, set RIVERDELTA_HOSTS={name or 'scorer.internal'}"
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


def _is_local(name: str | None) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(str(name).strip("[]")).is_loopback)


def _origin(origin: str) -> str | None:
    """Return the host and port of an origin; None if it has none, as `null`."""
    try:
        return urlsplit(origin).netloc if len(origin) <= _MOST_CHARACTERS else None
    except ValueError:
        return None
