"""The log: opaque records in one order, durable in groups, and an index of their contents; the journal is built on it."""

from riverdelta.storage.log.base import ERASED, Entry, Fed, Log, Named, Request, Scored, Stored, Transaction
from riverdelta.storage.log.sqlite import SqliteLog

__all__ = ["ERASED", "Entry", "Fed", "Log", "Named", "Request", "Scored", "SqliteLog", "Stored", "Transaction"]
