"""What a client is told of a failure: enough of its own faults, nothing of ours."""

import pytest

from riverdelta.bento.http import failure
from riverdelta.core.errors import NotFound, TooLarge


@pytest.mark.parametrize("kind", [NotFound, TooLarge])
def test_a_long_message_is_cut_and_its_status_stays(kind):
    shown = failure(kind("é" * 10_000), "score")
    assert (type(shown), shown.http_status, len(str(shown))) == (kind, kind.http_status, 801)


def test_a_short_one_is_itself():
    error = NotFound("there is no model 'x'")
    assert failure(error, "score") is error


def test_a_fault_of_ours_goes_to_the_log_and_not_to_the_client(caplog):
    shown = failure(KeyError("secret"), "feedback")
    assert "secret" not in str(shown)
    assert "feedback failed in the service" in str(shown)
    assert "secret" in caplog.text
    assert shown.http_status == 500
