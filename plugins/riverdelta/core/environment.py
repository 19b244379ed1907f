"""Environment: checks that variables named RIVERDELTA_* are settings, and reports the others."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, MutableMapping

from riverdelta.core.errors import ConfigurationError, near

_log = logging.getLogger(__name__)
PREFIX = "RIVERDELTA_"
#: Variables that are not settings of a service, and what reads them.
TOOLS = {
    "DATA": "The folder with MovieLens latest-small, for `riverdelta demo`, and with more data sets for tests and benchmarks.",
    "FUZZ_EXAMPLES": "The number of examples that each test in `tests/fuzz` tries.",
}
#: `name=value`, after the prefix, as Kubernetes and Docker set for services named riverdelta or riverdelta-….
_LINK = re.compile(
    r"(?:(?P<service>.+)_)?(SERVICE_HOST=.*|SERVICE_PORT(_.+)?=\d*|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*|NAME=/.*|ENV_.*)",
    re.DOTALL,
)
#: Names the unknown variables already logged, for this process and its children.
_LOGGED = "_RIVERDELTA_UNKNOWN"


def check(settings: Collection[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Raise `ConfigurationError` if a variable's name is almost that of a setting; log other unknown variables once.

    A name within two edits of a setting's counts as a typo. Links to services and `TOOLS` are skipped. No value is shown: it
    may be a token.
    """
    names = {variable.upper().removeprefix(PREFIX): variable for variable in environment if variable.upper().startswith(PREFIX)}
    known = {setting.upper() for setting in settings}
    unknown = {
        name: variable
        for name, variable in sorted(names.items())
        if name not in known and name not in TOOLS and link(name, environment[variable]) is None
    }
    nearest = {variable: min((edits(name, one), PREFIX + one) for one in known) for name, variable in unknown.items()}
    if slips := [
        f'{variable} is not a setting, but {right} is; rename it, or unset it: export {right}="${variable}"; unset {variable}'
        for variable, (distance, right) in nearest.items()
        if distance <= 2
    ]:
        raise ConfigurationError("\n".join(slips))
    logged = environment.get(_LOGGED, "").split()
    for name, variable in unknown.items():
        if variable not in logged:
            _log.warning("%s is not a setting and is ignored: %s", variable, near(name, known))
    if unknown:
        environment[_LOGGED] = " ".join({*logged, *unknown.values()})


def link(name: str, value: str) -> str | None:
    """Return the Kubernetes or Docker service that RIVERDELTA_<name> is a link to, or None.

    >>> link("GRPC_PORT", "tcp://10.0.0.1:50051"), link("SERVICE_HOST", "10.0.0.1"), link("GRPC_PORT", "3001")
    ('riverdelta-grpc', 'riverdelta', None)
    """
    found = _LINK.fullmatch(f"{name}={value}")
    return found and "-".join(["riverdelta", *(found["service"] or "").lower().split("_")]).rstrip("-")


def edits(one: str, other: str) -> int:
    """Return the least number of insertions, deletions, substitutions and swaps of neighbours between two strings.

    Notes: the Damerau-Levenshtein distance, by the algorithm of Lowrance and Wagner (1975).

    >>> edits("HOME", "HOEM"), edits("CA", "ABC"), edits("HOME", "DATA")
    (1, 2, 4)
    """
    far = len(one) + len(other)
    cost = {(-1, -1): far}
    for i in range(len(one) + 1):
        cost[i, -1], cost[i, 0] = far, i
    for j in range(len(other) + 1):
        cost[-1, j], cost[0, j] = far, j
    rows: dict[str, int] = {}
    for i, x in enumerate(one, 1):
        column = 0
        for j, y in enumerate(other, 1):
            row, before = rows.get(y, 0), column
            column = j if x == y else column
            swapped = cost[row - 1, before - 1] + (i - row) + (j - before) - 1
            cost[i, j] = min(cost[i - 1, j - 1] + (x != y), cost[i, j - 1] + 1, cost[i - 1, j] + 1, swapped)
        rows[x] = i
    return cost[len(one), len(other)]
