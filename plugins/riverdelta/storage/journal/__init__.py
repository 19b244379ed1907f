"""The journal: every impression and all accepted feedback, in one order, durable before the answer."""

from riverdelta.storage.journal.base import Answer, Health, Outcome
from riverdelta.storage.journal.buffer import Rows
from riverdelta.storage.journal.ids import Ids
from riverdelta.storage.journal.journal import PATIENCE_SECONDS, Journal
from riverdelta.storage.journal.reader import Reader

__all__ = ["PATIENCE_SECONDS", "Answer", "Health", "Ids", "Journal", "Outcome", "Reader", "Rows"]
