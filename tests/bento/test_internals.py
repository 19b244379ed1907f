"""BentoML's private parts: whatever is missing, or no longer what it was, is named at start-up with what to install."""

import re
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path

import bentoml
import bentoml_cli.serve  # noqa: F401 - a process of `bentoml serve` has it
import pytest

from riverdelta import online
from riverdelta.bento import internals
from riverdelta.bento.internals import REACHES, SUPPORTED, check, close_control_socket, timeout_of
from riverdelta.core.errors import ConfigurationError


def holder(reach):
    """The object, or the mapping of settings, that holds a thing, and the thing's name in it."""
    *path, name = reach.name.split(".")
    module = import_module(reach.module)
    found = attrgetter(reach.name)(module)
    if hasattr(found, "_path"):
        settings = module.BentoMLContainer.config.get()
        for part in found._path[:-1]:
            settings = settings[part]
        return settings, found._path[-1]
    owner = attrgetter(".".join(path))(module) if path else module
    return (type(owner) if path == ["BentoMLContainer"] else owner), name


def remove(patch, holder, name):
    (patch.delitem if isinstance(holder, dict) else patch.delattr)(holder, name)


def replace(patch, holder, name):
    (patch.setitem if isinstance(holder, dict) else patch.setattr)(holder, name, object())


@pytest.mark.parametrize("reach", REACHES, ids=lambda reach: reach.name)
@pytest.mark.parametrize("plant", [remove, replace])
def test_a_thing_that_is_gone_or_another_is_named_with_the_version_and_what_to_install(monkeypatch, plant, reach):
    with monkeypatch.context() as patch:
        plant(patch, *holder(reach))
        said = f"BentoML {version('bentoml')} has no {reach.module}.{reach.name} that is {reach.shape}"
        with pytest.raises(ConfigurationError, match=rf"^{re.escape(said)}, .*pip install 'bentoml{re.escape(SUPPORTED)}'$"):
            check()
    check()


def test_a_service_is_refused_at_its_import_where_a_thing_is_gone(monkeypatch, definition):
    monkeypatch.delattr("_bentoml_sdk.Service.to_asgi")
    with pytest.raises(bentoml.exceptions.BentoMLException, match=r"no _bentoml_sdk\.Service\.to_asgi"):

        @online(base=definition.base, logit="logit")
        class Scorer:
            pass


def test_the_timeout_is_the_service_s_own_and_settings_of_another_shape_are_named(monkeypatch):
    settings = import_module(REACHES[0].module).BentoMLContainer.config.get()
    monkeypatch.setitem(settings, "services", {"workers": None, "A": {"traffic": {"timeout": 5}}, "B": {"traffic": {}}})
    assert (timeout_of("A"), timeout_of("B")) == (5, None)
    for other in ({"A": {}}, {"A": {"traffic": 5}}, [], 5):
        monkeypatch.setitem(settings, "services", other)
        with pytest.raises(ConfigurationError, match=r"config\.services that is a setting with the traffic of A"):
            timeout_of("A")
    monkeypatch.delitem(settings, "services")
    with pytest.raises(ConfigurationError, match=r"config\.services that is"):
        timeout_of("A")


def test_a_process_that_the_command_line_did_not_start_does_not_import_it(monkeypatch):
    monkeypatch.delitem(internals.sys.modules, "bentoml_cli.serve")
    check()
    assert "bentoml_cli.serve" not in internals.sys.modules


def test_the_supervisor_s_control_socket_is_in_a_folder_of_its_user(monkeypatch):
    circus = import_module("bentoml._internal.utils.circus")
    monkeypatch.setattr(circus.Arbiter, "__init__", circus.Arbiter.__init__)
    for _ in range(2):
        close_control_socket()
    for threaded in (False, True):
        made = circus.create_standalone_arbiter([], threaded=threaded)
        places = [Path(place.removeprefix("ipc://")) for place in (made.endpoint, made.pubsub_endpoint)]
        folder = places[0].parent
        assert [place.parent for place in places] == [folder, folder]
        assert (folder.stat().st_mode & 0o777, list(folder.iterdir())) == (0o700, [])
        made.exit_stack.close()
        assert not folder.exists()
