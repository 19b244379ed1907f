"""Lists against a slow joiner that keeps dictionaries, and what must not change what is made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.features import Schema
from riverdelta.core.feedback import Feedback
from riverdelta.core.keys import indices
from riverdelta.core.losses import Ranking
from riverdelta.core.records import Impressions, Tick
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.stack import Stack
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.joiner.examination import FLOOR, Examination
from riverdelta.storage.journal.judge import Judge, Rules
from riverdelta.storage.log.base import Scored

WINDOW, ROWS, REQUESTS = 10.0, 4, 3
NAN = float("nan")


class Index:
    """An index with a few requests of one worker, and the feedback that is fed to it."""

    def __init__(self):
        self.fed, self.tick = {}, 0.0

    def fact(self, name):
        return {"first_window": WINDOW, "tick": self.tick}[name]

    def swept(self):
        return {}

    def find(self, request):
        return Scored(ROWS, {row: fed for (*at, row), fed in self.fed.items() if tuple(at) == request}, False)


def scored():
    request = np.repeat(np.arange(REQUESTS), ROWS)
    count, raw = len(request), np.arange(len(request), dtype=np.float32)
    zeros, index = np.zeros(count, np.int64), (np.arange(count) % ROWS).astype(np.int32)
    propensity = np.full(count, np.nan, np.float32)
    return Impressions(
        7, request, index, zeros * 1.0, zeros, zeros, zeros, raw, raw, raw, propensity, {"row": np.arange(count)}
    )


class Source:
    def locate(self, incarnation, request):
        return 1

    def impressions(self, sequence):
        return scored()


def asked(items, time, complete):
    request, row, label, weight, propensity, place = (np.array(column) for column in zip(*items, strict=True))
    ones = np.ones(len(items))
    label, weight = label.astype(np.float32), np.where(np.isnan(label), 1, weight).astype(np.float32)
    at = 7 * ones.astype(np.int64), request, row.astype(np.int32), label, time * ones, ones > 1, ones.astype(np.int64)
    return Feedback(*at, weight, None, propensity.astype(np.float32), place.astype(np.int32), ones == complete)


def judged(index, feedback, rules):
    """Return the outcomes of feedback and the records that the journal gets."""
    judge = Judge(index, rules)
    outcomes, records = judge.judge(feedback), list(judge.records())
    index.fed |= judge.fed()
    return outcomes, records


class Plain:
    """The rules of lists, one item at a time."""

    def __init__(self, policy):
        self.policy, self.open, self.gone, self.tick, self.made = policy, {}, {}, 0.0, []

    def feed(self, items, time, complete):
        outcomes, late = [], {}
        for request, row, label, weight, propensity, place in items:
            known = self.gone.get(request)
            rows = known if known is not None else self.open.setdefault(request, {})
            before = rows.get(row)
            shown = np.isnan(label)
            if before is not None and (shown or before["label"] == label):
                outcomes.append("duplicate")
            elif not shown and before is not None and before["label"] is not None and not self.replaces(label, before["label"]):
                outcomes.append("conflict")
            elif known is not None and shown:
                outcomes.append("late")
            else:
                new = dict(before or {"label": None, "propensity": NAN, "place": -1, "weight": 1.0})
                new["due"] = min(max(time, self.tick) + WINDOW, new.get("due", np.inf))
                if not shown:
                    new |= {"label": label, "weight": weight}
                if not np.isnan(propensity):
                    new["propensity"] = propensity
                if place >= 0:
                    new["place"] = place
                if known is not None:
                    if label > 0 and not (before and before["label"]):
                        given = {"weight": weight, "propensity": propensity, "label": label}
                        late.setdefault(request, {})[row] = given
                    outcomes.append("late")
                else:
                    outcomes.append("accepted")
                rows[row] = new
        if complete:
            for request in dict.fromkeys(item[0] for item in items):
                if self.open.get(request):
                    self.close(request)
        for request, labels in late.items():
            self.learn({row: labels.get(row, {"label": None}) for row in self.gone[request]}, request)
        return outcomes

    def replaces(self, label, before):
        return {"first": False, "last": True, "max": label > before}[self.policy]

    def pass_to(self, tick):
        self.tick = max(self.tick, tick)
        due = {request: min(row["due"] for row in rows.values()) for request, rows in self.open.items() if rows}
        for request in [request for request in self.open if due.get(request, np.inf) <= self.tick]:
            self.close(request)

    def close(self, request):
        rows = self.open.pop(request)
        self.gone[request] = rows
        self.learn(rows, request)

    def learn(self, rows, request):
        if any(row["label"] for row in rows.values()):
            made = set()
            for at, row in rows.items():
                weight = row.get("weight", 1.0) / max(one_if_none(row.get("propensity", NAN)), 0.01)
                made.add((request * ROWS + at, row["label"] or 0.0, np.float32(min(weight, 100.0))))
            self.made.append(sorted(made))


def one_if_none(propensity):
    return 1.0 if np.isnan(propensity) else float(np.float32(propensity))


ITEM = st.tuples(
    st.integers(0, REQUESTS - 1), st.integers(0, ROWS - 1), st.sampled_from([NAN, 0.0, 1.0, 2.0]),
    st.sampled_from([1.0, 0.5]), st.sampled_from([NAN, 0.5, 0.004]), st.sampled_from([-1, 2]),
)  # fmt: skip
STEP = st.one_of(
    st.tuples(st.lists(ITEM, min_size=1, max_size=5), st.booleans()), st.floats(0, 8).map(lambda seconds: (None, seconds))
)


def lists_of(examples):
    if examples is None:
        return []
    made = zip(examples.group, examples.columns["row"], examples.label, examples.weight, strict=True)
    by_list = {}
    for group, *row in made:
        by_list.setdefault(int(group), []).append((int(row[0]), float(row[1]), row[2]))
    assert list(by_list) == sorted(by_list)
    return list(by_list.values())


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(STEP, max_size=12), policy=st.sampled_from(["first", "last", "max"]), memory=st.sampled_from([1, 1 << 20])
)
def test_lists_are_those_of_the_plain_rules_restarted_between_any_two_records(steps, policy, memory):
    rules, index, plain = Rules(policy, WINDOW, lists=True), Index(), Plain(policy)

    def fresh():
        joiner = Joiner(window_seconds=WINDOW, max_bytes=memory, loss=Ranking(grades=2))
        joiner.waiting.source = Source()
        return joiner

    straight, restarted, now, made, again = fresh(), fresh(), 0.0, [], []
    records = [scored()]
    for items, more in steps:
        if items is None:
            now += more
            index.tick = max(index.tick, now)
            plain.pass_to(now)
            records.append(Tick(now))
        else:
            outcomes, kept = judged(index, asked(items, now, more), rules)
            assert list(map(str, outcomes)) == plain.feed(items, now, more)
            records += kept
    for record in records:
        made += lists_of(straight.push(1, record))
        if not isinstance(record, Impressions):
            other = fresh()
            other.load(restarted.state())
            restarted = other
        again += lists_of(restarted.push(1, record))
    assert made == again
    assert sorted(made) == sorted(plain.made)
    assert straight.lists.report()["items"] == restarted.lists.report()["items"]


def push(joiner, items, complete=False, time=1.0, late=False):
    feedback = asked(items, time, complete)
    feedback.late[:] = late
    return joiner.push(2, feedback)


@pytest.fixture
def joiner():
    made = Joiner(window_seconds=WINDOW, loss=Ranking(positions=3))
    made.push(1, scored())
    return made


def test_a_list_without_a_click_and_rows_never_shown_teach_nothing(joiner):
    assert push(joiner, [(0, 0, NAN, 1, NAN, -1), (0, 1, 0.0, 1, NAN, -1)], complete=True) is None
    examples = push(joiner, [(1, 3, 1.0, 1, NAN, -1), (1, 0, NAN, 1, NAN, -1)], complete=True)
    assert examples.columns["row"].tolist() == [4, 7]
    assert (joiner.lists.empty, joiner.lists.lists) == (1, 1)


def test_a_late_label_is_an_example_of_its_list_and_all_have_the_gradient_of_the_complete_list(joiner):
    loss, weight = joiner.loss, 0.5
    shown = [(0, row, NAN, 1, NAN, -1) for row in range(3)]
    first = push(joiner, [*shown, (0, 0, 1.0, 1, NAN, -1)], complete=True)
    joiner.waiting.source = Source()
    later = push(joiner, [*shown[:2], (0, 2, 1.0, weight, NAN, -1)], late=True)
    raw = np.array([0.3, -1.0, 2.0])
    parts = [loss.derivatives(raw, e.label, e.weight)[0] for e in (first, later)]
    complete = loss.derivatives(raw, [1, 0, 1], [1, 1, weight])[0]
    np.testing.assert_allclose(sum(parts), complete, atol=1e-7)
    assert later.columns["row"].tolist() == [0, 1, 2]
    assert joiner.lists.late == 1


def test_a_list_whose_first_row_is_forgotten_closes_once_at_the_window_of_the_rest(joiner):
    push(joiner, [(0, 0, NAN, 1, NAN, -1)], time=1.0)
    push(joiner, [(0, 1, NAN, 1, NAN, -1), (0, 2, 1.0, 1, NAN, -1)], time=5.0)
    assert joiner.lists.forget(lambda incarnation, key: indices(key) == 0) == 1
    assert joiner.push(3, Tick(1.0 + WINDOW)) is None
    examples = joiner.push(4, Tick(5.0 + WINDOW))
    assert examples.columns["row"].tolist() == [1, 2]
    assert joiner.push(5, Tick(100.0)) is None
    assert joiner.lists.lists == 1


def test_propensities_go_with_the_rows_that_are_learned_and_are_at_least_a_hundredth(joiner):
    examples = push(joiner, [(0, 0, 1.0, 2, 0.5, -1), (0, 1, NAN, 1, NAN, -1), (0, 2, NAN, 1, 0.001, -1)], complete=True)
    np.testing.assert_allclose(examples.propensity, [0.5, 1, 0.01])
    np.testing.assert_allclose(examples.weight, [4, 1, 100])
    assert push(joiner, [(1, 0, 1.0, 2, NAN, -1), (1, 1, NAN, 1, 1.0, -1)], complete=True).propensity is None


def test_weights_beyond_100_are_clipped_and_counted(joiner):
    examples = push(joiner, [(0, 0, 1.0, 50, 0.1, -1), (0, 1, NAN, 1, 0.001, -1)], complete=True)
    assert examples.weight.tolist() == [100, 100]
    assert joiner.lists.clipped == 1


def simulated(theta, lists, rng):
    """Clicks on rows of known relevance in a noisy order, examined with probabilities `theta`: raw outputs and clicks."""
    raw = rng.normal(size=(lists, len(theta)))
    order = np.argsort(-(raw + rng.gumbel(size=raw.shape)), axis=1)
    raw = np.take_along_axis(raw, order, 1)
    shares = theta * np.exp(raw)
    clicked = (rng.random((lists, 1)) < np.cumsum(shares / shares.sum(1, keepdims=True), 1)).argmax(1)
    return raw, np.eye(len(theta), dtype=np.float32)[clicked]


def test_a_known_position_bias_is_recovered_within_a_tenth_and_survives_a_restart():
    theta, lists = 1.0 / np.arange(1, 7) ** 0.7, 4_000
    raw, clicks = simulated(theta, lists, np.random.default_rng(0))
    place, group = np.tile(np.arange(6), lists), np.repeat(np.arange(lists), 6)
    examination = Examination(6)
    half = lists // 2 * 6
    examination.update(place[:half], clicks.ravel()[:half], raw.ravel()[:half], group[:half])
    again = Examination(6)
    again.load(examination.state())
    for each in (examination, again):
        each.update(place[half:], clicks.ravel()[half:], raw.ravel()[half:], group[half:])
    found = examination.of(np.arange(6))
    assert np.abs(found - theta).max() < 0.1
    np.testing.assert_array_equal(found, again.of(np.arange(6)))
    assert np.isnan(examination.of(np.array([-1]))[0])


def test_a_row_is_examined_as_was_known_before_its_list_however_lists_come():
    raw, clicks = simulated(1.0 / np.arange(1, 5), 60, np.random.default_rng(1))
    given = np.tile(np.arange(4), 60), clicks.ravel(), raw.ravel(), np.repeat(np.arange(60), 4)
    together, apart = Examination(4), Examination(4)
    known = together.update(*given)
    for rows, found in zip(np.split(np.arange(240), 60), np.split(known, 60), strict=True):
        np.testing.assert_array_equal(found, apart.of(np.arange(4)))
        apart.update(*(each[rows] for each in given))
    assert known[:4].tolist() == [1.0] * 4


def simulated_ndcg(kind, noise, seed, items=6, lists=1_000):
    """The mean NDCG of items by an `Entity`, over the second half of lists that were shown in a noisy wrong order."""
    rng, place, group = np.random.default_rng(seed), np.arange(items), np.zeros(items, np.int64)
    relevance, shown, theta = np.linspace(1, -1, items), np.linspace(-3, 3, items), 1.0 / np.arange(1, items + 1)
    gains, discount, found = np.exp(relevance), 1.0 / np.log2(np.arange(2, items + 2)), []
    stack, examination = Stack(Entity("item", slots=64), Ranking()), Examination(items)
    stack.bind(Schema.of({"item": "int64"}))
    for number in range(lists):
        order = np.argsort(-(shown + noise * rng.gumbel(size=items)))
        click = rng.choice(items, p=(shares := theta * np.exp(relevance[order])) / shares.sum())
        label, columns, base = np.eye(items, dtype=np.float32)[click], {"item": order}, np.zeros((items, 1), np.float32)
        propensity = {"known": theta, "learned": examination.of(place), "ignored": np.ones(items)}[kind].astype(np.float32)
        raw = stack.learn(columns, base, label, 1 / propensity, group, propensity)
        examination.update(place, label, raw, group)
        if number >= lists // 2:
            score = np.empty(items)
            score[order] = raw[:, 0]
            found.append((gains[np.argsort(-score)] * discount).sum() / (gains * discount).sum())
    return float(np.mean(found))


def test_known_and_learned_examination_order_items_better_than_clicks_as_they_are():
    found = {kind: [simulated_ndcg(kind, 1.0, seed) for seed in range(2)] for kind in ("known", "learned", "ignored")}
    assert min(found["known"]) > 0.99, found
    assert min(found["learned"]) > 0.97, found
    assert np.mean(found["learned"]) > np.mean(found["ignored"]) + 0.005, found


def test_a_position_that_is_never_clicked_keeps_the_least_probability():
    examination, rows = Examination(2), np.array([0, 1])
    for _ in range(3_000):
        examination.update(rows, np.float32([1, 0]), np.zeros(2), np.zeros(2, np.int64))
    assert examination.of(np.array([1, 5])).tolist() == [FLOOR, FLOOR]
