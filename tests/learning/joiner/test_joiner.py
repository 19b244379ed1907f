"""The joiner against a slow one that keeps a dictionary, and what must not change what it makes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError, Corrupt, Unavailable
from riverdelta.core.losses import LOG_LOSS, Regression
from riverdelta.core.records import Control, Feedback, Impressions, Tick
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.joiner.weights import LATE, LATE_WEIGHT_BOUND
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.registry import FolderRegistry

WINDOW = 10.0
#: Bytes that eight rows of `impressions` take in memory, with the share that is kept for blocks read back.
ROOM = 1500


def impressions(keys, incarnation=1, time=0.0):
    """A block of rows [(request, index)]; each row's id column and base logit say which row it is."""
    request, index = np.array(keys, np.int64).reshape(-1, 2).T
    name = (incarnation * 1000 + request) * 100 + index
    logit = (name % 7 - 3).astype(np.float32)
    return Impressions(
        incarnation=incarnation,
        request=request,
        index=index.astype(np.int32),
        time=np.full(len(request), time),
        release=np.zeros(len(request), np.int64),
        swap=np.zeros(len(request), np.int64),
        position=name + 1,
        base=name.astype(np.float32),
        corrected=logit,
        served=logit + 1,
        propensity=np.full(len(request), np.nan, np.float32),
        columns={"id": name, "vec": np.stack([name, -name], axis=1).astype(np.float32)},
    )


def feedback(items, time=1.0, late=False):
    """Feedback for [(incarnation, request, index, label)]; each item's source says which row it labels."""
    incarnation, request, index, label = zip(*items, strict=True)
    return Feedback(
        np.array(incarnation, np.int64),
        np.array(request, np.int64),
        np.array(index, np.int32),
        np.array(label, np.float32),
        np.full(len(items), time),
        np.full(len(items), late),
        (np.array(incarnation, np.int64) * 1000 + request) * 100 + index,
    )


class Journal:
    """The impressions of the records that were pushed."""

    def __init__(self):
        self.blocks = {}

    def locate(self, incarnation, request):
        held = (n for n, block in self.blocks.items() if block.incarnation == incarnation and request in block.request)
        return next(held, None)

    def impressions(self, sequence):
        return self.blocks[sequence]


def run(joiner, records, start=1, journal=None):
    """Push records and return what came out as rows (id, label, weight, received, scored, logits, importance, taken back)."""
    rows = []
    if journal is not None:
        joiner.waiting.source = journal
        journal.blocks |= {n: record for n, record in enumerate(records, start) if isinstance(record, Impressions)}
    for sequence, record in enumerate(records, start):
        made = joiner.push(sequence, record)
        if made is not None:
            assert len(made) > 0
            assert made.columns["vec"].tolist() == np.stack([made.columns["id"], -made.columns["id"]], 1).tolist()
            assert made.base[:, 0].tolist() == made.columns["id"].tolist()
            assert made.position.tolist() == (made.columns["id"] + 1).tolist()
            silent = isinstance(record, Tick)
            assert made.source.tolist() == ([0] * len(made) if silent else made.columns["id"].tolist())
            parts = (
                made.columns["id"],
                made.label,
                made.weight,
                made.received,
                made.scored,
                made.corrected[:, 0],
                made.served[:, 0],
            )
            parts += made.importance, made.taken_back, made.position, made.source
            rows += list(zip(*(part.tolist() for part in parts), strict=True))
    return rows


def test_a_label_makes_its_row_an_example_in_the_order_of_labels():
    joiner = Joiner()
    history = [impressions([(0, 0), (0, 1), (4, 0)], time=5.0), feedback([(1, 4, 0, 1), (1, 0, 1, 0)], time=7.0)]
    rows = run(joiner, history)
    assert [row[:5] for row in rows] == [(100_400, 1.0, 1.0, 7.0, 5.0), (100_001, 0.0, 1.0, 7.0, 5.0)]
    assert (joiner.waiting.rows, joiner.unmatched) == (1, 0)


