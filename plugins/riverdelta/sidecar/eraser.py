"""Eraser: takes what a `riverdelta forget` names out of every file of a home, in steps that a killed learner repeats."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from riverdelta.core.arrays import Arrays, nest, part
from riverdelta.core.errors import Unavailable
from riverdelta.core.hashing import digest
from riverdelta.core.instruction import Instruction
from riverdelta.core.locks import alone
from riverdelta.graph.files import with_tables
from riverdelta.learning.erased import Erased, Subject
from riverdelta.learning.forget import Forget
from riverdelta.learning.learner import Learner
from riverdelta.sidecar.contest import Contest
from riverdelta.sidecar.publisher import Live
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Journal
from riverdelta.storage.journal.erasure import erase
from riverdelta.storage.journal.ids import load_key
from riverdelta.storage.journal.reader import encoded
from riverdelta.storage.log.segments import COPYING
from riverdelta.storage.registry import Release, ReleaseStore

_log = logging.getLogger(__name__)


class Eraser:
    """Erases what the learner has forgotten from checkpoints, releases, journal and live tables, in this order.

    The learner's own state comes first: once the checkpoint is durable, all older ones go, and a restart continues from it. The
    record of the command is last: until it names a digest alone, each start begins again with what is left. Write-ahead logs
    are emptied after that: each start does so again until a checkpoint has the outcome. `save` makes a
    checkpoint, and `show` publishes complete tables as soon as possible.
    """

    def __init__(
        self,
        home: Home,
        learner: Learner,
        journal: Journal,
        contest: Contest,
        live: Live,
        save: Callable[[], None],
        show: Callable[[], None],
    ) -> None:
        self.home, self.learner, self.journal, self.contest, self.live = home, learner, journal, contest, live
        self._save, self._show = save, show
        self._store: ReleaseStore = contest.store
        #: The commands whose erasure has to begin, and those that wait for tables without them to be published after a swap.
        self._asked: list[int] = []
        self._begun: dict[int, int] = {}

    @property
    def waiting(self) -> bool:
        """Whether nothing more may be learned before the next `step`."""
        return bool(self._asked)

    def resume(self) -> None:
        """Find the commands that were applied and whose erasure was interrupted."""
        for sequence, asked in self.journal.commands(0, self.learner.position + 1):
            if asked.action == Forget.name:
                outcome = self.learner.outcomes.of(sequence)
                if self._subject(asked) is not None:
                    self.note(sequence)
                elif outcome is not None and outcome.pending:
                    self._begun[sequence] = -1  # all but the last step is done

    def note(self, sequence: int) -> None:
        """Note that the learner has applied the command at `sequence`."""
        self._asked.append(sequence)

    def step(self) -> None:
        """Erase from checkpoints, releases and journal; raises `Unavailable` if it has to be tried again."""
        for sequence in list(self._asked):
            asked = self._record(sequence)
            if (subject := self._subject(asked)) is not None:
                with alone(self.home.key_path.parent / COPYING) as free:
                    if not free:
                        raise Unavailable("a backup is being made; what was forgotten is erased when it has ended")
                    self._erase(sequence, subject)
            self._asked.remove(sequence)

    def finish(self) -> None:
        """Delete the live tables from before the erasure once newer ones serve, and the last trace of the command."""
        head = self.live.head
        for sequence, swap in list(self._begun.items()):
            if head is None or head.swap <= swap:
                continue
            self.live.store.delete_before(head.swap)
            asked = self._record(sequence)
            if (subject := self._subject(asked)) is not None:
                name, mark = str(subject).partition("=")[0], digest(str(subject).encode(), key=load_key(self.home.key_path))
                done = replace(asked, fields={"what": f"{name}=#{mark.hex()}"})
                self.journal.log.erase({sequence: encoded(done)})
            self.journal.log.scrub()
            self.learner.outcomes.finish(sequence, {})
            del self._begun[sequence]
            _log.info("the forget at position %d is complete: nothing of it is left in %s", sequence, self.home.folder)

    def _erase(self, sequence: int, subject: Subject) -> None:
        self._save()
        self.home.checkpoints().delete_before(sequence)
        erased = self.journal.erased(subject, sequence)
        releases = [release for release in self._store.all() if release.position < sequence]
        for release in releases:
            self._rewrite(release, erased)
            self.learner.pulse()
        self.contest.forget(erased)
        counts = erase(self.journal, erased, sequence, self.learner.pulse)
        self.learner.outcomes.finish(sequence, {**counts, "releases rewritten": len(releases)}, pending=True)
        self._begun[sequence] = self.live.head.swap if self.live.head else 0
        self._show()

    def _rewrite(self, release: Release, erased: Erased) -> None:
        """Write a release again without the erased rows and the coefficients of their id."""
        before, other = self._store.state(release), self.learner.again()
        after: Arrays
        if "learner" in before:
            other.recall = self.learner.recall
            other.load(before)
            other.drop(erased)
            after = other.state()
        else:  # release 0 has only the stack
            other.stack.load(part(before, "stack"))
            if (name := erased.subject.name) is not None:
                other.stack.forget_id(name, erased.subject.own, erased.columns)
            after = nest({"stack": other.stack.state()})
        facts = {"digest": other.stack.digest()} if "digest" in release.facts else {}
        tables = {name: table.values for name, table in other.stack.tables().items()}
        self._store.rewrite(release, with_tables(release.path, tables, facts), after, facts)

    def _record(self, sequence: int) -> Instruction:
        (record,) = (record for _, record in self.journal.read(sequence - 1, 1))
        assert isinstance(record, Instruction)
        return record

    def _subject(self, asked: Instruction) -> Subject | None:
        try:
            return Subject.parse(str(asked.fields.get("what")), self.learner.features)
        except ValueError:  # it was refused
            return None
