"""kill -9 at the learner: whatever was accepted is learned, once, and all its state is that of an undisturbed run."""

import pytest
from points import POINTS
from scene import plans


def test_the_plans_visit_every_named_point():
    assert {plan["point"] for plan in plans(300, seed=1) if "point" in plan} == set(POINTS)


@pytest.mark.parametrize("scene", [{"labels": "explicit", "seed": 1}, {"labels": "silence", "seed": 2}], indirect=True)
def test_ten_kills_inside_saves_and_at_random_moments_change_nothing(scene):
    reports = [scene.live(plan) for plan in plans(10, seed=3 if scene.labels == "silence" else 4)]
    began = [report["position"] for report in reports if report["position"] >= 0]
    assert began == sorted(began)
    assert any(report["hit"] in POINTS for report in reports)
    verdict = scene.verdict()
    assert verdict.failures == ()
    assert (verdict.lost, verdict.doubled, verdict.unmatched) == (0, 0, 0)
    assert verdict.position == verdict.last > began[-1] > 0
    if scene.labels == "explicit":
        assert verdict.examples == verdict.accepted > 0
    assert verdict.differing == ()


@pytest.mark.parametrize("scene", [{"task": "multiclass", "seed": 5}, {"task": "ranking", "seed": 6}], indirect=True)
def test_kills_at_scorers_of_classes_and_of_lists_lose_double_and_split_nothing(scene):
    assert any(scene.live(plan)["hit"] in POINTS for plan in plans(4, seed=4))
    verdict = scene.verdict()
    assert verdict.failures == ()
    assert (verdict.lost, verdict.doubled, verdict.unmatched) == (0, 0, 0)
    assert verdict.examples == verdict.accepted > 0
    assert verdict.differing == ()
