"""Verdict: what came of a home whose processes were killed, against one life that nobody disturbed over the same journal."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from riverdelta.core.records import Feedback
from riverdelta.sidecar import Trainer
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.journal import Reader
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import FolderRegistry


@dataclass(frozen=True)
class Verdict:
    """Examples (rows, or lists) accepted and learned; labels lost and doubled; arrays unlike an undisturbed run's; failures."""

    accepted: int
    examples: int
    lost: int
    doubled: int
    unmatched: int
    differing: tuple[str, ...]
    position: int
    last: int
    failures: tuple[str, ...]


def judge(definition, settings, whole, accepted, failures, gone=frozenset()):
    """Return the verdict on the home of `settings`.

    `whole` is a folder with a copy of its journal, every record that there ever was, and `accepted` the label of each row by
    its key. A row that is journalled with another label than the accepted one is lost, unless it is `gone` because it was
    forgotten; one that nobody sent is doubled.
    """
    records, last = _records(whole / definition.name / "journal", settings.segment_bytes)
    labels = Counter(item for record in records for item in labelled(record))
    learner, state = _undisturbed(definition, settings.model_copy(update={"home": whole}))
    saved = CheckpointStore(FolderRegistry(settings.home / definition.name)).load()
    # A trial needs releases that a run without kills may have kept, and is none of what is learned.
    names = sorted(name for name in state.keys() | saved.arrays.keys() if not name.startswith("contest/"))
    same = [n in state and n in saved.arrays and identical(state[n], saved.arrays[n]) for n in names]
    whose = slice(2 if definition.loss.lists else None)
    return Verdict(
        accepted=len({key[whose] for key in accepted}),
        examples=learner.examples,
        lost=len({key for key, _ in accepted.items() - labels.keys()} - gone),
        doubled=sum(n - 1 for n in labels.values()) + len(labels.keys() - accepted.items()),
        unmatched=learner.joiner.unmatched,
        differing=tuple(n for n, equal in zip(names, same, strict=True) if not equal),
        position=saved.position,
        last=last,
        failures=tuple(failures),
    )


def labelled(record):
    """The key and the label of each row that a record labels."""
    if not isinstance(record, Feedback):
        return []
    at = ~np.isnan(record.label)
    keys = record.incarnation[at], record.request[at], record.index[at]
    return list(zip(zip(*(part.tolist() for part in keys), strict=True), record.label[at].tolist(), strict=True))


def identical(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _records(journal, segment_bytes):
    for shared in journal.glob("*-shm"):
        shared.unlink()
    segments, records, position = Reader(SqliteLog(journal, segment_bytes)), [], 0
    while part := segments.read(position, 65_536):
        assert [s for s, _ in part] == list(range(position + 1, position + 1 + len(part)))
        records += [record for _, record in part]
        position = part[-1][0]
    segments.close()
    return records, position


def _undisturbed(definition, settings):
    """The learner, and all of its state, of one life over the whole journal with a clock at which nothing is due."""
    trainer = Trainer(definition, settings, clock=lambda: 0.0)
    while trainer.step():
        pass
    assert trainer.paused is None, trainer.paused
    trainer.journal.close()
    trainer._lock.release()
    return trainer.learner, trainer.state()