def test_rows_of_several_workers_are_joined_in_one_record():
    joiner = Joiner()
    history = [impressions([(0, 0)], 1), impressions([(0, 0)], 2), feedback([(2, 0, 0, 1), (3, 0, 0, 1), (1, 0, 0, 0)])]
    assert [row[:2] for row in run(joiner, history)] == [(200_000, 1.0), (100_000, 0.0)]
    assert joiner.unmatched == 1


def test_a_label_whose_row_cannot_be_found_is_counted_and_logged_and_makes_nothing(caplog):
    joiner = Joiner(max_bytes=1)
    history = [impressions([(0, 0), (0, 1)]), impressions([(1, 0)]), feedback([(1, 0, 0, 1), (1, 9, 0, 1), (7, 0, 0, 1)])]
    assert run(joiner, history) == []
    assert (joiner.waiting.rows, joiner.unmatched) == (0, 3)
    assert "3 labels are not learned: their impressions are not in memory or in the journal" in caplog.text


def test_every_label_is_learned_of_three_times_the_rows_that_fit_in_memory():
    joiner, blocks = Joiner(max_bytes=3 * ROOM), [impressions([(n, i) for i in range(10)], time=float(n)) for n in range(60)]
    labels = [feedback([(1, n, i, (n + i) % 2) for i in range(10)]) for n in range(60)]
    rows = run(joiner, blocks + labels, journal=Journal())
    assert [row[:2] for row in rows] == [(100_000 + n * 100 + i, (n + i) % 2) for n in range(60) for i in range(10)]
    assert joiner.unmatched == 0
    assert joiner.waiting.read_back >= 400


def test_memory_stays_within_its_limit_however_many_rows_wait():
    joiner, journal = Joiner(max_bytes=600_000), Journal()
    for n in range(300):
        run(joiner, [impressions([(n, i) for i in range(50)], n % 3)], n + 1, journal)
        assert joiner.bytes <= 600_000
    run(joiner, [feedback([(n % 3, n, i, 1) for n in range(300) for i in (0, 49)])], 301, journal)
    assert joiner.bytes <= 600_000
    assert joiner.unmatched == 0


def test_memory_stays_within_its_limit_when_many_workers_come_and_most_of_their_rows_are_joined():
    joiner, journal, sequence = Joiner(max_bytes=4_000_000), Journal(), 0
    for worker in range(8):
        for n in range(30):
            sequence += 1
            run(joiner, [impressions([(n, i) for i in range(1_000)], worker)], sequence, journal)
        labels = [(worker, n, i, 1) for n in range(30) for i in range(1_000) if i % 4]
        sequence += 1
        run(joiner, [feedback(labels[start : start + 5_000]) for start in range(0, len(labels), 5_000)], sequence, journal)
        sequence += len(labels) // 5_000
        assert joiner.bytes <= 4_000_000
    assert joiner.unmatched == 0


def test_rows_that_are_asked_for_together_are_read_back_once():
    joiner, journal = Joiner(max_bytes=1), Journal()
    run(joiner, [impressions([(0, i) for i in range(9)]), impressions([(1, 0)])], journal=journal)
    reads, read = [], journal.impressions
    journal.impressions = lambda sequence: reads.append(sequence) or read(sequence)
    for i in range(9):
        run(joiner, [feedback([(1, 0, i, 1)])], 3 + i, journal)
    assert reads == [1]


def test_an_index_that_names_another_worker_s_record_is_corrupt():
    joiner, journal = Joiner(max_bytes=1), Journal()
    journal.locate = lambda incarnation, request: 1
    run(joiner, [impressions([(0, 0)], 2)], journal=journal)
    with pytest.raises(Corrupt, match="record 1 has rows of another worker"):
        run(joiner, [feedback([(1, 0, 0, 1)])], 2, journal)


