"""A service that is named by its file finds what lies beside it."""

import sys
from pathlib import Path

import onnx
import pytest

from riverdelta import Calibration
from riverdelta.core.errors import ConfigurationError
from riverdelta.learning.definition import Definition
from riverdelta.learning.service import load

MINE = "from riverdelta import Calibration\n\nCORRECTIONS = [Calibration()]\n"
SERVICE = """
from pathlib import Path

from mine_beside_the_service import CORRECTIONS
from riverdelta.learning.definition import Definition


class Ranker:
    __riverdelta__ = Definition("ranker", Path("ranker.onnx"), corrections=CORRECTIONS)
"""


def test_a_file_imports_the_modules_beside_it_from_wherever_the_command_is_typed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine_beside_the_service.py").write_text(MINE)
    (tmp_path / "service.py").write_text(SERVICE)
    assert [type(c).__name__ for c in load(f"{tmp_path / 'service.py'}:Ranker").corrections] == ["Calibration"]


def test_a_link_settles_what_the_graph_leaves_open(tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Exp(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "base.onnx")
    with pytest.raises(ConfigurationError, match=r"write logit='y', link='identity'$"):
        Definition("ranker", tmp_path / "base.onnx", logit="y").signature  # noqa: B018
    assert not Definition("ranker", tmp_path / "base.onnx", logit="y", link="identity").signature.predicts


def test_one_correction_alone_is_a_list_of_one_and_anything_else_is_refused():
    one = Calibration()
    assert Definition("ranker", Path("ranker.onnx"), corrections=one).corrections == (one,)
    with pytest.raises(ConfigurationError, match="corrections holds 3; expected corrections"):
        Definition("ranker", Path("ranker.onnx"), corrections=[3])
