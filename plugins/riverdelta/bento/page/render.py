"""Render: the page's template with its style and script, and its HTTP headers."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import ChainableUndefined, Environment
from markupsafe import Markup

from riverdelta.bento.page.chart import losses
from riverdelta.core.losses import Loss
from riverdelta.evaluation.prequential import SCORERS
from riverdelta.serving.health import MEASURED, SINCE, gain

_FOLDER = files("riverdelta.bento.page")
_HTML, _STYLE, _SCRIPT = ((_FOLDER / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
_STYLED, _RUN = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT))
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLED}'; script-src 'sha256-{_RUN}'; connect-src 'self'; img-src data:; "
_POLICY += "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
#: A browser may use only this style and script, fetch only from this origin, and not show the page in a frame.
HEADERS = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
HEADERS |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


def _span(seconds: float) -> str:
    units = (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0))
    unit, length = next((each for each in units if seconds >= 2.0 * each[1]), ("s", 1.0))
    return f"{seconds / length:.0f} {unit}" if seconds >= 1.0 else f"{seconds:.2g} s"


def _number(text: Callable[[float], str]) -> Callable[[Any], str]:
    return lambda x: text(x) if isinstance(x, int | float) and math.isfinite(x) else "–"


_fixed = _number(lambda x: f"{x:.4f}".replace("-0.0000", "0.0000").replace("-", "\u2212"))
_environment = Environment(autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True)
#: The formats of finite numbers; any other value is a dash.
_environment.filters |= {
    "count": _number(lambda x: f"{x:,.0f}"),
    "fixed": _fixed,
    "percent": _number(lambda x: f"{x:.0%}"),
    "span": _number(_span),
    "time": _number(lambda x: f"{datetime.fromtimestamp(min(max(x, 0.0), 4e9), UTC):%Y-%m-%d %H:%M:%S} UTC"),
}
_named = SINCE | {"rotate-key": "key rotation", "drift": "drift alarm"}
_environment.globals |= {"style": Markup(_STYLE), "script": Markup(_SCRIPT), "named": _named}
_template = _environment.from_string(_HTML)


def draw(status: Mapping[str, Any], now: float, loss: Loss, **given: Any) -> str:
    """Return the page for a `GET /status` at `now` (Unix seconds).

    `given` are `releases` (the operator's rows), `back` (the target of a rollback), `fresh` (the seconds within which half and
    95% of feedback is in service) and `target` (the service, as on a command line).
    """
    learning = status.get("learning") or {}
    worth, second = learning.get("worth") or {}, "corrected" if learning.get("serve") == "base" else "served"
    events = {event["time"]: event for event in (worth.get("since"), *(learning.get("events") or ())) if event}
    marked = [event for _, event in sorted(events.items()) if not (event.get("details") or {}).get("refused")]
    chart = losses(learning.get("history") or {}, second, loss, marked, now)
    drifts = ((learning.get("drift") or {}).get("columns") or {}).items()
    columns = sorted((drift for drift in drifts if drift[1]["psi"] is not None), key=lambda drift: -drift[1]["psi"])
    shown = {"status": status, "now": now, "learning": learning, "worth": worth, "second": second, "loss": loss}
    shown |= {"chart": chart, "columns": columns, "outcome": gain(learning, loss), "apart": _apart(worth)}
    return render(**shown, measured=MEASURED, by_release=learning.get("guard") == "release", **given)


def render(**shown: Any) -> str:
    """Return the page with these variables, or the page of a refusal."""
    return _template.render(shown)


def _apart(worth: Mapping[str, Any]) -> str:
    """Return why the gain of the health sentence is not that of the table; empty if both are the same to four digits."""
    limited, base, served = (worth.get(name) or {} for name in ("gain", *SCORERS))
    if limited.get("mean") is None or base.get("loss") is None:
        return ""
    with_limit, without = _fixed(limited["mean"]), _fixed(base["loss"] - served["loss"])
    apart = f" With this limit the gain is {with_limit}; without it, and divided by the sum of weights, it is {without}."
    return "" if with_limit == without else apart
