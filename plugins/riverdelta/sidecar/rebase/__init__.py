"""What one home has learned, learned again by another definition."""

from riverdelta.sidecar.rebase.rebase import Rebased, rebase
from riverdelta.sidecar.rebase.rows import LogRows

__all__ = ["LogRows", "Rebased", "rebase"]
