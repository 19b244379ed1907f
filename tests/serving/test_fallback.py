"""Fallback: a row without a score is counted, named, and answered as the settings say; what is journalled of it is true."""

import asyncio
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from riverdelta.core.errors import NotFinite
from riverdelta.core.records import Impressions
from riverdelta.learning.commands import Release
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.operator import Operator
from riverdelta.storage.impression import find

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig
from not_a_number import learn, rows, scorer


@pytest.fixture
def rig(tmp_path, request):
    made = Rig(scorer(tmp_path), tmp_path / "home", **getattr(request, "param", {}))
    yield made
    made.close()


def given(**settings):
    return pytest.mark.parametrize("rig", [settings], indirect=True)


def counted(rig):
    return [rig.plane.metrics._not_finite.labels(scorer)._value.get() for scorer in ("base", "served")]


def journalled(rig):
    rig.plane.journal.feedback(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0, np.float32), 0.0).result(5)
    return [r for _, r in rig.trainer.journal.read(0, 100) if isinstance(r, Impressions)]


def test_by_default_a_row_without_a_score_is_nan_beside_the_others_counted_and_logged_once(rig, caplog):
    learn(rig.plane.session)
    with caplog.at_level(logging.WARNING):
        answers = [rig.plane.score(rows(0, 1, 2)) for _ in range(3)]
    assert [np.isnan(a.scores).tolist() for a in answers] == [[False, True, True]] * 3
    assert answers[0].scores[0] == rig.plane.score(rows(0)).scores[0]
    assert counted(rig) == [3, 6]
    (said,) = [record.message for record in caplog.records]
    assert "row 1 has no score: the base's output is nan" in said
    assert "riverdelta_rows_not_finite_total" in said


@given(not_finite="error")
def test_as_an_error_the_row_is_named_with_what_to_do_and_nothing_is_journalled(rig):
    learn(rig.plane.session)
    for which, said in (
        ((0, 1), "row 1 has no score: the base's output is nan;"),
        ((0, 0, 2), "row 2 .* is 0.5, .* output is nan"),
    ):
        with pytest.raises(NotFinite, match=rf"{said}.* RIVERDELTA_NOT_FINITE=null"):
            rig.plane.score(rows(*which))
    assert journalled(rig) == []
    assert counted(rig) == [1, 2]
    assert np.isfinite(rig.plane.score(rows(0)).scores).all()


@given(not_finite="champion")
def test_the_champion_scores_what_the_live_tables_cannot_and_the_journal_has_its_logit(rig):
    learn(rig.plane.session)
    answer = rig.plane.score(rows(0, 2))
    # Release 0, the champion, has learned nothing: its score is the base's.
    assert answer.scores[1] == pytest.approx(1 / (1 + np.exp(-0.5)))
    (record,) = journalled(rig)
    assert record.served[:, 0].tolist() == pytest.approx(np.log(answer.scores / (1 - answer.scores)).tolist(), abs=1e-6)
    assert np.isfinite(record.corrected[:, 0]).tolist() == [True, False]
    shown = find(rig.trainer.home, f"{answer.impressions}.1")
    assert (shown["logits"]["corrected"], shown["scores"]["corrected"]) == (None, None)
    assert shown["scores"]["served"] == pytest.approx(answer.scores[1])
    assert counted(rig) == [0, 1]
    with pytest.raises(NotFinite, match="row 0 has no score: the base's output is nan; "):
        rig.plane.score(rows(1))


@given(not_finite="champion")
def test_the_champion_s_session_is_opened_once_and_anew_after_a_promotion(rig, caplog):
    learn(rig.plane.session)
    with caplog.at_level(logging.INFO, "riverdelta.serving.fallback"):
        for _ in range(3):
            rig.plane.score(rows(2))
        assert [r.message for r in caplog.records if "beside the live tables" in r.message] == [
            "release 0, the champion, is loaded beside the live tables to score rows whose score is NaN"
        ]
        operator = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now)
        answer = rig.plane.score(rows(0))
        asyncio.run(rig.plane.feedback([f"{answer.impressions}.0"], np.ones(1, np.float32)))
        operator.ask(Release())
        rig.step()
        rig.trainer.releases.store.promote(1)
        rig.plane.score(rows(2))
        assert "release 1, the champion" in caplog.records[-1].message


@given(not_finite="champion")
def test_a_champion_that_has_no_score_or_cannot_be_read_is_an_error_that_says_so(rig, tmp_path):
    learn(rig.plane.session)
    release = rig.trainer.releases.store.champion()
    good = release.path.read_bytes()
    release.path.write_bytes(good[:-1])
    with pytest.raises(NotFinite, match=r"row 0 .*does not match its digest.*NOT_FINITE=null"):
        rig.plane.score(rows(2))
    release.path.write_bytes(good)
    rig.plane.score(rows(2))
    learn(rig.plane._fallback._session)
    with pytest.raises(NotFinite, match=r"row 1 .*the champion, release 0, has none either"):
        rig.plane.score(rows(0, 2))


@given(not_finite="champion", serve="base")
def test_in_shadow_mode_the_champion_serves_the_base_too(rig):
    learn(rig.plane.session)
    assert rig.plane.score(rows(2)).scores[0] == pytest.approx(1 / (1 + np.exp(-0.5)))


@pytest.mark.parametrize("rig", [{"not_finite": "null"}, {"not_finite": "champion"}], indirect=True)
def test_labels_of_such_rows_are_skipped_counted_and_replayed_alike_and_releases_go_on(rig):
    learn(rig.plane.session)
    which = (0, 0, 2, 0) if rig.settings.not_finite == "champion" else (0, 1, 2, 0)
    for seed in range(20):
        answer = rig.plane.score(rows(*which))
        labels = np.float32([1, 0, 1, seed % 2])
        asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(4)], labels))
    Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now).ask(Release())
    rig.step()
    learner = rig.trainer.learner
    report, gate = learner.prequential.report()["all"]["served"], learner.gate.report()
    # The champion's logits are what was served: they are measured, and no mixture of the gate's.
    assert (report["skipped"], report["examples"]) == ((0, 80) if rig.settings.not_finite == "champion" else (40, 40))
    assert gate["skipped"] == (20 if rig.settings.not_finite == "champion" else 40)
    assert all(np.isfinite(table.values).all() for table in learner.stack.tables().values())
    assert rig.trainer.releases.reason is None
    assert [release.number for release in rig.trainer.releases.store.all()] == [0, 1]
    segments = rig.trainer.home.reader()
    again = new_learner(rig.definition, rig.settings)
    for sequence, record in segments.read(0, 100_000):
        again.push(sequence, record)
    segments.close()
    assert again.stack.digest() == learner.stack.digest()
    assert again.prequential.report() == learner.prequential.report()
    assert again.gate.report() == gate
