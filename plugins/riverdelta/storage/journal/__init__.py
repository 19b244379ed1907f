"""The journal: every impression and every accepted piece of feedback, in one order, durable before the answer."""

from riverdelta.storage.journal.base import Answer, Health, Journal, Outcome
from riverdelta.storage.journal.ids import Ids, load_key
from riverdelta.storage.journal.segments import Segments
from riverdelta.storage.journal.sqlite import PATIENCE_SECONDS, SqliteJournal

__all__ = ["PATIENCE_SECONDS", "Answer", "Health", "Ids", "Journal", "Outcome", "Segments", "SqliteJournal", "load_key"]
