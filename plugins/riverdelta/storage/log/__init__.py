"""The log: opaque records in one order, durable in groups, and an index of what they hold; a journal lies on top of it."""

from riverdelta.storage.log.base import Entry, Fed, Log, Request, Scored, Stored, Transaction
from riverdelta.storage.log.sqlite import SqliteLog

__all__ = ["Entry", "Fed", "Log", "Request", "Scored", "SqliteLog", "Stored", "Transaction"]
