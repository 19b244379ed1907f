"""`riverdelta replay`: learns a data set or the journal of a demo without a server."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from riverdelta.cli.options import as_json, show
from riverdelta.cli.rehearsed import print_rehearsal, rehearsed
from riverdelta.cli.tables import print_figures
from riverdelta.core.errors import InvalidInput, Refused
from riverdelta.core.records import SETTINGS
from riverdelta.core.settings import Settings
from riverdelta.evaluation.gate import Gate
from riverdelta.lab.attacks import KINDS, Attacked, Kind
from riverdelta.lab.attacks import attack as tamper
from riverdelta.lab.datasets.find import NAMES, find_movielens
from riverdelta.lab.quality import beside_base, log_loss
from riverdelta.learning.forget import Forget
from riverdelta.learning.learner import new_learner
from riverdelta.learning.reference import in_effect
from riverdelta.learning.replay import Replayed
from riverdelta.learning.replay import replay as replay_log
from riverdelta.learning.service import load
from riverdelta.sidecar import recall
from riverdelta.storage.home import Home
from riverdelta.storage.registry import Release

_READ_ROWS = 65_536
#: The number of sources that send labels in turn, as the demo's clients do.
_FRONT_ENDS = 8
_BEGUN_BY_0_1 = "version 0.1 began this journal and limited numbers in another way, so its tables cannot be learned again"


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--dataset", type=click.Choice(NAMES), help="Learn this public data set, and compare with simple baselines.")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Its folder (default: the one below RIVERDELTA_DATA).")
@click.option("--work", type=click.Path(path_type=Path), help="Where its base is kept (default: in the cache).")
@click.option("--journal", type=click.Path(path_type=Path), help="Learn the journal of this demo folder again.")
@click.option("--lag", "lag_rows", type=click.IntRange(min=0), help="Delay labels by N rows or lists (DATA: publish every N).")
@click.option("--lag-seconds", type=click.FloatRange(min=0), help="Delay labels by this many seconds of the data.")
@click.option("--events", type=click.IntRange(min=1), help="Rows of the second half to use (default: all).")
@click.option("--attack", type=click.Choice(KINDS), help="Tamper with a tenth of the labels, from the middle on.")
@click.option("--kg", "graph", type=click.Path(path_type=Path), help="A folder with kg.txt, to add graph neighbours.")
@as_json
def replay(
    data: Path | None,
    journal: Path | None,
    dataset: str | None,
    folder: Path | None,
    work: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn a data set or the journal of a demo without a server.

    A base is trained on the first half of DATA (a MovieLens folder); the second half is scored and learned row by row.

    With --dataset, a base is trained on the earlier part of that data set, the later part is scored and learned with labels
    that come late, and base, served scores and simple baselines are compared by the measures of the task.

    With --journal, the journal in the folder of a demo is learned instead, with the settings on record, and the tables are
    compared bit for bit with its checkpoint; a journal that version 0.1 began is learned from this version's oldest release on.
    This fails if learning responded to drift and the reference beside the base has changed since.
    """
    if dataset is not None:
        show(rehearsed(dataset, folder, work, options["lag_rows"], options["lag_seconds"]), as_json, print_rehearsal)
        return
    figures = _replay_data(data, **options) if journal is None else _replay_journal(journal)
    show(figures, as_json, print_figures)
    if figures.get("begins_after"):
        begins = f"{_BEGUN_BY_0_1}; the replay begins with the oldest release that this version made"
        if figures["forgot"]:
            begins = f"record {figures['forgot']} forgot rows; the replay begins with the oldest release made after it"
        click.echo(f"{begins}, at record {figures['begins_after']}", err=True)
    if figures.get("reference_equal") is False:
        recorded = " and then ".join(map(_named, figures["references_recorded"]))
        click.echo(
            f"learning responded to drift from {recorded}, and beside the base there is {_named(figures['reference'])}, so the "
            f"tables can differ; restore the recorded reference and replay again",
            err=True,
        )
    if not all(figures.get(name, True) for name in ("tables_equal", "reference_equal")):
        raise SystemExit(1)


def _replay_data(
    data: Path | None,
    lag_rows: int | None,
    lag_seconds: float | None,
    events: int | None,
    attack: Kind | None,
    graph: Path | None,
) -> dict[str, Any]:
    # Imported here, as they need PyTorch and replaying a journal does not.
    from riverdelta.lab.base import base_logits
    from riverdelta.lab.workshop import load_stream, open_workshop

    lag_rows, lag_seconds = lag_rows or 0, lag_seconds or 0.0
    found = find_movielens(data)
    with tempfile.TemporaryDirectory() as folder:
        workshop = open_workshop(load_stream(found), Path(folder), graph)
        second = workshop.second[:events]
        tampered = tamper(second, attack) if attack is not None else None
        second = tampered.stream if tampered else second
        base = base_logits(workshop.report.path, second)
        learner = new_learner(workshop.definition, Settings.load())
    done = replay_log(
        learner,
        second.select(*learner.stack.reads).columns,
        base,
        second.label,
        second.time,
        label_time=second.time + lag_seconds if lag_seconds else None,
        refresh_rows=lag_rows,
        source=tampered.source if tampered else np.arange(len(second)) % _FRONT_ENDS + 1,
    )
    return {
        "data": found.source,
        "events": len(second),
        **beside_base(base, done.served, second.label),
        **_gate(learner.gate),
        "breaker_trips": learner.admission.report()["trips"],
        "not_learned": int((~done.learned).sum()),
        **(_attacked(attack, tampered, done) if tampered else {}),
        "lag_rows": lag_rows,
        "lag_seconds": lag_seconds,
        "base_training_seconds": workshop.report.seconds,
        "examples_per_second": len(second) / done.seconds,
    }


