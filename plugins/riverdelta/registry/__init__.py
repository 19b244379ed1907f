"""The registry: where the sidecar leaves new tables and releases, and where every scorer finds them."""

from riverdelta.registry.live import LiveStore
from riverdelta.registry.releases import Release, ReleaseStore
from riverdelta.registry.state import Delta, State

__all__ = ["Delta", "LiveStore", "Release", "ReleaseStore", "State"]