def test_a_second_label_makes_an_example_only_where_labels_are_replaced():
    history = [impressions([(0, 0)]), feedback([(1, 0, 0, 1)]), feedback([(1, 0, 0, 0)])]
    assert [row[1] for row in run(Joiner(), history)] == [1.0]
    assert [row[1] for row in run(Joiner(relabels=True), history)] == [1.0, 0.0]


def test_two_labels_in_one_record_both_count_where_labels_are_replaced():
    joiner = Joiner(relabels=True)
    assert [r[1] for r in run(joiner, [impressions([(0, 0)]), feedback([(1, 0, 0, 1), (1, 0, 0, 0)])])] == [1.0, 0.0]
    assert joiner.waiting.rows == 1


def test_the_oldest_record_s_rows_leave_memory_first_whatever_worker_scored_them():
    joiner = Joiner(max_bytes=ROOM)
    blocks = [impressions([(0, 0), (0, 1)], 2), impressions([(0, i) for i in range(8)], 1), impressions([(1, 0)], 2)]
    late = feedback([(2, 0, 0, 1), (1, 0, 0, 1), (1, 0, 1, 1), (2, 1, 0, 1)])
    assert [row[0] for row in run(joiner, [*blocks, late])] == [100_000, 100_001, 200_100]


def test_rows_that_have_been_joined_make_room():
    joiner = Joiner(max_bytes=ROOM)
    first, second = ([(n, i) for i in range(8)] for n in (0, 1))
    labels = [feedback([(1, *key, 1) for key in keys]) for keys in (first, second)]
    assert len(run(joiner, [impressions(first), labels[0], impressions(second), labels[1]])) == 16
    assert joiner.waiting.rows == 0


def test_ticks_controls_and_showings_make_nothing_of_explicit_labels():
    history = [impressions([(0, 0)]), feedback([(1, 0, 0, np.nan)]), Tick(10**9), Control("freeze")]
    assert run(Joiner(), history) == []


