"""The tests here and tests/benchmarks/bench_faults.py share the modules of this folder by their plain names."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def scene(tmp_path, request):
    from scene import Scene

    given = getattr(request, "param", {})
    with Scene(tmp_path, **given) as made:
        yield made
