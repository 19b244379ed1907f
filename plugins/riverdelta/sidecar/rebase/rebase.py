"""Rebase: makes a new home in which another definition has learned the journal of an old one, or a log."""

from __future__ import annotations

import shlex
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from riverdelta.core.arrays import nest
from riverdelta.core.durable import place
from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput, Locked, Refused, Unavailable
from riverdelta.core.examples import Examples
from riverdelta.core.feedback import check_weights
from riverdelta.core.instruction import Instruction
from riverdelta.core.locks import alone
from riverdelta.core.records import Impressions, Record
from riverdelta.core.settings import Settings
from riverdelta.evaluation.worth import Worth
from riverdelta.learning.adaptation import Adaptation
from riverdelta.learning.admission import Admission
from riverdelta.learning.definition import Definition
from riverdelta.learning.fold import AT_ONCE
from riverdelta.learning.learner import Learner, new_learner
from riverdelta.sidecar.contest import Contest
from riverdelta.sidecar.logbook import Logbook
from riverdelta.sidecar.publisher import Live
from riverdelta.sidecar.rebase.carried import Carried
from riverdelta.sidecar.rebase.comparison import Comparison
from riverdelta.sidecar.rebase.old import check, check_place, usable
from riverdelta.sidecar.rebase.report import Rebased
from riverdelta.sidecar.rebase.rows import LogRows, Rows
from riverdelta.sidecar.rebase.scoring import Scoring
from riverdelta.sidecar.releaser import Releases
from riverdelta.sidecar.shown import shown
from riverdelta.storage.backup import copy_journal
from riverdelta.storage.claim import rebase_line
from riverdelta.storage.home import Home
from riverdelta.storage.journal.ids import load_key
from riverdelta.storage.origin import REBASED, Origin
from riverdelta.storage.registry import ReleaseStore

Block = list[tuple[int, Record]]
#: Called with the position reached in the journal and its last one, or with the rows of a log learned so far and None.
Progress = Callable[[int, int | None], None]
#: The observers that the replay fills; the others are about the service and start over.
_SHOWN = ("account/history", "account/slices")


def rebase(
    definition: Definition,
    settings: Settings,
    old: Path,
    log: Iterable[LogRows] | None = None,
    progress: Progress = lambda position, last: None,
) -> Rebased:
    """Make the home of a definition from the journal of an old home; it appears complete or not at all.

    The journal is copied at one moment, even while its service runs; later records are not carried over. Its impressions are
    scored again by the new scorer, with tables as old as those that served them, and the records are learned in order,
    including commands. With `log`, its rows are learned and measured instead, and the journal's rows only wait for feedback.

    Raises `NotFound`, `InvalidInput` or `Locked` before anything is made, `Refused` if no row has the columns that the new
    scorer needs, and `Unavailable` if the home cannot be written. Nothing is left behind then; the next run removes what a
    killed one leaves.

    Parameters
    ----------
    definition
        The new scorer.
    settings
        Its settings, which name the new home's folder.
    old
        The old home, which is not changed.
    log
        Blocks of labelled rows in the order of time, to learn instead of the journal (default None). Give it if the journal
        lacks a column that the new scorer needs.
    progress
        Called as `Progress` says.
    """
    home = Home(definition, settings)
    try:
        return _rebase(home, old, log, progress)
    except Refused as error:
        if old.resolve().parent != home.folder.resolve().parent:
            raise
        raise Refused(
            f"{error}; to go back, restore the old code and type: {shlex.join(['mv', str(old), str(home.folder)])}"
        ) from None


def _rebase(home: Home, old: Path, log: Iterable[LogRows] | None, progress: Progress) -> Rebased:
    check(old, home)
    private = home.rebasing
    try:
        private.mkdir(parents=True, exist_ok=True)
        with alone(private / "lock") as free:
            if not free:
                raise Locked(f"another rebase to {home.folder} is running ({private}); wait until it ends")
            try:
                check_place(old, home)  # from here on no service begins there
                built = Home(home.definition, home.settings.model_copy(update={"home": private}))
                shutil.rmtree(built.folder, ignore_errors=True)
                done = _Rebase(built, old, log, progress).run()
                check_place(old, home)
                place(built.folder, home.folder)
            except (ConfigurationError, Corrupt) as error:  # the copy goes: the old home's file is the one to restore
                raise type(error)(str(error).replace(str(built.folder), str(old))) from error
            finally:
                shutil.rmtree(private, ignore_errors=True)
    except OSError as error:
        check_place(old, home)  # something else has appeared there
        raise Unavailable(
            f"the home {home.folder} cannot be made: {error}; check that {home.folder.parent} is writable and its disk has room"
        ) from error
    return replace(done, folder=str(home.folder))


