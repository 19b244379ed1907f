"""The registry: where the sidecar leaves new tables and releases, and where every scorer finds them."""

from riverdelta.storage.registry.live import LiveStore
from riverdelta.storage.registry.releases import Release, ReleaseStore
from riverdelta.storage.registry.state import Delta, State

__all__ = ["Delta", "LiveStore", "Release", "ReleaseStore", "State"]
