"""Status: what the learner says of itself, for every worker to show and to export as metrics."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riverdelta.sidecar.trainer import Trainer


def describe(trainer: Trainer) -> dict[str, Any]:
    """Return position, losses, gate, breaker, trial, releases and what is wrong, if anything is."""
    head, learner, store = trainer.live.head, trainer.learner, trainer.releases.store
    champion = store.champion()
    return {
        "pid": os.getpid(),
        "time": trainer.clock(),
        "paused": trainer.paused,
        "frozen": learner.frozen,
        "position": learner.position,
        "journal_position": max(trainer.journal.last(), learner.position),
        "examples": learner.examples,
        "learned": learner.learned,
        "unmatched": learner.joiner.unmatched,
        "kept_negatives": learner.joiner.kept_negatives,
        "dropped_negatives": learner.joiner.dropped_negatives,
        "waiting_rows": learner.joiner.waiting.rows,
        "waiting_bytes": learner.joiner.bytes,
        "showings_bytes": learner.joiner.showings.bytes,
        "read_back_rows": learner.joiner.waiting.read_back,
        "outcomes": learner.outcomes.report(),
        "release": head.release if head else trainer.contest.serving,
        "champion": champion.number if champion else None,
        "swap": head.swap if head else 0,
        "published": trainer._published,
        "serve": trainer.settings.serve,
        "guard": trainer.settings.guard,
        "gate": learner.gate.report(),
        "admission": learner.admission.report(),
        "drift": learner.adaptation.report(),
        "trial": trainer.contest.report(),
        "releases": len(store.all()),
        "release_bytes": store.bytes(),
        "releases_refused": trainer.releases.refused,
        "refused_because": trainer.releases.reason,
        "parity_max_logit": trainer.releases.parity,
        "occupancy": learner.stack.occupancy(),
        "prequential": learner.prequential.report(),
        "journal_bytes": trainer.journal.size(),
        "disk_free_ratio": _free(trainer),
        **trainer.account.report(),
    }


def _free(trainer: Trainer) -> float:
    disk = shutil.disk_usage(trainer.home.folder)
    return disk.free / disk.total