class _Rebase:
    """One run, in a private folder."""

    def __init__(self, home: Home, old: Path, log: Iterable[LogRows] | None, progress: Progress) -> None:
        self.home, self.old, self.log, self.progress = home, old, log, progress
        self.done = Rebased(str(home.folder))
        self.compared = Comparison(home.definition.loss)

    def run(self) -> Rebased:
        """Copy, learn, release and save."""
        home, done, origin = self.home, self.done, Origin.of(self.old)
        if origin is not None and origin.log and self.log is None:
            raise Refused(
                f"{self.old} learned a log instead of its journal up to record {origin.position:,}, which must not come back; "
                f"learn that log again, with the rows that came since: {self._with_log()}"
            )
        release, journal = home.prepare(), home.key_path.parent
        shutil.rmtree(journal)
        done.position = copy_journal(self.old / "journal", journal)
        load_key(home.key_path)
        same_base, changed = usable(self.old, home.definition)
        done.new_base = not same_base
        self.rows, self.again = Rows(home.definition, release, same_base, changed), origin is not None
        learner, releases = self._learner(), Releases(home.definition, home.releases())
        learner.observers |= {"comparison": self.compared, "releases": releases}
        #: The learner whose tables and gate score the journal's rows.
        self.scorer = learner
        if self.log is not None:
            self.scorer = self._learn_log(self.log, releases)
            # The log may contain the journal's rows, on which the tables must then not be measured.
            learner.observers = {"releases": releases}
        with closing(Carried(home.reader(), journal, learner.state())) as past:
            self._replay(learner, past)
        if self.scorer is not learner:
            learner.take_over(self.scorer)
        learner.begin_elsewhere()
        done.examples, done.learned, done.frozen = learner.examples, learner.learned, learner.frozen
        done.held = len(learner.held)
        done.comparison = self.compared.report()
        self._publish(learner, releases)
        (home.folder / "digests.json").unlink(missing_ok=True)
        return done

    def _learner(self) -> Learner:
        learner = new_learner(self.home.definition, self.home.settings)
        self.shown = shown(self.home.definition, learner, shadow=self.home.settings.serve == "base")
        learner.observers |= {name: self.shown[name] for name in _SHOWN}
        return learner

    def _replay(self, learner: Learner, past: Carried) -> None:
        done = self.done
        learner.recall = past
        learner.begin()
        learner.position = done.swept = past.start
        read, blocks, scoring = learner.position, deque[Block](), Scoring(self.rows, self.scorer, self.again)
        while learner.position < done.position:
            # One block ahead: the tables that served its rows are often from the block before.
            while len(blocks) < 2 and read < done.position:
                blocks.append(past.read(read, done.position))
                read = blocks[-1][-1][0]
                self._expect(blocks[-1], scoring, learner.position)
            for sequence, record in blocks.popleft():
                scoring.score(learner.position)
                renewed = past.put(sequence, record, scoring.take(sequence)) if isinstance(record, Impressions) else record
                learner.push(sequence, renewed)
                past.reached(sequence, learner.state)
                done.records += 1
                if isinstance(record, Instruction) and record.action == "rollback" and not past.refusal(sequence):
                    self._check_undone(sequence, learner)
            past.flush()
            self.progress(learner.position, done.position)
        if self.log is None and done.unusable and not done.rows:
            raise self._refusal()
        done.labels_lost = learner.joiner.unmatched

    def _check_undone(self, sequence: int, learner: Learner) -> None:
        """Count a rollback; raise `Refused` if it was refused now, as what it undid would come back."""
        outcome = learner.outcomes.of(sequence)
        if outcome is not None and outcome.refused is not None and self.log is None:
            rows = self.done.unusable
            lack = f"{rows:,} rows lack {self.done.lacking}, which the new scorer needs, so " if rows else ""
            raise Refused(
                f"{lack}the rollback at position {sequence} cannot be repeated, so what it undid would come back: "
                f"{outcome.refused}; learn rows that you trust instead: {self._with_log()}"
            )
        self.done.rollbacks += 1

    def _expect(self, block: Block, scoring: Scoring, now: int) -> None:
        """Pass on the impressions of a block for scoring, and count those that cannot be used."""
        done = self.done
        for sequence, record in block:
            if not isinstance(record, Impressions):
                continue
            if lacking := self.rows.lacking(record):
                done.unusable += len(record)
                done.unusable_from, done.unusable_to = done.unusable_from or sequence, sequence
                done.lacking = ", ".join(f"{column.name!r} ({column})" for column in lacking)
            else:
                done.rows += len(record)
                scoring.expect(sequence, record, now)

    def _learn_log(self, log: Iterable[LogRows], releases: Releases) -> Learner:
        """Return a learner that has learned a log's rows, each scored after all before it were learned.

        It has no breaker and no drift detector: these are for feedback from outside.
        """
        learner, loss = new_learner(self.home.definition, self.home.settings), self.home.definition.loss
        learner.admission, learner.adaptation = Admission(), Adaptation()
        self.done.log_rows = 0
        for block in log:
            try:
                base, columns = self.rows.of_log(block, self.done.log_rows)
                label = loss.read_labels(block.label, first=self.done.log_rows)
                sent = None if block.weight is None else check_weights(block.weight, label, "row", self.done.log_rows)
                if len(untimed := np.flatnonzero(~np.isfinite(block.time))):
                    raise InvalidInput(f"row {self.done.log_rows + int(untimed[0])} has no time; expected Unix seconds")
            except InvalidInput as error:
                raise InvalidInput(f"{block.source}: {error}") from None
            for at in range(0, len(label), AT_ONCE):
                rows = slice(at, at + AT_ONCE)
                part = {name: column[rows] for name, column in columns.items()}
                weight = None if sent is None else sent[rows]
                examples = Examples.unserved(part, base[rows], label[rows], block.time[rows], sent=weight)
                served = learner.learn_at_once(examples)
                self.compared.on_examples(0, served)
                releases.on_examples(0, served)
            self.done.log_rows += len(label)
            self.progress(self.done.log_rows, None)
        if not self.done.log_rows:
            raise InvalidInput("the log has no rows, so there is nothing to learn; give one that has")
        return learner

    def _publish(self, learner: Learner, releases: Releases) -> None:
        """Make release 1, publish its tables and save a checkpoint, from which the service starts."""
        home, position, now = self.home, self.done.position, time.time()
        store: ReleaseStore = releases.store
        comparison = self.done.comparison or {}
        base, corrected, served = (comparison.get(n, {}).get("loss", np.nan) for n in ("base", "corrected", "served"))
        measured, s = comparison.get("examples"), home.settings
        if measured and s.guard == "live" and not 0.0 <= served <= base:
            learner.gate.start_over()
            learner.gate.note(position)
            self.done.gate_restarted = True
        self.done.guard, self.done.weight = "base" if s.serve == "base" else s.guard, learner.gate.weight
        made = releases.make(learner, position, now)
        store.judge(made.number, {"verdict": REBASED})
        if 0.0 <= corrected <= base:
            store.promote(made.number)
            self.done.champion = made.number
        contest = Contest(store, home.definition.new_stack, home.settings, home.definition.loss)
        contest.offer(position)
        if home.settings.guard == "live":
            contest.serving = made.number
        if home.settings.guard == "live" or self.done.champion == made.number:
            Live(home.live(), learner.stack, learner.intervals).publish(made.number, position, learner.gate.weight, now)
        worth, logbook = Worth(loss=home.definition.loss), Logbook()
        worth.begin({"action": "rebase", "release": contest.serving, "position": position, "time": now})
        logbook.note(position, now, "rebase", {"release": contest.serving, "examples": self.done.examples})
        states = {name: self.shown[name].state() for name in _SHOWN}
        states |= {"contest": contest.state(), "account/worth": worth.state(), "account/logbook": logbook.state()}
        state = learner.state() | nest(states)
        for at in (position - 1, position):  # two, as always: one may be damaged
            home.checkpoints().save(at, state)
        Origin(position=position, log=self.log is not None).save(home.folder)

    def _refusal(self) -> Refused:
        done = self.done
        return Refused(
            f"none of the {done.unusable:,} rows in {self.old / 'journal'} can be used: they lack {done.lacking}, which the "
            f"new scorer needs; set keep_inputs=True in @online of the old service, which keeps it for all later rows, or "
            f"learn rows that have it: {self._with_log()}"
        )

    def _with_log(self) -> str:
        return f"{rebase_line(self.home.definition, self.old)} --log rows.parquet --label clicked"
