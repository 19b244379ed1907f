"""Settings come from the environment, and a wrong one is refused by its variable."""

import pytest

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.settings import Settings


def test_a_setting_is_read_from_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path))
    monkeypatch.setenv("RIVERDELTA_MAX_ROWS", "12")
    settings = Settings.load()
    assert (settings.home, settings.max_rows) == (tmp_path, 12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_ROWS", "0"),
        ("MAX_ROWS", "many"),
        ("GRPC_PORT", "70000"),
        ("ON_CONFLICT", "newest"),
        ("LABELS", "implicit"),
        ("SWAP_MIN_SECONDS", "-1"),
        ("THRESHOLD", "1"),
        ("PROMOTE_MARGIN", "1"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"RIVERDELTA_{name}", value)
    with pytest.raises(ConfigurationError, match=f"RIVERDELTA_{name} is '{value}'"):
        Settings.load()


@pytest.mark.parametrize("given", [{"labels": "silence"}, {"window_seconds": 5.0}])
def test_silence_and_its_window_go_together(given):
    with pytest.raises(ConfigurationError, match="silence needs a window, as RIVERDELTA_WINDOW_SECONDS=3600"):
        Settings.load(**given)


def test_a_rule_about_two_settings_names_both_and_shows_no_token(monkeypatch):
    monkeypatch.setenv("RIVERDELTA_ADMIN_TOKENS", "a-secret-of-the-shop")
    monkeypatch.setenv("RIVERDELTA_WINDOW_SECONDS", "3")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    said = str(caught.value)
    assert said.startswith("RIVERDELTA_LABELS is 'explicit' and RIVERDELTA_WINDOW_SECONDS is 3.0; silence needs a window")
    assert "secret" not in said
