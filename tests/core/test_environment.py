"""A variable that is almost a setting is refused with the setting's name, and only what means nothing at all is logged."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

from riverdelta.cli.main import main
from riverdelta.core.environment import TOOLS, check, edits, link
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.settings import Settings

SETTINGS = sorted(Settings.model_fields)
ROOT = Path(__file__).parents[2]
LETTERS = st.sampled_from("ABCXYZ_019")


@st.composite
def edited(draw, text):
    """A text after one insertion, deletion, change or swap of neighbours."""
    at, letter = draw(st.integers(0, len(text))), draw(LETTERS)
    before, after = text[:at], text[at:]
    swapped = before + after[1::-1] + after[2:]
    return draw(st.sampled_from([before + letter + after, before + after[1:], before + letter + after[1:], swapped]))


@given(st.data())
def test_any_two_edits_of_a_setting_are_refused_with_a_setting_and_without_the_value(data):
    setting = data.draw(st.sampled_from(SETTINGS))
    slip = data.draw(edited(data.draw(edited(setting.upper()))))
    assume(slip.lower() not in SETTINGS and slip not in TOOLS)
    with pytest.raises(ConfigurationError) as caught:
        check(SETTINGS, {f"RIVERDELTA_{slip}": "a-secret", "RIVERDELTA_HOME": "state"})
    said = str(caught.value)
    assert said.startswith(f"RIVERDELTA_{slip} is not a setting, but RIVERDELTA_")
    named = said.split("RIVERDELTA_")[2].split(" ")[0]
    assert named.lower() in SETTINGS
    assert edits(slip, named) <= edits(slip, setting.upper()) <= 2
    assert said.endswith(f'export RIVERDELTA_{named}="$RIVERDELTA_{slip}"; unset RIVERDELTA_{slip}')
    assert "secret" not in said


@given(st.text("AB", max_size=6), st.text("AB", max_size=6), st.text("AB", max_size=6))
def test_edits_are_a_distance(a, b, c):
    assert (edits(a, b) == 0) == (a == b)
    assert edits(a, b) == edits(b, a) <= edits(a, c) + edits(c, b)


@given(st.data())
def test_one_edit_is_at_most_one_edit_away(data):
    text = data.draw(st.text("ABC_", max_size=8))
    assert edits(text, data.draw(edited(text))) <= 1


def test_every_slip_is_named_at_once():
    with pytest.raises(
        ConfigurationError, match=r"RIVERDELTA_HOEM is not(.|\n)*riverdelta_max_row is not(.|\n)*RIVERDELTA_MAX_ROWS"
    ):
        check(SETTINGS, {"RIVERDELTA_HOEM": "a", "riverdelta_max_row": "1"})


LINKS = {
    "RIVERDELTA_PORT": "tcp://10.96.3.7:3000", "RIVERDELTA_SERVICE_HOST": "10.96.3.7", "RIVERDELTA_SERVICE_PORT": "3000",
    "RIVERDELTA_SERVICE_PORT_HTTP": "3000", "RIVERDELTA_PORT_3000_TCP": "tcp://10.96.3.7:3000",
    "RIVERDELTA_PORT_3000_TCP_PROTO": "tcp", "RIVERDELTA_PORT_3000_TCP_PORT": "3000",
    "RIVERDELTA_PORT_3000_TCP_ADDR": "10.96.3.7", "RIVERDELTA_GRAFANA_SERVICE_HOST": "10.96.3.8",
    "RIVERDELTA_HOM_PORT": "udp://10.96.3.8:53", "RIVERDELTA_NAME": "/web/riverdelta", "RIVERDELTA_ENV_PATH": "/usr/bin",
}  # fmt: skip


def test_links_to_services_settings_and_tools_are_passed_over_in_silence(caplog):
    settings = {f"RIVERDELTA_{name.upper()}": "" for name in SETTINGS} | {"riverdelta_home": ""}
    check(
        SETTINGS,
        LINKS | settings | dict.fromkeys([f"RIVERDELTA_{name}" for name in TOOLS], "") | {"HOEM": "", "RIVERDELTAX": ""},
    )
    assert caplog.text == ""


@pytest.mark.parametrize(("name", "value"), [("GRCP_PORT", "3001"), ("NAME", "shop"), ("GRPC_PRT", "3001")])
def test_a_slip_that_only_looks_like_a_link_is_none(name, value):
    assert link(name, value) is None
    with pytest.raises(ConfigurationError, match=f"RIVERDELTA_{name} is not a setting"):
        check(SETTINGS, {f"RIVERDELTA_{name}": value})


def test_what_means_nothing_is_logged_once_also_by_the_processes_that_are_started(caplog):
    environment = {"RIVERDELTA_WAITING_ROWS": "7", "RIVERDELTA_HOME": "state"}
    check(SETTINGS, environment)
    (line,) = caplog.messages
    assert line.startswith("RIVERDELTA_WAITING_ROWS is not a setting and is ignored: did you mean WAITING_BYTES")
    check(SETTINGS, environment)
    check(SETTINGS, dict(environment))
    assert len(caplog.messages) == 1
    check(SETTINGS, environment | {"RIVERDELTA_ANOTHER_THING": "1"})
    assert [line.split()[0] for line in caplog.messages] == ["RIVERDELTA_WAITING_ROWS", "RIVERDELTA_ANOTHER_THING"]


@pytest.mark.parametrize("command", [["releases"], ["sidecar"]])
def test_no_command_starts_with_a_slip_in_its_environment(command, tmp_path):
    environment = {"RIVERDELTA_HOME": str(tmp_path), "RIVERDELTA_HOEM": str(tmp_path)}
    done = CliRunner(env=environment).invoke(main, [*command, "--service", f"{ROOT / 'service' / 'service.py'}:Ranker"])
    assert done.exit_code == (os.EX_CONFIG if command == ["sidecar"] else 1)
    assert "RIVERDELTA_HOEM is not a setting, but RIVERDELTA_HOME is" in done.output
    assert list(tmp_path.iterdir()) == []
