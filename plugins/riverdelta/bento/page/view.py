"""View: what the page shows of a service's status and its releases, as texts in the order of the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from riverdelta.bento.page import chart, wording
from riverdelta.bento.page.wording import NOTHING, ago, count, few, nats, number, size, span
from riverdelta.core.losses import LOG_LOSS

#: A page has no more columns, and no longer names, whatever a service has.
_MOST_COLUMNS, _LONGEST = 20, 80
#: Above these a distance is usually called a shift, and a large one.
_SHIFT, _LARGE = 0.1, 0.25

View = dict[str, Any]
#: The most that a row's loss counts as, in nats.
_MOST = LOG_LOSS.bound


def view(
    status: Mapping[str, Any],
    releases: Sequence[Mapping[str, Any]],
    back: int | None,
    freshness: Sequence[tuple[float, float | None]],
    target: str,
    now: float,
) -> View:
    """Return everything that the template shows.

    `status` is that of `GET /status`, `releases` and `back` are the operator's list and where a rollback goes; `freshness` has
    (share, seconds in which so large a share of feedback was in service); `target` names the service; `now` in Unix seconds.
    """
    learning: Mapping[str, Any] = status.get("learning") or {}
    second = "corrected" if learning.get("serve") == "base" else "served"
    return {
        "name": short(status.get("name", "")),
        "said": wording.state(status),
        "shadow": learning.get("serve") == "base",
        "second": second,
        "when": moment(now),
        "worth": _worth(learning),
        "quality": _quality(learning, second),
        "odd": _odd(learning),
        "chart": chart.losses(learning.get("history") or {}, second),
        "fresh": _fresh(status, learning, freshness, now),
        "gate": _gate(learning),
        "releases": [_release(row, now) for row in list(releases)[:-9:-1]],
        "back": back,
        "commands": _commands(target, back, promote=learning.get("guard") == "release" and back != learning.get("champion")),
        "drift": _drift(learning.get("drift") or {}),
        "events": [_event(entry, now) for entry in reversed(learning.get("events") or [])],
        "base": status.get("base") or {},
        "provider": short(status.get("provider", NOTHING)),
    }


def moment(seconds: float) -> dict[str, str]:
    """Return a time for people and for machines."""
    at = datetime.fromtimestamp(seconds, UTC)
    return {"text": at.strftime("%Y-%m-%d %H:%M:%S UTC"), "machine": at.isoformat(timespec="seconds")}


def short(text: Any) -> str:
    """Return a text that fits; its end is cut off where it is too long."""
    shown = str(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _worth(learning: Mapping[str, Any]) -> View:
    found = wording.difference(learning)
    lower, upper = number(found.get("lower")), number(found.get("upper"))
    known = bool(found.get("examples")) and lower is not None and upper is not None
    verdict = "cannot be told yet"
    if known and lower is not None and upper is not None:
        verdict = "yes" if lower > 0 else "no" if upper < 0 else verdict
    return {
        "known": known,
        "verdict": verdict,
        "mean": nats(found.get("mean")),
        "lower": nats(lower),
        "upper": nats(upper),
        "rows": count(found.get("examples")),
        "level": few(100.0 * (1.0 - (number(found.get("alpha")) or 0.0))),
        "bound": few(found.get("bound")),
    }


def _quality(learning: Mapping[str, Any], second: str) -> list[tuple[str, str, str, str, str]]:
    """(whose, rows, log loss, AUC, calibration) of both, over the last rows and over all of them."""
    measured = learning.get("prequential") or {}
    rows = []
    for window, text in (("recent", "last rows"), ("all", "all rows")):
        for scorer in ("base", "served"):
            m = (measured.get(window) or {}).get(scorer) or {}
            auc, ratio = few(m.get("auc")), few(m.get("calibration_ratio"))
            rows.append((f"{scorer}, {text}", count(m.get("examples")), nats(m.get("log_loss")), auc, ratio))
    return rows


def _odd(learning: Mapping[str, Any]) -> str | None:
    """Return a note on rows whose losses are clipped or left out, None where there are none."""
    base, served = ((((learning.get("prequential") or {}).get("all") or {}).get(scorer) or {}) for scorer in ("base", "served"))
    clipped = [(count(m.get("clipped")), name) for name, m in (("base", base), ("served", served)) if number(m.get("clipped"))]
    said = [f"Rows whose {name} loss is above {_MOST:g} nats, and counts as {_MOST:g}: {rows}." for rows, name in clipped]
    if number(served.get("skipped")):
        said.append(f"Rows left out because their score is not finite: {count(served['skipped'])}.")
    if number(unjudged := (learning.get("gate") or {}).get("skipped")):
        said.append(f"Rows the gate does not judge, as their base logit is beyond ±{_MOST:g} or not finite: {count(unjudged)}.")
    return " ".join(said) or None


def _fresh(
    status: Mapping[str, Any], learning: Mapping[str, Any], freshness: Sequence[tuple[float, float | None]], now: float
) -> list[tuple[str, str]]:
    times = (learning.get("history") or {}).get("time") or []
    within = [f"{share:.0%} within {span(seconds)}" for share, seconds in freshness if seconds is not None]
    journal = status.get("journal") or {}
    return [
        ("From feedback to service", ", ".join(within) or NOTHING),
        ("State in service", f"{status.get('state', NOTHING)}"),
        ("Tables last published", ago(learning.get("published"), now)),
        ("Feedback last judged", ago(times[-1] if times else None, now)),
        ("Learner last heard of", ago(learning.get("time"), now)),
        ("Examples joined, learned", f"{count(learning.get('examples'))}, {count(learning.get('learned'))}"),
        ("Impressions in memory", f"{count(learning.get('waiting_rows'))}, {size(learning.get('waiting_bytes'))}"),
        ("Rows not yet durable, dropped", f"{count(journal.get('pending_rows'))}, {count(journal.get('dropped_rows'))}"),
        ("Journal on disk", size(learning.get("journal_bytes"))),
    ]


def _gate(learning: Mapping[str, Any]) -> View | None:
    gate = learning.get("gate") or {}
    weight, excess, bound = (number(gate.get(name)) for name in ("weight", "excess", "bound"))
    if weight is None or excess is None or bound is None:
        return None
    return {
        "weight": few(weight),
        "weight_bar": chart.bar(weight),
        "excess": few(max(excess, 0.0)),
        "bound": few(bound),
        "excess_bar": chart.bar(excess / bound if bound > 0 else 0.0),
        "gain": few(gate.get("gain")),
        "rows": count(gate.get("examples")),
    }


def _release(row: Mapping[str, Any], now: float) -> View:
    marks = [name for name in ("serving", "champion") if row.get(name)]
    return {
        "number": count(row.get("release")),
        "when": ago(row.get("time"), now),
        "examples": count(row.get("examples")),
        "loss": nats(row.get("log_loss_served")),
        "gain": nats(row.get("gain_on_champion")),
        "verdict": short(row.get("verdict") or NOTHING),
        "marks": marks,
    }


def _commands(target: str, back: int | None, promote: bool) -> list[tuple[str, str]]:
    service = shlex.quote(target)
    number = ("" if back is None else f" {back}") + " --promote" * promote
    return [
        ("Serve it again and learn on from there", f"riverdelta rollback{number} --service {service}"),
        ("The same, and learn nothing more until resumed", f"riverdelta rollback{number} --freeze --service {service}"),
        ("Stop learning, and go on", f"riverdelta freeze --service {service}\nriverdelta resume --service {service}"),
    ]


def _drift(drift: Mapping[str, Any]) -> View | None:
    if not drift:
        return None
    columns = sorted(
        (
            (short(name), number(value.get("psi")), number(value.get("js")))
            for name, value in (drift.get("columns") or {}).items()
        ),
        key=lambda row: -(row[1] or 0.0),
    )
    quantities = sorted(
        (
            (short(name), number(value.get("evidence")) or 0.0, count(value.get("alarms")))
            for name, value in (drift.get("quantities") or {}).items()
        ),
        key=lambda row: -row[1],
    )
    return {
        "alarmed": bool(drift.get("alarmed")),
        "reference": count(drift.get("reference")),
        "known": number(drift.get("reference")) is not None,
        "given": bool(drift.get("given")),
        "alarms": count(drift.get("alarms") or 0),
        "adapting": count(drift.get("adapting_examples")) if drift.get("adapting_examples") else None,
        "columns": [
            (name, few(psi), few(js), _shift(psi), chart.bar((psi or 0.0) / (2 * _LARGE))) for name, psi, js in columns
        ][:_MOST_COLUMNS],
        "more": max(len(columns) - _MOST_COLUMNS, 0),
        "quantities": [
            (name, f"{min(max(evidence, 0.0), 1.0):.0%}", alarms, chart.bar(evidence)) for name, evidence, alarms in quantities
        ][:_MOST_COLUMNS],
    }


def _shift(psi: float | None) -> str:
    if psi is None:
        return NOTHING
    return "as usual" if psi < _SHIFT else "shifted" if psi < _LARGE else "far away"


def _event(entry: Mapping[str, Any], now: float) -> View:
    text, details = wording.event(entry)
    seconds = number(entry.get("time"))
    at = moment(seconds) if seconds and 0 < seconds < 4e9 else {"text": NOTHING, "machine": ""}
    return {"text": text, "details": details, "ago": ago(seconds, now), "position": count(entry.get("position")), "at": at}
