"""Wording: what the page says of a service, in the fewest words that are true."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOTHING = "–"


@dataclass(frozen=True)
class Said:
    """The state in one sentence, how bad it is (good, note, warn or bad), and what follows from it."""

    level: str
    sentence: str
    more: str = ""


def state(status: Mapping[str, Any]) -> Said:
    """Return what is first to be known of a `GET /status`: what is wrong, or whether the corrections help.

    >>> state({"sidecar": {"alive": False, "silent_seconds": 95.0}, "learning": {"position": 7}}).sentence
    'The learner is down: it has said nothing for 95 s.'
    >>> again = {"relearning": {"since": 100, "position": 150, "until": 300}}
    >>> state({"sidecar": {"alive": True}, "learning": again}).sentence
    'The learner learns again what came since a release: 25% is done.'
    """
    learning, silent = status.get("learning") or {}, (status.get("sidecar") or {}).get("silent_seconds")
    admission = learning.get("admission") or {}
    goes_on = f"Scores go on, by state {status.get('state', NOTHING)}; feedback waits in the journal."
    if not learning:
        return Said("warn", "The learner has not started yet.", goes_on)
    if not (status.get("sidecar") or {}).get("alive"):
        return Said("bad", f"The learner is down: it has said nothing for {span(silent)}.", goes_on)
    if error := (status.get("journal") or {}).get("error"):
        return Said("bad", f"The journal cannot be written: {error}", "Scores go on; what they were is not kept now.")
    if learning.get("paused"):
        return Said("bad", f"Learning is paused: {learning['paused']}", f"It tries again every second. {goes_on}")
    if again := learning.get("relearning"):
        done = (again["position"] - again["since"]) / max(again["until"] - again["since"], 1)
        return Said("note", f"The learner learns again what came since a release: {done:.0%} is done.", goes_on)
    if admission.get("open"):
        reason = admission.get("reason") or "what is joined has changed abruptly"
        return Said(
            "bad", f"The breaker is open: {reason}.", "Nothing is learned until the stream is calm again or you resume."
        )
    if learning.get("frozen"):
        return Said("warn", "Learning is frozen.", "Scores go on and are measured; nothing is learned until you resume.")
    if (learning.get("drift") or {}).get("alarmed"):
        return Said("warn", "The stream has drifted.", helping(learning))
    return _healthy(learning)


def _healthy(learning: Mapping[str, Any]) -> Said:
    lower, upper = (number(difference(learning).get(end)) for end in ("lower", "upper"))
    shadow = learning.get("serve") == "base"
    if upper is not None and upper < 0.0:
        costs = "would cost" if shadow else "cost"
        return Said("warn", f"It runs, but the corrections {costs} more than they gain.", helping(learning))
    if shadow:
        return Said("note", "Shadow mode: all is learned and measured, and no score changes.", helping(learning))
    if lower is not None and lower > 0.0:
        return Said("good", "Healthy: the corrections help.", helping(learning))
    return Said("good", "Healthy.", helping(learning))


def helping(learning: Mapping[str, Any]) -> str:
    """Return whether the corrections help, as far as that is known."""
    found = difference(learning)
    lower, upper, rows = number(found.get("lower")), number(found.get("upper")), found.get("examples") or 0
    would = "would save" if learning.get("serve") == "base" else "save"
    if lower is None or upper is None or not rows:
        return "No feedback has been judged yet."
    if lower > 0.0:
        return f"The corrections {would} {nats(found.get('mean'))} nats a row, over {count(rows)} rows."
    if upper < 0.0:
        return f"The base alone has {nats(-(number(found.get('mean')) or 0.0))} nats a row less, over {count(rows)} rows."
    return f"Whether the corrections help cannot be told yet from {count(rows)} rows."


def difference(learning: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the difference of losses, {} where the learner has reported none."""
    return (learning.get("history") or {}).get("difference") or {}


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def nats(value: Any) -> str:
    """Return nats, or another small number, to four places; without an infinite number of them where there is none.

    >>> nats(0.12345), nats(-0.00001), nats(None)
    ('0.1235', '0.0000', '–')
    """
    found = number(value)
    return NOTHING if found is None else f"{found:.4f}".replace("-0.0000", "0.0000").replace("-", "\u2212")


