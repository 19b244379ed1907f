"""What is asked of the mutants of every kind: each breaks the law that it is filed under, and each law has one of its own."""

import pytest

from riverdelta.checks import LawBroken, yield_checks
from riverdelta.core.losses import LOG_LOSS

_KNOWN = {}


def _checks(mutant, schema):
    return yield_checks(mutant, schema, getattr(mutant, "of", LOG_LOSS))


def broken_by(mutant, schema=None):
    """The laws that a mutant breaks, by name; each is asked once."""

    def breaks(check):
        try:
            check()
        except LawBroken:
            return True
        return False

    if id(mutant) not in _KNOWN:
        _KNOWN[id(mutant)] = mutant, [check.name for check in _checks(mutant, schema) if breaks(check)]
    return _KNOWN[id(mutant)][1]


def each_of(broken):
    """One test for each mutant, of the law that it is filed under."""
    pairs = [(law, mutant) for law, mutants in broken.items() for mutant in mutants]
    return pytest.mark.parametrize(("law", "mutant"), pairs, ids=[f"{law}-{_title(mutant)}" for law, mutant in pairs])


def each_law_has_its_own(broken, right, schema=None):
    """A right object breaks no law, and each law has a mutant that it is the first to catch, or one of at most three."""
    assert broken_by(right, schema) == []
    assert list(broken) == [check.name for check in yield_checks(right, schema)]
    for law, mutants in broken.items():
        caught = [broken_by(mutant, schema) for mutant in mutants]
        assert any(laws[:1] == [law] or len(laws) <= 3 for laws in caught), f"{law} has no mutant of its own"


def _title(mutant):
    return getattr(getattr(mutant, "make", mutant), "__name__", type(mutant).__name__)
