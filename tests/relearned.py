"""What a learner learns that reads a home's journal from its start."""

from contextlib import closing

from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.recall import Replayed


def relearned(home):
    """Return that learner."""
    with closing(home.reader()) as journal:
        learner = new_learner(home.definition, home.settings)
        learner.recall = Replayed(journal, learner.state())
        learner.begin()
        while records := journal.read(learner.position, 10_000):
            for sequence, record in records:
                learner.push(sequence, record)
    return learner
