"""Rebase: a new definition learns again what an old home has learned."""

from riverdelta.sidecar.rebase.rebase import rebase
from riverdelta.sidecar.rebase.report import Rebased
from riverdelta.sidecar.rebase.rows import LogRows

__all__ = ["LogRows", "Rebased", "rebase"]
