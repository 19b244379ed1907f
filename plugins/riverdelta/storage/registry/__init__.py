"""The registry: where the sidecar publishes tables, releases and checkpoints, and every scorer finds them."""

from riverdelta.storage.registry.base import Registry
from riverdelta.storage.registry.folder import FolderRegistry
from riverdelta.storage.registry.live import LiveStore
from riverdelta.storage.registry.releases import Release, ReleaseStore
from riverdelta.storage.registry.state import Delta, State

__all__ = ["Delta", "FolderRegistry", "LiveStore", "Registry", "Release", "ReleaseStore", "State"]
