"""Render: the templates with their one style and one script, and the headers under which a browser shows them."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = files("riverdelta.bento.page")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _read("page.css"), _read("page.js")
#: Nothing but this style, this script, and what the script fetches from here; and nobody may put the page into a frame.
POLICY = (
    f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_templates = Environment(
    loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
# Ours, and the same at every request: their hashes are in the policy.
_templates.globals |= {"style": Markup(_STYLE), "script": Markup(_SCRIPT)}


def page(shown: dict[str, Any]) -> str:
    """Return the page of a view."""
    return _templates.get_template("page.html").render(shown)


def refused(message: str, token: bool) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the page of a refusal; `token` says that one is missing."""
    return dict(HEADERS), _templates.get_template("refused.html").render(message=message, token=token).encode()
