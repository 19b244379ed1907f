"""What damages bytes, for every fuzz test; RIVERDELTA_FUZZ_EXAMPLES sets how many examples each tries."""

import os

import pytest
from hypothesis import HealthCheck, settings

#: Derandomized: a run finds what the last one found, and a longer one more.
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("RIVERDELTA_FUZZ_EXAMPLES", "300")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def damaged(data, edits):
    """Return `data` after edits (way, place, byte): a flip, another byte, a cut, a part doubled or dropped, a wide number."""
    for way, place, byte in edits:
        at = place % max(len(data), 1)
        head, tail = data[:at], data[at + 1 :]
        if way == 0 and data:
            data = head + bytes([data[at] ^ (1 << byte % 8)]) + tail
        elif way == 1:
            data = head + bytes([byte]) + tail
        elif way == 2:
            data = head
        elif way == 3:
            data = data[: at + byte] + data[at:]
        elif way == 4:
            data = head + data[at + byte :]
        else:
            data = head + bytes([255 - byte % 2]) * 4 + data[at + 4 :]
    return data


@pytest.fixture(scope="session")
def damage():
    """`damaged`, as a fixture: these files are no package."""
    return damaged
