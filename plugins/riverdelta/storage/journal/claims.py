"""Claims: requests with a name that wait until the journal has decided who has it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from riverdelta.core.errors import Unavailable
from riverdelta.core.records import Feedback, Impressions, Record, encode
from riverdelta.storage.journal.buffer import Block
from riverdelta.storage.log import Entry, Named, Transaction


class Claims:
    """The claims of one process by the numbers of their requests; not thread-safe."""

    def __init__(self) -> None:
        self._waiting: dict[int, Future[Named]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, request: int) -> Future[Named]:
        """Return the future of who has the name of a request; it cannot be cancelled."""
        claim = self._waiting[request] = Future()
        claim.set_running_or_notify_cancel()
        return claim

    def settle(self, newest: int, owners: Mapping[int, Named]) -> None:
        """Resolve the claims up to the `newest` request of a block that is durable; one without an owner was dropped."""
        for request in [request for request in self._waiting if request <= newest]:
            claim = self._waiting.pop(request)
            if request in owners:
                claim.set_result(owners[request])
            else:
                claim.set_exception(Unavailable("the rows were dropped, because too many wait; send the request again later"))

    def refuse(self, error: Unavailable) -> None:
        """Refuse all claims."""
        while self._waiting:
            self._waiting.popitem()[1].set_exception(error)


def encoded(record: Record) -> Entry:
    """Return a record as a log stores it."""
    return Entry.of(record.kind, len(record) if isinstance(record, Impressions | Feedback) else 1, encode(record))


def store(transaction: Transaction, block: Block, entry: Entry, names: int) -> dict[int, Named]:
    """Store a block, whose record is `entry`, without the requests whose name is taken; return who has each name.

    The texts of its ids are noted while the index has fewer than `names`.
    """
    if texts := {own: text for _, rows in block.waiting for own, text in rows.texts.items()}:
        transaction.note(texts, names)
    incarnation, owners = block.impressions.incarnation, dict[int, Named]()
    for number, rows, name in block.named():
        if (owner := transaction.named(name.request_id)) is None:
            owner = Named((incarnation, number), rows.content)
            transaction.name(name.request_id, owner)
        owners[number] = owner
    taken = {number for number, owner in owners.items() if owner.request != (incarnation, number)}
    if (left := block.without(taken) if taken else block) is not None:
        transaction.index(incarnation, left.requests, transaction.append(encoded(left.impressions) if taken else entry))
    return owners
