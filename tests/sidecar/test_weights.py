"""Weights from the client to the tables: what is learned, measured and replayed."""

import asyncio

import numpy as np
import pytest

from riverdelta.core.records import Feedback


def feed(rig, weights, label, seed=0, times=None):
    """Score rows and label them; return the outcomes."""
    answer = rig.plane.score(rig.columns(len(weights), seed))
    ids = [f"{answer.impressions}.{i}" for i in range(len(weights))]
    labels = np.full(len(weights), label, np.float32)
    return asyncio.run(rig.plane.feedback(ids, labels, weights=weights, times=times)).outcomes


def test_labels_of_weight_0_are_accepted_and_leave_every_table_as_it_is(rig):
    before = rig.trainer.learner.stack.digest()
    assert set(feed(rig, [0.0] * 16, 1)) == {"accepted"}
    rig.step()
    learner = rig.trainer.learner
    assert (learner.examples, learner.stack.digest()) == (16, before)
    assert learner.prequential.report()["all"]["served"]["loss"] is None
    assert set(feed(rig, [1.0] * 16, 1)) == {"accepted"}
    rig.step()
    assert learner.stack.digest() != before


def test_measures_divide_by_the_sum_of_weights_and_count_rows(rig):
    weights = [0.5, 3.0, 0.0, 100.0]
    feed(rig, weights, 1)
    rig.step()
    (block,) = [r for _, r in rig.trainer.journal.read(0, 100) if hasattr(r, "served")]
    loss = np.logaddexp(0, -block.base[:, 0].astype(float))
    report = rig.trainer.learner.prequential.report()["all"]["base"]
    assert report["examples"] == 4
    assert report["loss"] == pytest.approx(np.average(loss, weights=weights), rel=1e-6)
    assert report["calibration_ratio"] == pytest.approx(np.average(np.exp(-loss), weights=weights), rel=1e-6)


def test_times_of_events_change_nothing_that_is_learned(rig, definition, tmp_path, make_rig):
    other, now = make_rig(definition, tmp_path / "other"), 1_000_000_000.0
    for each, times in ((rig, None), (other, [now, np.nan, now - 5, now])):
        each.now = now
        feed(each, [1.0, 2.0, 3.0, 4.0], 1, times=times)
        each.step()
    kept = [r for _, r in other.trainer.journal.read(0, 100) if isinstance(r, Feedback)]
    assert kept[0].event[[0, 2, 3]].tolist() == [now, now - 5, now]
    assert rig.trainer.learner.stack.digest() == other.trainer.learner.stack.digest()
    assert (other.plane.metrics._reported.within(0.3), rig.plane.metrics._reported.within(0.5)) == (1.0, None)


def test_a_restart_learns_the_rest_of_a_weighted_journal_to_the_same_bits(rig, definition, tmp_path, make_rig):
    whole = make_rig(definition, tmp_path / "whole")
    for each in (rig, whole):
        feed(each, np.linspace(0, 100, 24), 1, seed=1)
        each.step()
        if each is rig:
            each.restart()
        feed(each, np.linspace(5, 0, 24), 0, seed=2)
        each.step()
    assert rig.trainer.learner.stack.digest() == whole.trainer.learner.stack.digest()
