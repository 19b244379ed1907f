"""Settings come from the environment, and a wrong one is refused by its variable."""

import pytest

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.settings import Settings, allowed, default


def test_a_setting_is_read_from_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path))
    monkeypatch.setenv("RIVERDELTA_MAX_ROWS", "12")
    settings = Settings.load()
    assert (settings.home, settings.max_rows) == (tmp_path, 12)


@pytest.mark.parametrize(
    ("name", "value", "said", "usual"),
    [
        ("MAX_ROWS", "0", "an integer above 0: export", "=16384"),
        ("MAX_ROWS", "many", "an integer above 0: export", "=16384"),
        ("GRPC_PORT", "70000", "an integer of at least 0 and at most 65535: export", "=3001"),
        ("ON_CONFLICT", "newest", "first, last or max: export", "=first"),
        ("LABELS", "implicit", "explicit or silence: export", "=explicit"),
        ("SWAP_MIN_SECONDS", "-1", "a number above 0 and at most 1e+09: export", "=0.05"),
        ("THRESHOLD", "1", "a number above 0 and below 1: export", "=0.5"),
        ("PROMOTE_MARGIN", "1", "a number above 0 and below 1: export", "=0.002"),
        ("WINDOW_SECONDS", "long", "a number above 0 and at most 1e+09: unset", ""),
        ("RELEASE_EXAMPLES", "-1", "an integer above 0: unset", ""),
        ("DRIFT_RUN_LENGTH", "3", "0, or a number of at least 64: export", "=10000000"),
        ("DRIFT_RUN_LENGTH", "inf", "a number of at least 0: export", "=10000000"),
        ("DRIFT_REFERENCE_EXAMPLES", "1025", "an integer of at least 1024 and a multiple of 64: export", "=8192"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed_and_the_line_to_type(monkeypatch, name, value, said, usual):
    monkeypatch.setenv(f"RIVERDELTA_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert str(caught.value) == f"RIVERDELTA_{name} is '{value}'; expected {said} RIVERDELTA_{name}{usual}"


@pytest.mark.parametrize(
    ("given", "lists", "said"),
    [
        ({}, True, "need explicit labels and a window: .* export RIVERDELTA_WINDOW_SECONDS=3600"),
        ({"labels": "silence", "window_seconds": 5.0}, True, "RIVERDELTA_LABELS is 'silence'"),
        ({"window_seconds": 5.0}, False, "explicit labels of rows have no window: unset RIVERDELTA_WINDOW_SECONDS"),
    ],
)
def test_lists_need_a_window_and_explicit_labels_of_rows_have_none(given, lists, said):
    with pytest.raises(ConfigurationError, match=said):
        Settings.load(**given).check_window(lists)


def test_a_rule_about_two_settings_names_both_and_shows_no_token(monkeypatch):
    monkeypatch.setenv("RIVERDELTA_ADMIN_TOKENS", "a-secret-of-the-shop")
    monkeypatch.setenv("RIVERDELTA_LABELS", "silence")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    said = str(caught.value)
    assert said.startswith("RIVERDELTA_LABELS is 'silence' and RIVERDELTA_WINDOW_SECONDS is None; silence needs a window")
    assert "secret" not in said


def test_a_link_of_kubernetes_in_a_setting_s_place_is_refused_with_how_to_switch_links_off(monkeypatch):
    monkeypatch.setenv("RIVERDELTA_GRPC_PORT", "tcp://10.0.0.1:50051")
    with pytest.raises(
        ConfigurationError, match=r"is 'tcp://.*; expected .*enableServiceLinks: false .* riverdelta-grpc,"
    ) as caught:
        Settings.load()
    assert str(caught.value).endswith("export RIVERDELTA_GRPC_PORT=3001")
    assert Settings.load(grpc_port=0).grpc_port == 0


def test_every_setting_has_a_group_a_description_and_values_that_its_default_is_one_of(monkeypatch):
    for name, field in Settings.model_fields.items():
        assert field.json_schema_extra["group"]
        assert field.description.endswith(".")
        assert allowed(name)
        if (usual := default(name)) is not None:
            monkeypatch.setenv(f"RIVERDELTA_{name.upper()}", usual)
    assert Settings.load() == Settings()
    assert Settings() == Settings.model_construct()


def test_an_argument_that_is_not_a_setting_is_refused_with_the_near_name():
    with pytest.raises(ConfigurationError, match=r"^treads= is not a setting: did you mean threads"):
        Settings.load(treads=3)


def test_a_wrong_argument_is_named_as_one_and_a_wrong_variable_as_one(monkeypatch):
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(grpc_port=99999)
    assert str(refused.value) == (
        "grpc_port= is 99999; expected an integer of at least 0 and at most 65535: write grpc_port=3001"
    )
    monkeypatch.setenv("RIVERDELTA_GRPC_PORT", "99999")
    with pytest.raises(ConfigurationError, match=r"^RIVERDELTA_GRPC_PORT is '99999'; .*: export RIVERDELTA_GRPC_PORT=3001$"):
        Settings.load()
    assert Settings.load(grpc_port=3002).grpc_port == 3002
