"""A home belongs to one definition: which one is stored in full, survives a torn file, and is not guessed."""

import inspect
import json
import logging
import os
import shlex
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from riverdelta import Calibration, Entity, Lookup
from riverdelta.core import digests, durable
from riverdelta.core.errors import ConfigurationError, Corrupt, ModelError, NotFound, Unavailable
from riverdelta.core.features import Schema
from riverdelta.core.records import Tick
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.learning.identity import describe
from riverdelta.storage.home import Home
from riverdelta.storage.origin import Origin

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""
LARGE = """<ir_version: 8, opset_import: ["" : 17]>
large (int64[N] user) => (float[N] logit) { logit = Gather(w, user) }"""
#: What the file `owner` of an earlier version may hold besides the fingerprint.
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


def path_of(home):
    return home.folder / "definition.json"


def make_earlier(home, owner):
    """Turn a home into one of an earlier version, which has a file `owner` with these bytes, or none."""
    path_of(home).unlink(missing_ok=True)
    if owner is not None:
        (home.folder / "owner").write_bytes(owner)


def test_the_definition_is_stored_in_full_with_the_defaults_that_nobody_named(home):
    home().prepare()
    stored = json.loads(path_of(home()).read_text())
    assert stored["format"] == 1
    assert stored["base"]["file"] == "ranker-0.5.onnx"
    assert stored["base"]["inputs"] == {"user": "int64[N]", "x": "float32[N]"}
    assert stored["output"] == {"tensor": "logit", "kind": "logit", "margin": False}
    calibration, entity = stored["corrections"]
    assert calibration["parameters"] == {
        name: value.default for name, value in inspect.signature(Calibration).parameters.items()
    }
    assert (entity["name"], entity["kind"], entity["module"]) == ("entity_user", "Entity", "riverdelta")
    assert (entity["parameters"]["slots"], entity["parameters"]["forget"]) == (256, 1.0)
    assert (entity["chosen"], entity["tables"]) == (["key", "slots"], {"mean": [256, 1]})
    assert (stored["journal"], stored["keep_inputs"]) == ({"user": "int64[N]"}, False)


def test_a_start_that_changes_nothing_writes_nothing(home):
    home().prepare()
    before = path_of(home()).stat().st_mtime_ns
    home().prepare()
    assert path_of(home()).stat().st_mtime_ns == before


@pytest.mark.parametrize(("half", "slots"), [("0.25", 256), ("0.5", 512)])
def test_another_base_or_stack_is_refused_in_words_with_the_lines_to_type(home, half, slots, tmp_path):
    home().prepare()
    (home().folder.parent / "ranker.old").mkdir()
    with pytest.raises(ConfigurationError) as refused:
        home(half, slots).prepare()
    what, found, *why, carry, over = str(refused.value).splitlines()
    assert what == f"{home().folder} learned with another definition of 'ranker':"
    if slots != 256:
        assert (found, why) == ("  Entity 'entity_user': slots is 512 here, and was 256", [])
    else:
        assert why == ["the journal does not keep 'x' (float32[N]), which this definition needs: a log must have it"]
        assert found.startswith("  the base file ranker-0.25.onnx differs: its digest is ")
    moved = f"mv '{tmp_path}/my state/ranker' '{tmp_path}/my state/ranker.old2'"
    rebase = f"riverdelta rebase --service SERVICE.py:CLASS --from '{tmp_path}/my state/ranker.old2'"
    rebase += " --log rows.parquet --label clicked" if why else ""
    assert carry == f"to carry over what it learned, once no service uses it: {moved} && {rebase}"
    assert over == f"to start over: {moved}"
    subprocess.run(moved, shell=True, check=True)
    home(half, slots).prepare()


def test_a_definition_that_needs_a_column_that_the_journal_lacks_is_refused_with_the_line_of_a_log(home):
    home().prepare()
    changed = replace(home().definition, columns=Schema.of({"hour": "float32"}), corrections=[Entity("user", on=["hour"])])
    with pytest.raises(ConfigurationError) as refused:
        Home(changed, home().settings).prepare()
    *_, why, carry, _ = str(refused.value).splitlines()
    assert why == "the journal does not keep 'hour' (float32[N]), which this definition needs: a log must have it"
    assert carry.endswith(".old' --log rows.parquet --label clicked")