def few(value: Any) -> str:
    """Return a number to three digits.

    >>> few(11.52), few(1234.5), few(0.98765)
    ('11.5', '1,234', '0.988')
    """
    found = number(value)
    if found is None:
        return NOTHING
    return f"{found:,.0f}" if abs(found) >= 1000 else f"{found:.3g}"


def count(value: Any) -> str:
    """Return a whole number with commas between the thousands."""
    found = number(value)
    return NOTHING if found is None else f"{found:,.0f}"


def size(value: Any) -> str:
    """Return bytes in the unit that suits them.

    >>> size(532), size(48_000), size(7_340_032)
    ('532 B', '47 KiB', '7.0 MiB')
    """
    found = number(value)
    if found is None:
        return NOTHING
    if found < 1 << 20:
        return f"{found:.0f} B" if found < 1 << 10 else f"{found / (1 << 10):.0f} KiB"
    return f"{found / (1 << 20):,.1f} MiB" if found < 1 << 30 else f"{found / (1 << 30):,.1f} GiB"


def span(seconds: Any) -> str:
    """Return a length of time in one unit.

    >>> span(0.04), span(95), span(7_200), span(3e5), span(None)
    ('0.04 s', '95 s', '120 min', '83 h', 'ever')
    """
    found = number(seconds)
    if found is None:
        return "ever"
    for unit, length, most in (("s", 1.0, 120.0), ("min", 60.0, 180.0), ("h", 3600.0, 96.0)):
        if abs(found) < most * length:
            return f"{found / length:.2g} {unit}" if found < 1.0 else f"{found / length:.0f} {unit}"
    return f"{found / 86_400.0:.0f} days"


def ago(then: Any, now: float) -> str:
    """Return how long ago a time (Unix seconds) is.

    >>> ago(940.0, 1_000.0), ago(0, 1_000.0)
    ('60 s ago', '–')
    """
    found = number(then)
    if not found:
        return NOTHING
    return "just now" if now - found < 1.0 else f"{span(now - found)} ago"


_EVENTS = {
    "release": "Release {release} was made",
    "promote": "Release {release} became the champion",
    "rollback": "Rolled back to release {release}",
    "freeze": "Learning was frozen",
    "resume": "Learning was resumed",
    "rotate-key": "The key of impression ids was renewed",
    "drift": "Drift alarm",
    "breaker opened": "The breaker opened",
    "breaker closed": "The breaker closed",
}
_REFUSED = {
    "release": "A release was refused",
    "promote": "The promotion of release {release} was refused",
    "rollback": "The rollback to release {release} was refused",
}
#: Details that the text says, or that say nothing to people.
_UNSHOWN = ("release", "position", "asked")


def event(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return what happened, and its details.

    >>> event({"action": "rollback", "details": {"release": 3, "relearn": True, "freeze": False, "position": 9}})
    ('Rolled back to release 3', 'relearn')
    >>> event({"action": "promote", "details": {"release": 4, "refused": "there is no release 4"}})
    ('The promotion of release 4 was refused', 'there is no release 4')
    """
    action, details = str(entry.get("action", "")), dict(entry.get("details") or {})
    text = (_REFUSED if "refused" in details else _EVENTS).get(action, action)
    if "{release}" in text:
        text = text.format(release=details["release"]) if "release" in details else "A release was asked for and not made"
    shown = {k: v for k, v in details.items() if k not in _UNSHOWN and v not in (None, False)}
    plain = ("reason", "refused")
    return text, ", ".join(k if v is True else str(v) if k in plain else f"{k}: {v}" for k, v in shown.items())
