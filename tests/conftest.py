"""What holds for every test: modules of this folder are shared, no law fails because the machine was busy, and a service that
one module of tests reads hides no module from the next."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("riverdelta", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("riverdelta")
#: What is imported by a service alone, which says in its environment what to serve.
collect_ignore = ["scorer_service.py"]


@pytest.fixture(scope="module", autouse=True)
def paths():
    """Reading the file of a service puts its folder on the path, as `bentoml serve` does."""
    before = list(sys.path)
    yield
    sys.path[:] = before