def test_a_changed_default_leaves_the_tables_as_they_were_and_is_logged(home, monkeypatch, caplog):
    home().prepare()
    expected = learned(home().definition)
    with monkeypatch.context() as patched:
        variance, forget, *others = Entity.__init__.__defaults__[2:]
        patched.setattr(Entity.__init__, "__defaults__", (*Entity.__init__.__defaults__[:2], variance * 2, forget / 2, *others))
        unstored = replace(home().definition, corrections=[Calibration(), Entity("user", slots=256)])
        assert learned(unstored) != expected
        with caplog.at_level(logging.WARNING):
            home().prepare()
        for _ in range(2):
            assert learned(home().definition) == expected
            home().prepare()
    first, second = caplog.messages[:2]
    assert "variance stays 0.5" in first
    assert "forget stays 1.0" in second
    home().prepare()


@pytest.mark.parametrize("starts", [1, 2])
def test_an_option_that_was_deleted_from_the_code_is_a_difference(home, starts):
    def with_entity(**options):
        return Home(replace(home().definition, corrections=[Entity("user", slots=256, **options)]), home().settings)

    for _ in range(starts):
        with_entity(forget=0.9).prepare()
    with pytest.raises(ConfigurationError, match=r"forget is 1\.0 here, and was 0\.9"):
        with_entity().prepare()


class Passing(Entity):
    def __init__(self, key, slots=256, offset="offset"):
        super().__init__(key, slots=slots, offset=offset)


def test_a_changed_default_of_an_option_that_a_class_passes_on_does_not_orphan_its_home(home, monkeypatch):
    mine = Home(replace(home().definition, corrections=[Passing("user")]), home().settings)
    mine.prepare()
    variance, *others = Entity.__init__.__defaults__[2:]
    monkeypatch.setattr(Entity.__init__, "__defaults__", (*Entity.__init__.__defaults__[:2], variance * 2, *others))
    for _ in range(2):
        Home(replace(home().definition, corrections=[Passing("user")]), home().settings).prepare()


def learned(definition):
    """A digest of what a definition learns from some rows."""
    stack, rows = definition.new_stack(), 50
    user, zeros, ones = np.arange(rows) % 5, np.zeros((rows, 1), np.float32), np.ones(rows, np.float32)
    stack.learn({"user": user}, zeros, (user % 2).astype(np.float32), ones)
    return stack.digest()


