"""Tables: prints results for people, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: The columns of numbers, which are aligned to the right.
_RIGHT = frozenset(
    {"release", "examples", "base", "served", "gain", "labels", "before", "after", "effect", "rows", "loss", "AUC"}
)

#: The longest line to write that is kept in one piece.
_LINE = 44

#: The least width of an operator's name beside it.
_MAKER = 8


def table(*headings: str) -> Table:
    """Return an empty table without lines."""
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_header=bool(headings))
    for heading in headings:
        made.add_column(heading, justify="right" if heading in _RIGHT else "left", no_wrap=heading in _RIGHT, overflow="fold")
    return made


def print_releases(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the releases, then the champion and the release that serves."""
    rows = list(rows)
    made = table("release", "made (UTC)", "examples", "base", "served", "gain", "labels", "verdict")
    for row in rows:
        losses = (row[name] for name in ("loss_base", "loss_served", "gain_on_champion"))
        made.add_row(
            str(row["release"]),
            datetime.fromtimestamp(row["time"], UTC).strftime("%m-%d %H:%M"),
            f"{row['examples']:,}",
            *("-" if value is None else f"{value:.4f}" for value in losses),
            "-" if row["trial_examples"] is None else f"{row['trial_examples']:,}",
            row["verdict"] or "-",
        )
    console = Console(highlight=False)
    console.print(made)
    console.print("base, served: mean loss until then; gain over the champion, on N labels", style="dim")
    for title, key in (("champion", "champion"), ("serving", "serving")):
        console.print(f"{title}: release {', '.join(str(row['release']) for row in rows if row[key]) or 'none yet'}")


def print_changes(found: Mapping[str, Any]) -> None:
    """Print the coefficients that changed between two releases."""
    made = table("correction", "table", "feature", "of", "before", "after", "effect")
    for change in found["changes"]:
        whose = change["id"] or ("" if change["slot"] is None else f"slot {change['slot']}")
        size = "-" if change["effect"] is None else f"{change['effect']:+.4f}"
        numbers = f"{change['before']:.4f}", f"{change['after']:.4f}", size
        made.add_row(change["correction"], change["table"], change["feature"], whose, *numbers)
    changed = ", ".join(f"{t['correction']}/{t['table']} {t['changed']:,} of {t['coefficients']:,}" for t in found["tables"])
    console = Console(highlight=False)
    console.print(made)
    console.print(
        f"from release {found['a']} to release {found['b']}, {found['examples']:+,} examples; changed: {changed or '-'}"
    )


def print_tensors(name: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Print the tensors of a model: inputs, inner tensors and outputs, with what to write to use each."""
    click.echo(name)
    console = Console(highlight=False)
    for place, title in (("input", "inputs"), ("inner", "inner tensors"), ("output", "outputs")):
        tensors = [tensor for tensor in found if tensor["place"] == place]
        if not tensors:
            continue
        made = table()
        made.show_header = True
        lines = [len(tensor["write"] or "") + 1 for tensor in tensors if place == "output"]
        line = max((line for line in lines if line < _LINE), default=0)
        widths = (max(len(heading), *(len(t[key]) for t in tensors)) for key, heading in (("name", title), ("type", "type")))
        room = console.width - sum(widths) - line - 3
        for heading in (title, "type"):
            made.add_column(heading, overflow="fold")
        if place != "input":
            made.add_column("made by", overflow="fold", max_width=max(room, _MAKER))
        # rich cuts off what a least width pushes past the edge.
        made.add_column("use", overflow="fold", min_width=line if line and room >= _MAKER else None)
        for tensor in tensors:
            use = Text(tensor["write"] if place == "output" and tensor["write"] else tensor["use"])
            if tensor["why"]:
                use.append(f"{' ' if use.plain == '-' else '; '}{tensor['why']}", style="dim")
            maker = () if place == "input" else (Text(tensor["producer"]),)
            made.add_row(Text(tensor["name"]), Text(tensor["type"]), *maker, use)
        console.print(made)
        console.print()
    console.print("N is the batch axis. A tap is used by any name: taps={'item_vec': 'TENSOR'}", style="dim")


def print_services(found: Mapping[str, str | Exception]) -> None:
    """Print the code of a service for each task: all of the first one, and of others what differs; then why there is none."""
    made = [(task, code) for task, code in found.items() if isinstance(code, str)]
    for at, (task, code) in enumerate(made):
        click.echo(f"\n# or with the task {task}\n{code[code.index('@online') :]}" if at else f"\n# service.py\n{code}")
    for task, why in found.items():
        if isinstance(why, Exception):
            said = f"No service with the task {task} can be written yet: {why}"
            click.echo("\n" + textwrap.fill(said, 80, break_long_words=False, break_on_hyphens=False))


def print_impression(found: Mapping[str, Any]) -> None:
    """Print what the journal holds about a row, one line per field."""
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name.replace('_', ' '):{width}}  {_text(name, value)}")


def print_figures(figures: Mapping[str, Any]) -> None:
    """Print figures with their names."""
    made = table()
    for name, value in figures.items():
        digits = 4 if isinstance(value, float) and abs(value) < 1000 else 0
        made.add_row(name, f"{value:,.{digits}f}" if isinstance(value, float) else str(value))
    Console().print(made)


def _text(name: str, value: Any) -> str:
    if value is not None and name in ("time", "shown", "event"):
        return datetime.fromtimestamp(value, UTC).isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, dict):
        return "  ".join(f"{key}={_short(part)}" for key, part in value.items())
    return _short(value)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
