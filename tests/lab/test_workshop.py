"""The demo's service file and replay's default stack are the same stack."""

from pathlib import Path

import pytest

from riverdelta.lab.datasets.find import Found
from riverdelta.lab.deepfm import DeepFMOptions
from riverdelta.lab.workshop import load_stream, open_workshop
from riverdelta.learning.differences import differences
from riverdelta.learning.identity import describe
from riverdelta.learning.service import load


@pytest.mark.parametrize("with_graph", [False, True])
def test_the_written_service_declares_what_replay_learns(tmp_path, with_graph):
    graph = None
    if with_graph:
        graph = tmp_path / "kg"
        graph.mkdir()
        (graph / "kg.txt").write_text("0\tactor\t9\n1\tactor\t9\n")
        (graph / "item_index2entity_id.txt").write_text("1\t0\n2\t1\n")
    stream = load_stream(Found(None, "simulator"))[:4_000]
    workshop = open_workshop(stream, tmp_path / "work", graph, DeepFMOptions(dim=2, hidden=(4,), epochs=1))
    written = load(str(Path(workshop.folder) / "service.py"))
    assert not differences(describe(written), describe(workshop.definition))
    assert written.new_stack().names == workshop.definition.new_stack().names