class TestSilence:
    def joiner(self, **settings):
        return Joiner("silence", WINDOW, **settings)

    def test_a_shown_row_without_a_label_becomes_a_negative_at_the_first_tick_past_its_window(self):
        joiner = self.joiner()
        shown = [impressions([(0, 0), (0, 1)]), feedback([(1, 0, 1, np.nan)], time=100.0)]
        assert run(joiner, [*shown, Tick(109.9)]) == []
        assert [row[:4] for row in run(joiner, [Tick(110.0)])] == [(100_001, 0.0, 1.0, 110.0)]
        assert run(joiner, [Tick(200.0)]) == []

    def test_a_label_within_the_window_takes_the_place_of_silence(self):
        history = [impressions([(0, 0)]), feedback([(1, 0, 0, np.nan)], time=100.0), feedback([(1, 0, 0, 1)]), Tick(500.0)]
        assert [row[1] for row in run(self.joiner(), history)] == [1.0]

    def test_a_row_that_was_not_shown_never_matures(self):
        assert run(self.joiner(), [impressions([(0, 0)]), Tick(10**9)]) == []

    def test_rows_mature_in_the_order_in_which_they_were_shown(self):
        joiner = self.joiner()
        blocks = [impressions([(0, 0), (1, 0)], 1), impressions([(0, 0)], 2)]
        shown = [feedback([(1, 1, 0, np.nan), (2, 0, 0, np.nan)], time=100.0), feedback([(1, 0, 0, np.nan)], time=99.0)]
        assert [row[0] for row in run(joiner, [*blocks, *shown, Tick(200.0)])] == [100_100, 200_000, 100_000]

    def test_a_positive_that_comes_late_is_learned_with_the_weight_that_undoes_the_negative(self):
        history = [impressions([(0, 0)]), feedback([(1, 0, 0, np.nan)], time=100.0), Tick(110.0)]
        rows = run(self.joiner(), [*history, feedback([(1, 0, 0, 1)], late=True)])
        assert [row[1] for row in rows] == [0.0, 1.0]
        p = float(LOG_LOSS.inverse_link(rows[0][5])[0, 0])
        # Gradients in the logit: p of the negative, weight · (p − 1) of the positive; together those of the positive alone.
        assert p + rows[1][2] * (p - 1) == pytest.approx(p - 1)

    def test_the_weight_of_a_late_positive_is_bounded(self):
        block = impressions([(0, 0)])
        block.corrected[:] = 50.0
        history = [block, feedback([(1, 0, 0, np.nan)], time=0.0), Tick(10.0), feedback([(1, 0, 0, 1)], late=True)]
        assert run(self.joiner(), history)[1][2] == LATE_WEIGHT_BOUND

    def test_a_late_positive_is_learned_like_any_other_where_the_learner_is_to_be_plain(self):
        history = [impressions([(0, 0)]), feedback([(1, 0, 0, np.nan)], time=100.0), Tick(110.0)]
        rows = run(self.joiner(late="plain"), [*history, feedback([(1, 0, 0, 1)], late=True)])
        assert [row[1:3] for row in rows] == [(0.0, 1.0), (1.0, 1.0)]

    def test_measures_count_each_row_once_with_its_true_label_in_the_end(self):
        joiner, counted = self.joiner(keep_negatives=0.5), {}
        keys = [(0, index) for index in range(60)]
        shown = [impressions(keys), feedback([(1, *key, np.nan) for key in keys], time=100.0)]
        late = feedback([(1, 0, index, 1) for index in range(40)], late=True)
        for sequence, record in enumerate([*shown, Tick(110.0), late], 1):
            made = joiner.push(sequence, record)
            if made is None:
                continue
            rows, labels, weights = made.measured()
            for row, label, weight in zip(made.columns["id"][rows], labels, weights, strict=True):
                key = int(row) - 100_000, float(label)
                counted[key] = counted.get(key, 0.0) + weight
        for index in range(60):
            negative = 2.0 if index >= 40 and kept((1, 0, index), 0.5) else 0.0
            assert counted.get((index, 0.0), 0.0) == negative
            assert counted.get((index, 1.0), 0.0) == (index < 40)

    def test_a_showing_whose_row_cannot_be_found_when_its_window_closes_is_counted(self):
        joiner = self.joiner(max_bytes=1)
        assert run(joiner, [impressions([(0, 0), (0, 1)]), feedback([(1, 0, 0, np.nan)]), impressions([(1, 0)])]) == []
        assert joiner.unmatched == 0
        assert run(joiner, [Tick(500.0)], 4) == []
        assert joiner.unmatched == 1

    def test_the_state_is_24_bytes_a_showing_however_wide_the_impressions_are(self):
        joiner, keys = self.joiner(), [(0, index) for index in range(1000)]
        run(joiner, [impressions(keys), feedback([(1, *key, np.nan) for key in keys], time=100.0)])
        assert sum(array.nbytes for array in joiner.state().values()) < 24 * 1000 + 100

    def test_whether_a_row_of_some_requests_is_yet_to_mature(self):
        joiner = self.joiner()
        run(joiner, [impressions([(0, 0), (1, 0)]), feedback([(1, 0, 0, np.nan), (1, 1, 0, np.nan)]), feedback([(1, 1, 0, 1)])])
        within = joiner.showings.within
        assert within({1: (0, 0)})
        assert not within({1: (1, 5), 2: (0, 9)})

    def test_a_showing_that_comes_after_a_later_tick_has_its_window_from_that_tick_on(self):
        joiner = self.joiner()
        assert run(joiner, [impressions([(0, 0)]), Tick(500.0), feedback([(1, 0, 0, np.nan)], time=100.0), Tick(509.0)]) == []
        assert len(run(joiner, [Tick(510.0)])) == 1

    def test_a_clock_that_goes_back_does_nothing(self):
        joiner = self.joiner()
        run(joiner, [impressions([(0, 0)]), Tick(500.0), Tick(3.0), feedback([(1, 0, 0, np.nan)], time=4.0)])
        assert run(joiner, [Tick(15.0)]) == []
        assert len(run(joiner, [Tick(510.0)])) == 1

    def test_silence_needs_a_window_and_explicit_labels_have_none(self):
        with pytest.raises(ConfigurationError, match="silence needs a window"):
            Joiner("silence")
        with pytest.raises(ConfigurationError, match="explicit labels have none"):
            Joiner("explicit", WINDOW)
        with pytest.raises(ConfigurationError, match="labels is 'clicks'; expected one of explicit, silence"):
            Joiner("clicks")


