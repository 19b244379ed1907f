"""The operator's routes, described."""

from __future__ import annotations

from riverdelta.bento.command import COMMANDS, MOST_CHANGES, MOST_RELEASE, MOST_SECONDS, WAIT_SECONDS
from riverdelta.bento.openapi.parts import COUNT, STRING, Json, array, content, operation, query, record
from riverdelta.sidecar.operator import ANSWERED

_RELEASE: Json = {"type": "integer", "minimum": 0, "maximum": MOST_RELEASE}
_NUMBER: Json = {"type": ["number", "null"]}
_MAYBE: Json = {"type": ["integer", "null"]}
_TAKES: Json = {
    "release": _RELEASE,
    "relearn": {"type": "boolean", "description": "Learn the examples since that release again."},
    "freeze": {"type": "boolean", "description": "Learn nothing more until it is resumed."},
    "promote": {"type": "boolean", "description": "Make that release the champion, too."},
}
_WAIT: Json = {
    "type": "number",
    "minimum": 0,
    "maximum": MOST_SECONDS,
    "default": WAIT_SECONDS,
    "description": "Seconds to wait for the learner; the service's own timeout may end that sooner, and the command stands.",
}
_FLAG: Json = {"type": "boolean"}
_TEXT: Json = {"type": ["string", "null"]}
_STANDS: Json = {**dict.fromkeys(ANSWERED, _MAYBE), "frozen": {"type": ["boolean", "null"]}}
_OUTCOME = record({"sequence": COUNT, "obeyed": _FLAG, "refused": {"type": "null"}, "waits": _TEXT, **_STANDS})
_ROW: Json = {
    **dict.fromkeys(("release", "examples", "bytes"), COUNT),
    "time": {"type": "number"},
    **dict.fromkeys(("log_loss_base", "log_loss_served", "gain_on_champion"), _NUMBER),
    "verdict": _TEXT,
    **dict.fromkeys(("champion", "serving"), _FLAG),
}
_RELEASES = record({"releases": array(record(_ROW))})
_WHERE: Json = {"correction": STRING, "table": STRING}
_TURNOVER = record({**_WHERE, "changed": COUNT, "coefficients": COUNT})
_BETWEEN: Json = dict.fromkeys(("before", "after", "logits"), _NUMBER)
_CHANGE = record({**_WHERE, "feature": STRING, "slot": _MAYBE, "id": _TEXT, **_BETWEEN})
_DIFF = record({"a": COUNT, "b": COUNT, "examples": {"type": "integer"}, "tables": array(_TURNOVER), "changes": array(_CHANGE)})


def admin_paths(error: Json) -> Json:
    """Return the operations below /admin by path; `error` is the schema of a refusal."""
    a, b = (query(name, _RELEASE, f"Release {name.upper()}.", required=True) for name in ("a", "b"))
    top = query("top", {"type": "integer", "minimum": 1, "maximum": MOST_CHANGES}, "How many changes to show.")
    ids = query("id", array(STRING), "Show the coefficients of this id alone: column=value, for each column of a cross.")
    release = query("release", _RELEASE, "The release; the newest that is whole by default.")
    compared = operation("The coefficients that changed most.", error, None, _DIFF, (400, 404), [a, b, top, ids])
    export = operation("A release as one self-contained ONNX file.", error, None, {}, (400, 404, 501), [release])
    export["responses"]["200"]["content"] = {"application/octet-stream": {}}
    reads = {"releases": operation("The releases.", error, None, _RELEASES, (400,)), "diff": compared, "export": export}
    made: Json = {f"/admin/{name}": {"get": read} for name, read in reads.items()}
    for name, (summary, named) in COMMANDS.items():
        takes = {**{key: _TAKES[key] for key in named}, "wait": _WAIT}
        needed = ["release"] if name == "promote" else []
        body = {**record(takes), "required": needed, "examples": [dict.fromkeys(needed, 0)]}
        written = operation(summary, error, body, _OUTCOME, (404, 409, 413, 415))
        waits = {"description": "Written into the journal and not yet obeyed; `waits` says why.", **content(_OUTCOME)}
        made[f"/admin/{name}"] = {"post": written | {"responses": {**written["responses"], "202": waits}}}
    return made