def test_an_option_that_the_code_names_is_not_taken_for_a_default(home):
    home(slots=2**18).prepare()  # today's default, named
    with pytest.raises(ConfigurationError, match="slots is 256 here, and was 262144"):
        home().prepare()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "its 0 bytes are not valid JSON"),
        (b"{}", "damaged: it has no 'format'"),
        (b"[1]", "damaged: it is a list; expected an object with format, name"),
        (b'{"format": 1}', "damaged: it has no 'name'"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_a_damaged_definition_is_an_error_of_its_own_that_ends_in_the_line_to_type(home, written, said):
    folder = home().folder.parent
    home().prepare()
    path_of(home()).write_bytes(written)
    with pytest.raises(Corrupt, match=said) as refused:
        home()
    assert str(refused.value).startswith(f"{folder / 'ranker' / 'definition.json'} is damaged: ")
    subprocess.run(str(refused.value).rpartition("this scorer: ")[2], shell=True, check=True)
    assert home().prepare().number == 0


def test_a_definition_of_a_later_version_is_refused_by_its_format(home):
    home().prepare()
    stored = json.loads(path_of(home()).read_text())
    path_of(home()).write_text(json.dumps(stored | {"format": 2, "unheard": "of"}))
    with pytest.raises(ConfigurationError, match=r"definition\.json cannot be used: its format is 2, .* up to 1; serve"):
        home()


def test_inputs_may_be_kept_from_a_start_on(home):
    home().prepare()
    kept = replace(home().definition, keep_inputs=True)
    Home(kept, home().settings).prepare()
    assert json.loads(path_of(home()).read_text())["journal"] == {"user": "int64[N]", "x": "float32[N]"}
    home().prepare()
    assert json.loads(path_of(home()).read_text())["journal"] == {"user": "int64[N]"}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_folder_without_releases_is_claimed_whatever_its_owner_holds(home, how):
    home().folder.mkdir(parents=True)
    make_earlier(home(), DAMAGE[how])
    home().prepare()
    assert home().stored() == describe(home().definition)


def test_a_lookup_with_other_contents_is_another_stack_and_a_folder_of_0_1_takes_the_first_that_serves_it(tmp_path):
    def home(value):
        path = tmp_path / "ranker.onnx"
        onnx.save(onnx.parser.parse_model(RANKER), path)
        likes = Lookup("likes", key="user", table={1: [value, 0.0]})
        definition = Definition("ranker", path, "logit", corrections=[Entity("user", on=[likes], slots=8)])
        return Home(definition, Settings.load(home=tmp_path / "state"))

    home(1.0).prepare()
    with pytest.raises(ConfigurationError, match=r"Entity 'entity_user': on\[0\]\.contents is '[0-9a-f]{16}' here, and was '"):
        home(2.0).prepare()
    make_earlier(home(1.0), home(1.0).definition.fingerprint_of_0_1().encode())
    home(1.0).prepare()
    assert home(1.0).stored() == describe(home(1.0).definition)


def test_a_start_that_died_before_its_first_release_does_not_bind_the_folder(home):
    home().folder.mkdir(parents=True)
    path_of(home()).write_text(describe(home().definition).model_dump_json())
    home("0.25").prepare()


def test_the_owner_of_an_earlier_version_is_read_once_and_goes(home):
    home().prepare()
    make_earlier(home(), home().definition.fingerprint_of_0_1().encode())
    for other, what in ((home("0.25"), "another base"), (home(slots=512), "other corrections")):
        with pytest.raises(ConfigurationError, match=f"learned with {what}: its file 'owner', .*\nto carry over .*rebase"):
            other.prepare()
    home().prepare()
    assert home().stored() == describe(home().definition)
    assert not (home().folder / "owner").exists()


@pytest.mark.parametrize("how", DAMAGE)
def test_a_missing_definition_is_written_again_where_the_newest_release_is_this_scorer_s(home, how, caplog):
    home().prepare()
    make_earlier(home(), DAMAGE[how])
    with caplog.at_level(logging.WARNING):
        assert home().prepare().number == 0
    assert "release 0 has this base" in caplog.text
    assert "options that tables do not show, such as a rate, cannot be checked" in caplog.text
    assert home().stored() == describe(home().definition)
    caplog.clear()
    home().prepare()
    assert not caplog.text


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(("half", "slots", "why"), [("0.25", 256, "has another base model"), ("0.5", 512, "entity_user")])
def test_a_missing_definition_does_not_give_the_folder_to_another_base_or_stack(home, how, half, slots, why):
    home().prepare()
    make_earlier(home(), DAMAGE[how])
    other = home(half, slots)
    with pytest.raises(ConfigurationError, match=f"does not belong to this scorer: .*{why}") as refused:
        other.prepare()
    line = str(refused.value).partition("start over: ")[2]
    subprocess.run(line, shell=True, check=True)
    other.prepare()


def test_where_no_release_can_show_whose_it_is_the_error_ends_in_the_line_to_type(home):
    home().prepare()
    make_earlier(home(), b"")
    state = home().releases().get(0).state_path
    kept = state.read_bytes()
    state.write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match=r"definition\.json is missing, and no release can be read") as refused:
        home().prepare()
    line = str(refused.value).partition("type: ")[2]
    assert shlex.split(line)[0] == "printf"
    subprocess.run(line, shell=True, check=True)
    state.write_bytes(kept)
    assert home().prepare().number == 0


def test_the_definition_appears_in_full_or_not_at_all(home, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "fsync", fail)
        with pytest.raises(Unavailable, match=r"cannot be written: .*No space left"):
            home().prepare()
    assert not path_of(home()).exists()
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
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.linspace(-1, 1, 300_000, dtype=np.float32), "w"))
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


def test_a_lost_key_is_made_again_and_named_once_rows_may_have_been_scored(home, caplog):
    made = home()
    made.prepare()
    made.ids()
    assert caplog.messages == []
    with closing(made.journal()) as journal:
        journal.write(Tick(1.0))
    made.key_path.unlink()
    made.ids()
    assert f"{made.key_path} is missing, so a new key is made" in caplog.text
    caplog.clear()
    made.ids()
    assert caplog.messages == []


def test_a_rebased_home_that_lost_the_position_of_its_rebase_begins_at_its_release(home, caplog):
    made = home()
    release = made.prepare()
    assert (made.origin, made.begins) == (None, 0)
    store = made.releases()
    store.judge(release.number, {"verdict": "rebased"})
    assert made.origin == Origin(position=release.position, log=True)
    assert "rebased.json is missing" in caplog.text
