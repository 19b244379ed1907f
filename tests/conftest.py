"""What holds for every test: modules of this folder are shared, and no law fails because the machine was busy."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("riverdelta", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("riverdelta")
