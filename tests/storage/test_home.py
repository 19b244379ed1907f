"""A home belongs to one base and one stack: who it belongs to survives a torn file, and is not guessed."""

import logging
import os
import shlex
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from riverdelta import Calibration, Entity, Lookup
from riverdelta.core import digests, durable
from riverdelta.core.errors import ConfigurationError, ModelError, NotFound, Unavailable
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.storage.home import Home

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""
LARGE = """<ir_version: 8, opset_import: ["" : 17]>
large (int64[N] user) => (float[N] logit) { logit = Gather(w, user) }"""
DAMAGE = {"empty": b"", "torn": b"0123456789", "not text": b"\xff\xfe\x00", "missing": None}


@pytest.fixture
def home(tmp_path):
    """home(half, slots): the same folder, for a definition that may be another one."""

    def make(half="0.5", slots=256):
        path = tmp_path / f"ranker-{half}.onnx"
        onnx.save(onnx.parser.parse_model(RANKER.replace("0.5", half)), path)
        definition = Definition("ranker", path, "logit", corrections=[Calibration(), Entity("user", slots=slots)])
        return Home(definition, Settings.load(home=tmp_path / "my state"))

    return make


def damage(home, how):
    owner = home.folder / "owner"
    owner.unlink(missing_ok=True)
    if DAMAGE[how] is not None:
        owner.write_bytes(DAMAGE[how])


@pytest.mark.parametrize("how", DAMAGE)
def test_a_folder_without_releases_is_claimed_whatever_its_owner_holds(home, how):
    home().folder.mkdir(parents=True)
    damage(home(), how)
    home().prepare()
    assert (home().folder / "owner").read_text() == home().definition.fingerprint()


def test_a_lookup_with_other_contents_is_another_stack_and_a_folder_of_0_1_takes_the_first_that_serves_it(tmp_path):
    def home(value):
        path = tmp_path / "ranker.onnx"
        onnx.save(onnx.parser.parse_model(RANKER), path)
        likes = Lookup("likes", key="user", table={1: [value, 0.0]})
        definition = Definition("ranker", path, "logit", corrections=[Entity("user", on=[likes], slots=8)])
        return Home(definition, Settings.load(home=tmp_path / "state"))

    home(1.0).prepare()
    with pytest.raises(ConfigurationError, match="belongs to another base model or stack"):
        home(2.0).prepare()
    owner = home(1.0).folder / "owner"
    owner.write_text(home(1.0).definition.fingerprint(of_0_1=True))
    home(1.0).prepare()
    assert owner.read_text() == home(1.0).definition.fingerprint()


def test_a_start_that_died_before_its_first_release_does_not_bind_the_folder(home):
    home().folder.mkdir(parents=True)
    (home().folder / "owner").write_text(home().definition.fingerprint())
    home("0.25").prepare()


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_owner_is_written_again_where_the_newest_release_is_this_scorer_s(home, how, caplog):
    home().prepare()
    damage(home(), how)
    with caplog.at_level(logging.WARNING):
        assert home().prepare().number == 0
    assert "release 0 has this base" in caplog.text
    assert (home().folder / "owner").read_text() == home().definition.fingerprint()
    caplog.clear()
    home().prepare()
    assert not caplog.text


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(("half", "slots", "why"), [("0.25", 256, "of another base model"), ("0.5", 512, "entity_user")])
def test_a_damaged_owner_does_not_give_the_folder_to_another_base_or_stack(home, how, half, slots, why):
    home().prepare()
    damage(home(), how)
    other = home(half, slots)
    with pytest.raises(ConfigurationError, match=f"does not belong to this scorer: .*{why}") as refused:
        other.prepare()
    line = str(refused.value).partition("begin anew: ")[2]
    subprocess.run(line, shell=True, check=True)
    other.prepare()


def test_where_no_release_can_show_whose_it_is_the_error_ends_in_the_line_to_type(home):
    home().prepare()
    damage(home(), "empty")
    state = home().releases().get(0).state_path
    kept = state.read_bytes()
    state.write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="owner is empty or missing, and no release can be read") as refused:
        home().prepare()
    line = str(refused.value).partition("type: ")[2]
    assert shlex.split(line)[0] == "printf"
    subprocess.run(line, shell=True, check=True)
    state.write_bytes(kept)
    assert home().prepare().number == 0


def test_the_owner_appears_in_full_or_not_at_all(home, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "fsync", fail)
        with pytest.raises(Unavailable, match=r"cannot be written: .*No space left"):
            home().prepare()
    assert not (home().folder / "owner").exists()
    home().prepare()


def test_a_folder_that_a_file_stands_in_the_way_of_is_named(home):
    home().folder.parent.write_text("")
    with pytest.raises(Unavailable, match=f"{home().folder} cannot be written"):
        home().prepare()


def test_to_require_a_home_makes_nothing_and_names_the_folder_in_full(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Home(home().definition, Settings.load(home="state"))
    with pytest.raises(NotFound, match=rf"{tmp_path}/state/ranker is not the home .*export RIVERDELTA_HOME="):
        relative.require()
    assert not (tmp_path / "state").exists()
    relative.prepare()
    relative.require()


@pytest.fixture
def large_base(tmp_path):
    """A base of 1.2 MB, and its home; a new process for each call."""
    path = tmp_path / "large.onnx"
    model = onnx.parser.parse_model(LARGE)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.linspace(0, 1, 300_000, dtype=np.float32), "w"))
    onnx.save(model, path)
    time.sleep(2 * digests._TICK_NS / 1e9)

    def make():
        digests._known.clear()
        return Home(Definition("large", path, "logit", corrections=[Calibration()]), Settings.load(home=tmp_path / "state"))

    return make


def test_a_second_start_reads_neither_the_base_nor_the_shared_weights_in_full(large_base, monkeypatch):
    large_base().prepare()
    time.sleep(2 * digests._TICK_NS / 1e9)
    large_base().prepare()
    large_base().prepare()
    opened, real = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *given, **more: (opened.append(self), real(self, *given, **more))[1])
    assert large_base().prepare().number == 0
    assert not [path for path in opened if path.name.endswith(".bin") or path.name == "large.onnx"]


def test_shared_weights_that_were_changed_are_refused_at_the_next_start_also_with_their_times_put_back(large_base):
    for _ in range(2):
        large_base().prepare()
        time.sleep(2 * digests._TICK_NS / 1e9)
    (weights,) = (large_base().folder / "releases").glob("*.bin")
    before = weights.stat()
    with weights.open("r+b") as file:
        file.write(b"?")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ConfigurationError, match=r"no release in .* is intact"):
        large_base().prepare()


def test_weights_that_change_between_reading_the_base_and_copying_them_are_refused_and_none_are_left(large_base):
    home = large_base()
    path, weights = home.definition.base, home.definition.base.with_name("w.bin")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=weights.name)
    assert home.definition.signature.digest
    with weights.open("r+b") as file:
        file.write(b"\1\2\3\4")
    with pytest.raises(ModelError, match="has changed since it was read"):
        home.prepare()
    assert list((home.folder / "releases").glob("*.bin")) == []