def kept(key, keep):
    """Whether a negative of (incarnation, request, index) is kept, in Python's own integers."""

    def mixed(x):
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    odd, (incarnation, request, index) = 0x9E3779B97F4A7C15, key
    return (mixed((mixed(incarnation * odd % 2**64) + (request * 2**20 + index) * odd) % 2**64) >> 11) / 2**53 < keep


class Slow:
    """The same rules with a dictionary and a list, row by row."""

    def __init__(self, labels, window, relabels, max_bytes, late, keep):
        self.window, self.relabels, self.late, self.keep = window, relabels, late, keep
        self.rows, self.shown, self.tick = {}, {}, 0.0
        self.matured, self.labelled = set(), set()
        self.negatives = [0, 0]

    def example(self, key, label, late=False):
        """Return (id, label, weight, importance, taken back) of a row, where it becomes an example."""
        _, name, logit = self.rows[key]
        p, keep = 1 / (1 + np.exp(-logit)), self.keep
        share = p + keep * (1 - p)
        if label == 0:
            self.negatives[kept(key, keep)] += 1
            return [(name, 0.0, 1 / share, 1 / keep, 0.0)] if kept(key, keep) else []
        if late and kept(key, keep):
            return [(name, 1.0, min(1 / (1 - p), 10.0) if self.late == "weighted" else keep / share, 1.0, 1 / keep)]
        return [(name, 1.0, keep / share, 1.0, 0.0)]

    def push(self, sequence, record):
        out = []
        if isinstance(record, Impressions):
            for i, (request, index) in enumerate(zip(record.request.tolist(), record.index.tolist(), strict=True)):
                key = record.incarnation, request, index
                self.rows[key] = sequence, int(record.columns["id"][i]), float(record.corrected[i, 0])
        elif isinstance(record, Tick) and self.window is not None:
            self.tick = max(self.tick, record.time)
            for key in [key for key, shown in self.shown.items() if shown + self.window <= self.tick]:
                del self.shown[key]
                self.matured.add(key)
                out += self.example(key, 0.0)
        elif isinstance(record, Feedback):
            parts = record.incarnation, record.request, record.index, record.label, record.time, record.late
            for *key, label, time, late in zip(*(p.tolist() for p in parts), strict=True):
                key = tuple(key)
                if np.isnan(label):
                    if self.window is not None and key not in self.matured | self.labelled:
                        self.shown[key] = max(time, self.tick)
                else:
                    out += self.example(key, label, late)
                    self.shown.pop(key, None)
                    self.labelled.add(key)
        return out


