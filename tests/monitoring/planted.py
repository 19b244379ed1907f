"""The faults that can be planted in a scorer."""

import numpy as np
from scorers import truth

from riverdelta.core.records import Tick
from riverdelta.evaluation.gate import Gate
from riverdelta.learning.joiner import Source
from riverdelta.storage.journal.entries import add
from riverdelta.storage.registry import FolderRegistry


def seldom(rng, x, scores):
    """Labels a fifth as often as the base has it."""
    return truth(rng, x, scores) & (rng.random(len(x)) < 0.2)


def never(rng, x, scores):
    """A stale stream of clicks."""
    return np.zeros(len(x), bool)


def spite(rng, x, scores):
    """Labels that are whatever the corrections made less likely than the base had it."""
    return scores < 1 / (1 + np.exp(-x))


def lose_the_learner(scorer):
    scorer.alive = False


def pause_the_learner(scorer):
    """Its checkpoints have no folder any more, but a file."""
    store = scorer.trainer.checkpoints
    moved = scorer.trainer.home.folder / "moved"
    moved.write_text("a file where a folder was")
    scorer.between.append(lambda: setattr(store, "registry", FolderRegistry(moved)))


def lose_sight_of_new_tables(scorer):
    scorer.plane.follower.follow = lambda: None


def see_old_records_alone(scorer, seconds=7.0):
    """The learner is behind by so many seconds, always."""
    read, seen = scorer.trainer.journal.read, []

    def late(after, rows):
        now = scorer.plane.clock()
        records = read(after, rows)
        seen.extend((now, sequence) for sequence, _ in records if not seen or sequence > seen[-1][1])
        known = [sequence for at, sequence in seen if at <= now - seconds]
        return [(sequence, record) for sequence, record in records if known and sequence <= known[-1]]

    scorer.trainer.journal.read = late


def read_nothing(scorer):
    """The learner reads no further, and the journal grows by hundreds of records."""
    scorer.trainer.journal.read = lambda after, rows: []

    async def burst():
        with scorer.plane.journal.log.transaction() as transaction:
            for _ in range(200):
                add(transaction, Tick(scorer.plane.clock()))

    scorer.exchange = burst


def lose_impressions(scorer):
    """The learner finds no impression any more, in memory or in the journal."""
    waiting = scorer.trainer.learner.joiner.waiting
    scorer.between.append(lambda: vars(waiting).update(source=Source(), limit=0))


def label_again_what_is_retired(scorer):
    """Each request's labels are followed by those of the first one, whose part of the journal is soon retired."""
    post, exchange, sent = scorer._client.post, scorer.exchange, []

    async def remembered(path, json):
        if path == "/feedback":
            sent.append(json)
        return await post(path, json=json)

    async def twice():
        await exchange()
        await post("/feedback", json=sent[0])

    scorer._client.post, scorer.exchange = remembered, twice


def send_ids_of_another_service(scorer):
    """Each request's labels are followed by as many whose ids this service did not issue."""
    exchange = scorer.exchange

    async def twice():
        await exchange()
        answer = await scorer._client.post("/feedback", json=[{"id": "another.0", "label": 1}] * scorer.rows)
        assert answer.status_code == 422

    scorer.exchange = twice


def fill_the_journal(scorer):
    scorer.fed = False
    database = scorer.plane.journal.log._writer.newest._db
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")


def fill_the_disk(scorer):
    status = scorer.trainer._status
    describe = status.report
    status.report = lambda: describe() | {"disk_free_ratio": 0.03}


def shift_a_feature(scorer):
    scorer.shift = 3.0


def label_seldom(scorer):
    scorer.label = seldom


def stop_clicking(scorer):
    scorer.label = never


def hold_everything(scorer):
    """Everything is held, and the oldest does not fit."""
    admission = scorer.trainer.learner.admission
    admit = admission.admit
    admission.admit = lambda *given: admit(*given)[::-1]


def flood(scorer):
    """Eight senders are usual, and one more sends nine labels of ten."""
    shares, rng = scorer.trainer.learner.admission.shares, np.random.default_rng(0)
    admit, rows = shares.admit, 20_000

    def flooded(source, weight, received):
        known = np.arange(len(source)) % 8 + 1
        return admit(np.where(rng.random(len(source)) < 0.9, 9, known), weight, received)

    def begin():
        admit(np.arange(rows) % 8 + 1, np.ones(rows, np.float32), np.full(rows, scorer.plane.clock()))
        shares.admit = flooded

    scorer.between.append(begin)


class Stuck(Gate):
    """A gate that guards nothing: what the corrections say is served, however they do."""

    weight = property(lambda self: 1.0)


def spite_the_corrections(scorer):
    scorer.label = spite
    scorer.trainer.learner.gate.__class__ = Stuck


def send_what_has_no_score(scorer):
    scorer.unscored = True


def send_what_it_cannot_score(scorer):
    scorer.odd = True


def slow_down(scorer):
    scorer.took = 0.35


def skew_the_export(scorer):
    scorer.trainer.releases.definition.corrections[2].__class__.skew = 1.0
