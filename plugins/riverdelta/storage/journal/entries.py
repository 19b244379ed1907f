"""Entries: records as a log stores them, with the facts that it keeps of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from riverdelta.core.errors import Corrupt
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import SETTINGS, Control, Feedback, Impressions, Record, Tick, decode, encode
from riverdelta.storage.log import Entry, Stored, Transaction
from riverdelta.storage.log.base import Index

T = TypeVar("T")
#: What replaces a record without rows: a tick without effect.
NOTHING = Tick(0.0)


def recorded(index: Index, read: Callable[[dict[str, Any]], T]) -> T | None:
    """Return what `read` returns for the newest record of the settings that learning reads; None before the first."""
    text = index.fact("settings")
    try:
        settings = json.loads(text)
        return None if settings == {} else read(settings)
    except (LookupError, TypeError, ValueError, RecursionError):
        raise Corrupt(f"{index.where} has {text!r:.80} as its 'settings'; it is damaged") from None


def add(transaction: Transaction, record: Tick | Control | Instruction) -> int:
    """Add a record with the facts that it changes; return its position."""
    if isinstance(record, Tick):
        transaction.put("tick", max(record.time, transaction.fact("tick")))
    elif isinstance(record, Control) and record.action == SETTINGS:
        if recorded(transaction, dict) is None:
            transaction.put("first_window", record.arguments.get("window_seconds") or 0.0)
        transaction.put("settings", json.dumps(dict(record.arguments)))
    return transaction.append(encoded(record))


def encoded(record: Record) -> Entry:
    """Return a record as a log stores it."""
    return Entry.of(record.kind, len(record) if isinstance(record, Impressions | Feedback) else 1, encode(record))


def decoded(stored: Stored) -> Record:
    """Return the record that a log has stored; raises `Corrupt` naming it if it cannot be read."""
    try:
        return decode(stored.payload)
    except Corrupt as error:
        raise Corrupt(f"journal record {stored.sequence} in {stored.where}: {error}") from error
