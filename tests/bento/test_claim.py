"""The claim: whatever a worker or the learner would fail at for good is said before any of them starts."""

import os

import numpy as np
import onnx
import pytest
from bentoml.exceptions import BentoMLException

from riverdelta import Calibration, Entity
from riverdelta.bento import claim as claiming
from riverdelta.bento.claim import claim, without_traceback
from riverdelta.core.errors import ConfigurationError, Corrupt, Locked, ModelError, RiverdeltaError, Unavailable
from riverdelta.core.settings import Settings
from riverdelta.lab.server import free_port
from riverdelta.learning import reference
from riverdelta.learning.definition import Definition
from riverdelta.serving import profile

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""


@pytest.fixture
def scorer(tmp_path):
    """scorer(half, slots): a definition of a base in a file of its own."""

    def make(half="0.5", slots=256):
        path = tmp_path / f"ranker-{half}.onnx"
        onnx.save(onnx.parser.parse_model(RANKER.replace("0.5", half)), path)
        return Definition("ranker", path, "logit", corrections=[Calibration(), Entity("user", slots=slots)])

    return make


@pytest.fixture
def settings(tmp_path):
    return Settings.load(home=tmp_path / "state", grpc_port=free_port())


def test_a_service_is_claimed_once_at_a_time(scorer, settings):
    with (
        claim(scorer(), settings),
        pytest.raises(Locked, match=f"'ranker' is in use by process {os.getpid()} "),
    ):
        claim(scorer(), settings.model_copy(update={"grpc_port": 0}))
    claim(scorer(), settings).close()


def test_two_services_cannot_have_one_grpc_port(scorer, settings, tmp_path):
    other = settings.model_copy(update={"home": tmp_path / "other"})
    with (
        claim(scorer(), settings),
        pytest.raises(
            ConfigurationError, match=rf"127.0.0.1:{settings.grpc_port}: .*RIVERDELTA_GRPC_PORT.*'ranker'.*grpc_port=3002\)"
        ),
    ):
        claim(scorer("0.25"), other)
    claim(scorer("0.25"), other).close()


def test_another_base_or_stack_on_the_same_home_is_refused_with_the_lines_to_type(scorer, settings):
    claim(scorer(), settings).close()
    folder = settings.home / "ranker"
    for other in (scorer("0.25"), scorer(slots=512)):
        words = rf"another definition of 'ranker':\n(.*\n)+to carry over .*: mv {folder} {folder}\.old && riverdelta rebase "
        with pytest.raises(ConfigurationError, match=words):
            claim(other, settings)
    claim(scorer(), settings).close()


def test_the_learner_that_is_tried_has_the_defaults_of_the_home(scorer, settings, monkeypatch):
    claim(scorer(), settings).close()
    monkeypatch.setattr(
        Entity.__init__, "__defaults__", (*Entity.__init__.__defaults__[:2], 0.25, *Entity.__init__.__defaults__[3:])
    )
    tried = []
    monkeypatch.setattr(claiming, "new_learner", lambda definition, _: tried.append(definition.corrections[1].variance))
    claim(scorer(), settings).close()
    assert tried == [0.5]


def damage_key(folder):
    (folder / "journal" / "key").write_bytes(b"short")


def damage_journal(folder):
    (segment,) = (folder / "journal").glob("*.sqlite")
    segment.write_bytes(b"nothing" * 1000)


def damage_releases(folder):
    (folder / "releases" / "000000.onnx").write_bytes(b"nothing")


def damage_definition(folder):
    (folder / "definition.json").write_text("{")


def put_a_file_in_the_way(folder):
    (folder / "serve.lock").unlink()
    (folder / "serve.lock").mkdir()


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (damage_key, ConfigurationError, "key has 5 bytes"),
        (damage_journal, RiverdeltaError, "sqlite"),
        (damage_releases, ConfigurationError, "no release in .* is intact"),
        (damage_definition, Corrupt, "definition.json is damaged"),
        (put_a_file_in_the_way, Unavailable, "serve.lock.*RIVERDELTA_HOME"),
    ],
)
def test_a_damaged_home_is_refused_with_the_file(scorer, settings, damage, error, said):
    claim(scorer(), settings).close()
    damage(settings.home / "ranker")
    with pytest.raises(error, match=said):
        claim(scorer(), settings)


def test_a_base_that_onnx_runtime_cannot_open_is_refused_and_leaves_the_home_to_another(scorer, settings, tmp_path):
    model = onnx.parser.parse_model(RANKER)
    model.graph.node[-1].domain = "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match="ONNX Runtime cannot open"):
        claim(Definition("ranker", tmp_path / "odd.onnx", "logit", corrections=[Calibration()]), settings)
    claim(scorer(), settings).close()


def test_a_setting_that_only_the_learner_refuses_is_refused_here(scorer, settings):
    with pytest.raises(ConfigurationError, match=r"RIVERDELTA_DRIFT_RUN_LENGTH is 3\.0"):
        claim(scorer(), settings.model_copy(update={"drift_run_length": 3.0}))


def test_a_reference_of_another_base_is_refused_here(scorer, settings):
    columns = {"user": np.arange(2000), "x": np.linspace(0, 1, 2000, dtype=np.float32)}
    label = np.tile(np.float32([0, 1]), 1000)
    reference.save(scorer("0.25"), profile.measure(scorer("0.25"), columns, label), reference.path_of(scorer()))
    with pytest.raises(ConfigurationError, match="does not belong to the base"):
        claim(scorer(), settings)


def test_an_error_of_ours_is_shown_by_bentoml_too_and_keeps_its_type():
    with pytest.raises(BentoMLException, match=r"^why$") as shown, without_traceback():
        raise ModelError("why")
    assert isinstance(shown.value, ModelError)
    with pytest.raises(ZeroDivisionError), without_traceback():
        1 / 0  # noqa: B018