class TestNegativeSampling:
    KEYS = tuple((0, index) for index in range(400))

    def joined(self, label, **settings):
        joiner = Joiner(**settings)
        rows = run(joiner, [impressions(self.KEYS), feedback([(1, *key, label) for key in self.KEYS])])
        return joiner, rows

    def test_a_stated_share_of_the_negatives_is_kept_and_the_rest_has_had_its_label_all_the_same(self):
        joiner, rows = self.joined(0, keep_negatives=0.25)
        assert [row[0] - 100_000 for row in rows] == [index for _, index in self.KEYS if kept((1, 0, index), 0.25)]
        assert 70 < len(rows) < 130
        assert (joiner.kept_negatives, joiner.dropped_negatives) == (len(rows), 400 - len(rows))
        assert (joiner.waiting.rows, joiner.unmatched) == (0, 0)

    def test_positives_are_never_dropped(self):
        joiner, rows = self.joined(1, keep_negatives=0.01)
        assert [row[1] for row in rows] == [1.0] * 400
        assert (joiner.kept_negatives, joiner.dropped_negatives) == (0, 0)

    def test_a_zero_of_another_task_is_no_negative(self):
        assert self.joined(0, loss=Regression())[0].kept_negatives == 0

    def test_one_that_keeps_more_keeps_the_same_and_others_besides(self):
        less, more = ({row[0] for row in self.joined(0, keep_negatives=keep)[1]} for keep in (0.1, 0.3))
        assert less < more

    def test_a_record_of_which_nothing_is_kept_makes_no_examples(self):
        lost = next(index for _, index in self.KEYS if not kept((1, 0, index), 0.5))
        joiner = Joiner(keep_negatives=0.5)
        joiner.push(1, impressions(self.KEYS))
        assert joiner.push(2, feedback([(1, 0, lost, 0)])) is None
        assert (joiner.waiting.rows, joiner.unmatched, joiner.dropped_negatives) == (399, 0, 1)

    def test_every_negative_is_learned_with_weight_one_where_all_are_kept(self):
        assert {(row[2], *row[7:9]) for row in self.joined(0)[1]} == {(1.0, 1.0, 0.0)}

    def test_a_late_positive_takes_back_its_negative_where_that_was_kept_and_else_is_a_positive_like_any_other(self):
        keep = 0.5
        shown = [impressions(self.KEYS), feedback([(1, *key, np.nan) for key in self.KEYS], time=100.0), Tick(110.0)]
        late = feedback([(1, *key, 1) for key in self.KEYS], late=True)
        rows = run(Joiner("silence", WINDOW, keep_negatives=keep), [*shown, late])
        negative = {row[0]: row[2] for row in rows if row[1] == 0}
        for row in rows[len(negative) :]:
            p = float(LOG_LOSS.inverse_link(row[5])[0, 0])
            positive = keep / (p + keep * (1 - p))
            # Where the bound does not bite, all that a row has been learned with is the gradient of its positive.
            if 1 / (1 - p) < LATE_WEIGHT_BOUND:
                assert negative.get(row[0], 0.0) * p + row[2] * (p - 1) == pytest.approx(positive * (p - 1), rel=1e-5)
            assert row[8] == (1 / keep if row[0] in negative else 0.0)

    def test_what_is_kept_is_decided_by_the_row_alone(self):
        keys = [(7, index) for index in range(100)]
        blocks = [impressions(keys, 1), impressions(keys, 2)]
        items = [(incarnation, *key, 0) for incarnation in (2, 1) for key in keys]
        rng = np.random.default_rng(0)
        ways = [items, [items[at] for at in rng.permutation(len(items))]]
        both = [{row[:3] for row in run(Joiner(keep_negatives=0.4), [*blocks, feedback(way)])} for way in ways]
        assert both[0] == both[1]
        assert {row[0] % 100 for row in both[0] if row[0] < 200_000} != {row[0] % 100 for row in both[0] if row[0] >= 200_000}


