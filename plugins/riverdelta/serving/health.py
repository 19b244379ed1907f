"""Health: a service's state in one sentence, for `GET /status` and the status page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from riverdelta.core.losses import LOG_LOSS, Loss

#: The number of labels from which measures are reported.
MEASURED = 100
#: The number of labels below which a gain of about 0 is called unclear, and the smallest change of AUC that is reported.
_FEW, _LEAST_AUC = 1_000, 0.001
#: The names of the events after which labels count from zero.
SINCE = {"rollback": "rollback to release", "promote": "promotion of release", "rebase": "rebase to release"}
#: The time from a worker's start within which its learner should have reported.
_START_SECONDS = 60.0


def figure(value: float) -> str:
    """Return a loss or a measure as text: four decimals, fewer of large numbers.

    >>> figure(0.25), figure(-1234.5678), figure(2.5e9)
    ('0.2500', '-1,234.6', '2.5e+09')
    """
    size = abs(value)
    return f"{value:.4f}" if size < 100.0 else f"{value:,.1f}" if size < 1e7 else f"{value:.4g}"


class Health(NamedTuple):
    """The state in one sentence, its level (good, note, warn or bad), and its consequences."""

    level: str
    sentence: str
    more: str


def health(status: Mapping[str, Any], loss: Loss = LOG_LOSS, up: float = 0.0) -> Health:
    """Return the worst problem, `up` seconds after a worker's start; without a problem, whether the corrections help.

    >>> health({"sidecar": {"alive": False, "silent_seconds": 95.0}, "learning": {"position": 7}}).sentence
    'The learner is down: it has not reported for 95 s.'
    """
    learning, sidecar, journal = (status.get(name) or {} for name in ("learning", "sidecar", "journal"))
    silent, paused, admission = sidecar.get("silent_seconds"), learning.get("paused"), learning.get("admission") or {}
    scoring = f"Scoring continues with state {status.get('state')}; feedback waits in the journal."
    if error := journal.get("error"):
        return Health("bad", f"The journal cannot be written: {error}", "Scoring continues, but impressions are not recorded.")
    if not learning and up < _START_SECONDS:
        return Health("note", "Starting: waiting for the learner's first report.", scoring)
    if not learning:
        return Health("bad", f"The learner has not reported in {up:.0f} s since the start.", f"See its log. {scoring}")
    if learning.get("stopped"):
        return Health("bad", "The learner is down: it was asked to stop.", scoring)
    if not sidecar.get("alive"):
        if silent is None:
            ahead = f"its last report is dated {sidecar.get('ahead_seconds') or 0.0:,.0f} s in the future."
            why = "A clock is wrong or was set back; correct it on the hosts of the service, and see the learner's log."
            return Health("bad", f"Whether the learner runs is unknown: {ahead}", f"{why} {scoring}")
        why = f"It had paused: {paused}." if paused else "See its log."
        return Health("bad", f"The learner is down: it has not reported for {silent:.0f} s.", f"{why} {scoring}")
    if paused:
        return Health("bad", f"Learning is paused: {paused}", f"It retries every second. {scoring}")
    if again := learning.get("relearning"):
        done = (again["position"] - again["since"]) / max(again["until"] - again["since"], 1)
        return Health("note", f"The learner is relearning the journal after a release: {done:.0%} is done.", scoring)
    if admission.get("open"):
        return Health(
            "bad", f"The breaker is open: {admission.get('reason') or 'learning does harm'}.", _held(learning.get("held") or {})
        )
    found = gain(learning, loss)
    if learning.get("frozen"):
        return Health("warn", "Learning is frozen.", f"Nothing is learned until you resume. {found.more}")
    if (learning.get("drift") or {}).get("alarmed"):
        return Health("warn", "The stream has drifted.", found.more)
    return found


def gain(learning: Mapping[str, Any], loss: Loss = LOG_LOSS) -> Health:
    """Return whether the corrections help, from the labels of rows scored by the tables in service."""
    worth, shadow = learning.get("worth") or {}, learning.get("serve") == "base"
    labels, mode, after = worth.get("labels") or 0, "Shadow mode: " if shadow else "Learning: ", _since(worth.get("since"))
    brief = f" since the {SINCE[worth['since']['action']].split()[0]}" if after else ""
    noun = "list" if loss.lists else "label"
    number = f"{labels:,} {noun}{'s' * (labels != 1)}"
    if not labels:
        waits = f"{learning.get('waiting_rows') or 0:,} scored rows wait for feedback."
        return Health("note", f"{mode}waiting for the first label{brief}.", f"No label yet{after}. {waits}")
    if labels < MEASURED:
        few = f"{mode}{number}{brief}, too few to say whether the corrections help."
        return Health("note", few, f"The gain is reported from {MEASURED} {noun}s on; so far {number}{after}.")
    mean, lower, upper = (worth["gain"][name] for name in ("mean", "lower", "upper"))
    unclear = lower <= 0.0 <= upper
    does = f"{'So far the' if unclear else 'The'} corrections {'would ' * shadow}{'save' if mean >= 0.0 else 'lose'}"
    ends = (lower, upper) if mean >= 0.0 else (-upper, -lower)
    unit = worth["gain"].get("unit", loss.unit)
    what = f"{unit} of {loss.name}" if unit == loss.unit else unit
    size = f"{figure(abs(mean))} {what} a {loss.example} ({figure(ends[0])} to {figure(ends[1])})"
    said = f"{does} {size} over {number}{after}."
    apart = _apart(worth, loss, mean)
    if unclear and labels < _FEW:
        return Health("note", f"{mode}{number}{brief}, too few to say whether the corrections help.", said)
    if unclear:
        return Health("note", f"{mode}the corrections neither help nor hurt clearly.", f"{said} {apart}")
    if upper < 0.0:
        cost = "Shadow mode: the corrections would cost" if shadow else "Learning: the corrections cost"
        return Health("warn", f"{cost} more than they gain.", f"{said} {apart}")
    if apart:
        return Health("warn", f"{mode}the {loss.name} improves, but AUC falls.", f"{said} {apart}")
    good = ("note", "Shadow mode: the corrections would help.") if shadow else ("good", "Healthy: the corrections help.")
    return Health(*good, said)


def _held(held: Mapping[str, Any]) -> str:
    """Return what the breaker holds, since when, and the two lines to type."""
    rows, dropped = held.get("rows") or 0, held.get("dropped") or 0
    since = f" since {datetime.fromtimestamp(held['since'], UTC):%Y-%m-%d %H:%M} UTC" if held.get("since") else ""
    lost = f" RIVERDELTA_HELD_BYTES was full, and {dropped:,} older ones were dropped." if dropped else ""
    return (
        f"Nothing is learned, and {rows:,} example{'s are' if rows != 1 else ' is'} held{since}.{lost} To learn them in order, "
        f"type `riverdelta resume`; to drop them, `riverdelta resume --skip`."
    )


def _since(outcome: Mapping[str, Any] | None) -> str:
    """Return the event since which labels count, as text after their number; empty if the tables never changed.

    >>> _since({"action": "rollback", "release": 3, "position": 9, "time": 60.0})
    ' since the rollback to release 3 at 1970-01-01 00:01 UTC'
    """
    if not outcome:
        return ""
    time = datetime.fromtimestamp(outcome["time"], UTC)
    return f" since the {SINCE[outcome['action']]} {outcome['release']} at {time:%Y-%m-%d %H:%M} UTC"


def _apart(worth: Mapping[str, Any], loss: Loss, mean: float) -> str:
    """Return a sentence if AUC and loss move in opposite directions, empty otherwise."""
    before, after = ((worth.get(scorer) or {}).get("auc") for scorer in ("base", "served"))
    if before is None or after is None or abs(after - before) < _LEAST_AUC or mean * (after - before) >= 0.0:
        return ""
    moves, order, fit = ("falls", "worse", "better") if mean > 0.0 else ("rises", "better", "worse")
    return (
        f"AUC {moves} from {before:.4f} to {after:.4f} while the {loss.name} gets {fit}: "
        f"rows are ordered {order}, and each score fits its label {fit}."
    )
