"""A loaded machine is no defect: hypothesis keeps no time here (pytest-timeout does)."""

from hypothesis import HealthCheck, settings

settings.register_profile("nnac", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nnac")