@st.composite
def histories(draw):
    """Records as a journal may hold them: feedback follows its impressions, a row is shown and labelled at most once."""
    silence, relabels = draw(st.booleans()), draw(st.booleans())
    rules = (
        relabels,
        draw(st.sampled_from([1, 3 * ROOM, 10**6])),
        draw(st.sampled_from(LATE)),
        draw(st.sampled_from([1.0, 0.6, 0.1])),
    )
    records, clock, waiting, fresh, next_request = [], 0.0, [], [], {1: 0, 2: 0}
    for _ in range(draw(st.integers(1, 25))):
        clock += draw(st.floats(0, 8))
        kind = draw(st.sampled_from(["impressions", "impressions", "feedback", "feedback", "tick"]))
        if kind == "impressions":
            incarnation = draw(st.sampled_from([1, 2]))
            keys = []
            for count in draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)):
                keys += [(next_request[incarnation], index) for index in range(count)]
                next_request[incarnation] += 1
            records.append(impressions(keys, incarnation, clock))
            fresh += [(incarnation, *key) for key in keys]
        elif kind == "tick":
            records.append(Tick(clock))
        else:
            items = []
            for _ in range(draw(st.integers(1, 6))):
                if fresh and draw(st.booleans()):
                    key = fresh.pop(draw(st.integers(0, len(fresh) - 1)))
                    items.append((*key, np.nan))
                    waiting.append(key)
                elif fresh or waiting:
                    source = draw(st.sampled_from([s for s in (fresh, waiting) if s]))
                    key = source.pop(draw(st.integers(0, len(source) - 1)))
                    items.append((*key, float(draw(st.integers(0, 1)))))
                    if relabels:
                        waiting.append(key)
            if items:
                records.append(feedback(items, clock, late=silence and draw(st.booleans())))
    return ("silence", WINDOW, *rules) if silence else ("explicit", None, *rules), records


@settings(max_examples=150)
@given(histories())
def test_it_agrees_with_the_slow_one(history):
    rules, records = history
    joiner, slow, expected = Joiner(*rules), Slow(*rules), []
    for sequence, record in enumerate(records, 1):
        expected += slow.push(sequence, record)
    found = run(joiner, records, journal=Journal())
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert np.allclose([(row[2], *row[7:9]) for row in found], [row[2:] for row in expected])
    assert joiner.unmatched == 0
    assert [joiner.dropped_negatives, joiner.kept_negatives] == slow.negatives


@settings(max_examples=100)
@given(histories(), st.data())
def test_one_that_goes_on_from_a_saved_state_does_the_same_to_the_last_bit(history, data):
    rules, records = history
    cut = data.draw(st.integers(0, len(records)))
    whole, first, second = (Joiner(*rules) for _ in range(3))
    journal = Journal()
    run(first, records[:cut], journal=journal)
    second.load({name: array.copy() for name, array in first.state().items()})
    assert second.unmatched == first.unmatched
    run(whole, records[:cut], journal=journal)
    assert run(second, records[cut:], cut + 1, journal) == run(whole, records[cut:], cut + 1, journal)
    assert same(whole.state(), second.state())


def same(left, right):
    return left.keys() == right.keys() and all(
        np.array_equal(left[n], right[n], equal_nan=left[n].dtype.kind == "f") for n in left
    )


