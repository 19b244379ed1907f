"""Health: one sentence that is true of what serves now, whatever happened before."""

import pytest

from riverdelta.core.losses import LOG_LOSS
from riverdelta.serving.health import health

ROLLBACK = {"action": "rollback", "release": 3, "position": 9, "time": 60.0}
AFTER = " since the rollback to release 3 at 1970-01-01 00:01 UTC"


def of(lower, upper, labels=5_000, since=None, auc=(None, None), **learning):
    gain = {"mean": (lower + upper) / 2, "lower": lower, "upper": upper}
    base, served = ({"auc": one} for one in auc)
    worth = {"gain": gain, "labels": labels, "since": since, "base": base, "served": served}
    return health({"sidecar": {"alive": True}, "learning": {"position": 1, "worth": worth, **learning}})


def test_a_service_says_that_it_is_starting_until_the_learner_is_late():
    assert health({"state": "0+0"}, up=5.0).sentence == "Starting: waiting for the learner's first report."
    late = health({"state": "0+0"}, up=95.0)
    assert (late.level, late.sentence) == ("bad", "The learner has not reported in 95 s since the start.")


@pytest.mark.parametrize("learner", [{}, {"sidecar": {"alive": False, "silent_seconds": 95.0}, "learning": {"position": 7}}])
def test_a_journal_that_cannot_be_written_is_said_before_anything_about_the_learner(learner):
    found = health({"state": "0+0", "journal": {"error": "it is read-only"}} | learner, up=5.0)
    assert (found.level, found.sentence) == ("bad", "The journal cannot be written: it is read-only")


def test_a_learner_that_is_down_or_paused_is_named_with_the_reason():
    down = {"sidecar": {"alive": False, "silent_seconds": 95.0}}
    assert health(down | {"learning": {"stopped": True}}).sentence == "The learner is down: it was asked to stop."
    silent = health(down | {"learning": {"paused": "no space left"}})
    assert silent.sentence == "The learner is down: it has not reported for 95 s."
    assert "It had paused: no space left." in silent.more
    again = {"relearning": {"since": 100, "position": 150, "until": 300}}
    assert "25% is done" in health({"sidecar": {"alive": True}, "learning": again}).sentence


def test_a_report_dated_in_the_future_is_neither_alive_nor_down():
    sidecar = {"alive": False, "silent_seconds": None, "ahead_seconds": 3_600.0}
    found = health({"sidecar": sidecar, "learning": {"position": 1}})
    assert found.level == "bad"
    assert found.sentence == "Whether the learner runs is unknown: its last report is dated 3,600 s in the future."
    assert "clock" in found.more


def test_before_the_first_label_it_says_what_it_waits_for():
    learning = {"position": 1, "waiting_rows": 1_234, "worth": {"labels": 0, "since": None}}
    found = health({"sidecar": {"alive": True}, "learning": learning})
    assert found.sentence == "Learning: waiting for the first label."
    assert "1,234 scored rows wait" in found.more
    learning["worth"]["since"] = ROLLBACK
    found = health({"sidecar": {"alive": True}, "learning": learning})
    assert found.sentence == "Learning: waiting for the first label since the rollback."
    assert AFTER in found.more


@pytest.mark.parametrize(("labels", "number"), [(1, "1 label"), (2, "2 labels"), (99, "99 labels")])
def test_a_gain_over_a_handful_of_labels_is_not_reported(labels, number):
    found = of(-2.0, 2.0, labels=labels)
    assert found.sentence == f"Learning: {number}, too few to say whether the corrections help."
    assert found.more == f"The gain is reported from 100 labels on; so far {number}."


@pytest.mark.parametrize("action", ["rollback", "promote", "rebase"])
def test_few_labels_of_the_tables_that_serve_now_are_called_too_few(action):
    found = of(-0.1, 0.3, labels=128, since=ROLLBACK | {"action": action})
    name = {"promote": "promotion"}.get(action, action)
    assert found.sentence == f"Learning: 128 labels since the {name}, too few to say whether the corrections help."
    assert found.more.startswith(
        "So far the corrections save 0.1000 nats of log loss a row (-0.1000 to 0.3000) over 128 labels since the"
    )


def test_a_gain_a_loss_and_neither_are_said_with_the_number_of_labels():
    saved = "The corrections save 0.1500 nats of log loss a row (0.1000 to 0.2000) over 5,000 labels."
    assert of(0.1, 0.2) == ("good", "Healthy: the corrections help.", saved)
    cost = of(-0.2, -0.1)
    assert (cost.level, cost.sentence) == ("warn", "Learning: the corrections cost more than they gain.")
    assert "The corrections lose 0.1500 nats of log loss a row (0.1000 to 0.2000) over 5,000 labels." in cost.more
    assert of(-0.1, 0.1).sentence == "Learning: the corrections neither help nor hurt clearly."
    assert of(0.1, 0.2, serve="base").sentence == "Shadow mode: the corrections would help."
    assert of(-0.2, -0.1, serve="base").more.startswith("The corrections would lose")


@pytest.mark.parametrize(("ends", "auc", "moves"), [((0.1, 0.2), (0.72, 0.70), "falls"), ((-0.2, -0.1), (0.70, 0.72), "rises")])
def test_an_auc_that_moves_against_the_loss_is_said_in_words(ends, auc, moves):
    found = of(*ends, auc=auc)
    assert found.level == "warn"
    assert f"AUC {moves} from {auc[0]:.4f} to {auc[1]:.4f} while the {LOG_LOSS.name} gets" in found.more
    assert "help" not in found.sentence
    assert "AUC" not in of(*ends, auc=auc[::-1]).more


def test_a_frozen_or_drifted_learner_says_the_gain_as_well():
    drifted = {"drift": {"alarmed": True}}
    for learning, sentence in (({"frozen": True}, "Learning is frozen."), (drifted, "The stream has drifted.")):
        found = of(0.1, 0.2, **learning)
        assert found.sentence == sentence
        assert "over 5,000 labels" in found.more
    assert of(0.1, 0.2, admission={"open": True, "reason": "a flood"}).sentence == "The breaker is open: a flood."


def test_an_open_breaker_says_how_many_are_held_since_when_and_the_two_lines_to_type():
    held = {"rows": 1_234, "since": 60.0, "dropped": 0}
    found = of(0.1, 0.2, admission={"open": True, "reason": "a flood"}, held=held)
    assert found.more == (
        "Nothing is learned, and 1,234 examples are held since 1970-01-01 00:01 UTC. To learn them in order, type "
        "`riverdelta resume`; to drop them, `riverdelta resume --skip`."
    )
    full = of(0.1, 0.2, admission={"open": True, "reason": "a flood"}, held=held | {"dropped": 56})
    assert "RIVERDELTA_HELD_BYTES was full, and 56 older ones were dropped." in full.more