def _replay_journal(folder: Path) -> dict[str, Any]:
    if not (folder / "service.py").is_file():
        raise InvalidInput(f"{folder} has no service.py; give the folder that `riverdelta demo` printed")
    settings = Settings.load(home=folder / "state")
    home = Home(load(str(folder / "service.py")), settings)
    home.require()
    definition = home.definition
    journal = home.reader()
    if journal.first() > 1:
        raise Refused(
            f"the oldest record in {home.key_path.parent} is {journal.first()}: retention has deleted those before it, without "
            f"which tables cannot be learned again; raise RIVERDELTA_JOURNAL_MAX_BYTES and _MAX_AGE_SECONDS to keep more"
        )
    if home.begins:
        raise Refused(f"{home.folder} was rebased with a log: its tables cannot be learned again from its journal")
    learner, checkpoint = new_learner(definition, settings), home.checkpoints().load()
    changes = [(at, control) for at, control in journal.controls(0, journal.last() + 1) if control.action == SETTINGS]
    oldest, forgot = None, [at for at, asked in journal.commands(0, journal.last() + 1) if asked.action == Forget.name]
    if forgot:
        oldest = _made_after(home, forgot[-1], checkpoint.position if checkpoint else 0)
    elif home.origin is None and (not changes or changes[0][0] > 1):
        oldest = _oldest(home, changes[0][0] if changes else journal.last(), checkpoint.position if checkpoint else 0)
    learner.recall = past = recall.Replayed(journal, learner.state(), home.releases() if oldest else None)
    if oldest is None:
        learner.begin()
    else:
        learner.load(home.releases().state(oldest))
    begins, before = learner.position, learner.examples
    recorded = [change.arguments.get("reference") for _, change in changes if change.arguments.get("on_drift") is not None]
    found = in_effect(definition, settings)["reference"]
    start = time.perf_counter()
    while records := journal.read(learner.position, _READ_ROWS):
        for sequence, record in records:
            learner.push(sequence, record)
            past.reached(sequence, learner.state)
    seconds = time.perf_counter() - start
    report = learner.prequential.report()["all"]
    saved = new_learner(definition, settings)
    saved.recall = learner.recall
    if checkpoint is not None:
        saved.load(checkpoint.arrays)
    journal.close()
    return {
        "data": str(folder),
        "events": learner.examples,
        **{f"{m}_{s}": report[s][m] for m in ("auc", "loss") for s in ("base", "served")},
        **_gate(learner.gate),
        "examples_per_second": (learner.examples - before) / seconds,
        "begins_after": begins,
        "forgot": forgot[-1] if forgot else None,
        "position": learner.position,
        "reference": found,
        "references_recorded": list(dict.fromkeys(recorded)),
        "reference_equal": set(recorded) <= {found},
        "digest": learner.stack.digest(),
        "checkpoint_position": checkpoint.position if checkpoint else None,
        "checkpoint_digest": saved.stack.digest() if checkpoint else None,
        "tables_equal": checkpoint is not None and saved.stack.digest() == learner.stack.digest(),
    }


def _oldest(home: Home, settled: int, until: int) -> Release:
    """Return the oldest release that this version made of a home that version 0.1 began, if it was made before `until`.

    Version 0.1 recorded no settings; this one does so at its first start, at `settled`.
    """
    made = next((release for release in home.releases().all() if release.position > settled), None)
    if made is None or made.position >= until:
        raise Refused(
            f"{_BEGUN_BY_0_1}; it can be replayed from a release of this version on: start the service, and try again when it "
            f"has made a release, learned more and saved that"
        )
    return made


def _made_after(home: Home, forgot: int, until: int) -> Release:
    """Return the oldest release made after the last `riverdelta forget`, whose rows had been learned, and before `until`."""
    made = next((release for release in home.releases().all() if release.position >= forgot), None)
    if made is None or made.position >= until:
        raise Refused(
            f"record {forgot} is a forget: rows before it were learned and then erased; the journal can be replayed from a "
            f"release made after it: type `riverdelta release`, and try again when more was learned and saved"
        )
    return made


def _named(reference: str | None) -> str:
    return "no reference" if reference is None else f"the reference {reference}"


def _attacked(kind: Kind | None, tampered: Attacked, done: Replayed) -> dict[str, Any]:
    """Return the effect of an attack on the rows outside it, and when the breaker tripped."""
    honest = tampered.honest
    closed = np.flatnonzero(~done.learned[tampered.begin :])
    return {
        "attack": kind,
        "attacked_rows": int((~honest).sum()),
        "breaker_opened_after_rows": int(closed[0]) if len(closed) else None,
        "log_loss_honest_base": log_loss(done.base[honest], tampered.truth[honest]),
        "log_loss_honest_served": log_loss(done.served[honest], tampered.truth[honest]),
    }


def _gate(gate: Gate) -> dict[str, float | None]:
    """Return the gate's bounds for this stream and its actual excess, in nats over all rows."""
    names = {"excess_over_better_expert": "excess", "bound": "bound", "bound_worst_case": "worst_case"}
    report = gate.report()
    return {name: report[key] for name, key in (names | {"gate_weight": "weight", "gate_rate": "rate"}).items()}