@settings(max_examples=60)
@given(histories(), st.sets(st.integers(0, 60), max_size=20))
def test_where_a_row_cannot_be_read_now_nothing_has_changed_and_the_record_can_be_pushed_again(history, failing):
    rules, records = history
    reads = iter(range(10**6))

    class Flaky(Journal):
        def impressions(self, sequence):
            if next(reads) in failing:
                raise Unavailable("the disk cannot be read now")
            return super().impressions(sequence)

    never, now_and_then, journal = Joiner(*rules), Joiner(*rules), Flaky()
    now_and_then.waiting.limit = 1
    expected, found = run(never, records, journal=Journal()), []
    for sequence, record in enumerate(records, 1):
        while True:
            try:
                found += run(now_and_then, [record], sequence, journal)
                break
            except Unavailable:
                pass
    assert found == expected
    assert same(never.state(), now_and_then.state())


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 50), min_size=1),
    st.lists(st.integers(1, 50), min_size=1),
    st.sampled_from([1.0, 0.3]),
    st.integers(0, 2**32 - 1),
)
def test_how_rows_are_cut_into_records_changes_nothing(scored, fed, keep, seed):
    rng = np.random.default_rng(seed)
    keys = [(request, index) for request in range(40) for index in range(int(rng.integers(1, 5)))]
    items = [(1, *keys[at], float(rng.integers(0, 2))) for at in rng.permutation(len(keys))[: len(keys) // 2]]
    shown = [(1, *key, np.nan) for key in keys[::2]]
    after = [(*item[:3], 1.0) for item in shown[::3] if item[:3] not in {item[:3] for item in items}]

    def cut(rows, sizes, make):
        at, records = 0, []
        while at < len(rows):
            size = sizes[len(records) % len(sizes)]
            records.append(make(rows[at : at + size]))
            at += size
        return records

    def late(items):
        return feedback(items, late=True)

    whole, parts = (Joiner("silence", WINDOW, keep_negatives=keep) for _ in range(2))
    expected = run(whole, [impressions(keys), feedback(shown), feedback(items), Tick(20.0), late(after)])
    records = cut(keys, scored, impressions) + cut(shown, fed, feedback) + cut(items, fed, feedback)
    assert run(parts, [*records, Tick(20.0), *cut(after, fed, late)]) == expected
    assert np.array_equal(whole.state()["counts"], parts.state()["counts"])


def test_its_state_survives_a_checkpoint_and_holds_no_impressions(tmp_path):
    joiner, journal = Joiner(), Journal()
    for request in range(200):
        run(joiner, [impressions([(request, index) for index in range(50)])], 2 * request + 1, journal)
        run(joiner, [feedback([(1, request, index, 1) for index in range(49)])], 2 * request + 2, journal)
    store = CheckpointStore(FolderRegistry(tmp_path))
    store.save(400, joiner.state())
    assert sum(array.nbytes for array in joiner.state().values()) < 100
    again = Joiner()
    again.load(store.load().arrays)
    assert same(again.state(), joiner.state())
    assert len(run(again, [feedback([(1, request, 49, 1) for request in range(200)])], 401, journal)) == 200


def test_impressions_with_other_columns_than_those_before_are_named():
    joiner, other = Joiner(), impressions([(1, 0)])
    joiner.push(1, impressions([(0, 0)]))
    del other.columns["vec"]
    with pytest.raises(Corrupt, match=r"impressions have the columns .*; expected .*column/vec float32\[2\]"):
        joiner.push(2, other)


def test_a_column_that_nothing_reads_may_come_and_go_between_workers():
    joiner, other = Joiner(reads=("id",)), impressions([(0, 0)], 2)
    del other.columns["vec"]
    joiner.push(1, impressions([(0, 0)], 1))
    joiner.push(2, other)
    made = joiner.push(3, feedback([(1, 0, 0, 1), (2, 0, 0, 1)]))
    assert made.columns.keys() == {"id"}
    assert made.columns["id"].tolist() == [100_000, 200_000]


def test_workers_that_journal_different_columns_are_named():
    joiner, other = Joiner(), impressions([(0, 0)], 2)
    del other.columns["vec"]
    joiner.push(1, impressions([(0, 0)], 1))
    joiner.push(2, other)
    with pytest.raises(Corrupt, match="differ in the columns column/vec"):
        joiner.push(3, feedback([(1, 0, 0, 1), (2, 0, 0, 1)]))


def test_columns_that_nothing_learns_from_take_no_memory_and_differ_as_they_like_also_where_rows_are_read_back():
    def wide(keys, length):
        rows = impressions(keys)
        return replace(rows, columns={**rows.columns, "history": np.ones((len(keys), 2, length), np.int32)})

    records = [wide([(0, 0), (0, 1)], 100), wide([(1, 0)], 200), feedback([(1, 0, 0, 1.0), (1, 1, 0, 0.0)])]
    plain = [*map(impressions, ([(0, 0), (0, 1)], [(1, 0)])), records[-1]]
    expected, lean = Joiner(), Joiner(unread=["history"])
    assert run(lean, records) == run(expected, plain) != []
    assert lean.bytes == expected.bytes
    small = Joiner(max_bytes=1, unread=["history"])
    assert run(small, records, journal=Journal()) == run(Joiner(), plain)
    assert small.waiting.read_back == 2
    assert small.bytes < 1000
