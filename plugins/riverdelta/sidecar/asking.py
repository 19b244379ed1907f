"""Asking: what the learner asks for itself, each a record in the journal that it reads like an operator's."""

from __future__ import annotations

from dataclasses import replace

from riverdelta.core.records import Control
from riverdelta.core.settings import Settings
from riverdelta.evaluation.trial import Verdict
from riverdelta.learning.learner import Learner
from riverdelta.sidecar.contest import Contest


def next_control(learner: Learner, contest: Contest, settings: Settings, release_due: bool, now: float) -> Control | None:
    """Return what is to be asked for at `now` (Unix seconds), None for nothing; the most urgent first.

    A rollback where the breaker has opened, the record of a drift alarm, the promotion of a trial's winner, and a release where
    one is due and examples have come since the last.
    """
    breaker, asked = learner.admission.breaker, {"asked": learner.position}
    if settings.breaker == "rollback" and breaker and breaker.trips > learner.admission.rolled_back:
        champion = contest.registered_champion()
        back = {"release": champion.number, "position": champion.position, "promote": False, "trip": breaker.trips}
        return Control("rollback", {**back, "by": "breaker", **asked}, now)
    if (drift := learner.adaptation.unrecorded) is not None:
        return replace(drift, time=now)
    if contest.verdict is Verdict.promoted:
        return Control("promote", {"release": contest.challenger, "by": "trial", **asked}, now)
    since = learner.examples - learner.released_at
    if since and (release_due or (settings.release_examples is not None and since >= settings.release_examples)):
        return Control("release", {}, now)
    return None
