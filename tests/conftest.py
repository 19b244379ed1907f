"""What holds for every test: no law fails because the machine was busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("riverdelta", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("riverdelta")
