"""Outcomes: the last ones, each found by its record."""

import numpy as np
import pytest

from riverdelta.core.errors import Corrupt
from riverdelta.learning.outcomes import KEPT, Outcome, Outcomes


def test_the_last_ones_are_found_by_their_record():
    outcomes = Outcomes()
    for sequence in range(KEPT + 3):
        outcomes.append(Outcome(sequence, "promote", 2, refused="gone" if sequence % 2 else None))
    assert outcomes[KEPT - 3] == Outcome(KEPT, "promote", 2)
    assert outcomes[KEPT - 2].refused == "gone"
    assert [o["sequence"] for o in outcomes.report()] == list(range(3, KEPT + 3))


def test_a_state_of_version_0_1_has_none_and_a_broken_one_is_refused():
    outcomes = Outcomes()
    outcomes.load({})
    assert list(outcomes) == []
    for body in (b"[", b"[7]", b'[{"sequence": 1}]', b'[{"sequence": 1, "action": "freeze", "more": 2}]'):
        with pytest.raises(Corrupt, match="kept"):
            outcomes.load({"kept": np.frombuffer(body, np.uint8)})
