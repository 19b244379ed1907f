"""`riverdelta replay --dataset`: a public data set as a service would have met it, beside simple baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from riverdelta.cli.tables import table
from riverdelta.core.settings import DAY
from riverdelta.lab.datasets.find import cache_of, data_set, folder_of

#: Measures that are better when higher; of any other the lower is better.
_HIGHER = frozenset({"accuracy", "macro_f1", "auc", "ndcg10", "mrr", "r2", "f1", "precision"})
_STREAM = "the stream, prequential"
#: What reports hold besides measures.
_NOT_SHOWN = frozenset({"skipped", "clipped", "threshold", "auc_error"})


def rehearsed(
    name: str, given: Path | None, work: Path | None, lag_rows: int | None, lag_seconds: float | None
) -> dict[str, Any]:
    """Return the figures of a data set: measures of base, served and baselines, and whether learning helped, in words."""
    from riverdelta.lab.rehearsal import rehearse

    data, work = data_set(name), work or cache_of(name)
    split = data.load(folder_of(name, given), work)
    base = data.trained(split.first, work)
    if lag_rows is None and lag_seconds is None:
        lag_rows, lag_seconds = data.lag_rows, data.lag_seconds
    late_rows, late_seconds = lag_rows or 0, lag_seconds or 0.0
    if late_rows and late_seconds:
        raise click.UsageError("give one of --lag and --lag-seconds")
    definition = data.definition(base)
    found = asdict(rehearse(definition, split.later, late_rows, late_seconds, split.held_out, data.after))
    for other, (stream, options) in split.others.items():
        scorer = replace(definition, **options)
        more = rehearse(scorer, stream, late_rows, late_seconds, split.held_out, data.after)
        measured = {_STREAM: more.stream, **more.held_out}
        found["held_out"].update({f"{title}, {other}": measures for title, measures in measured.items()})
    made = {
        "data": name,
        "about": data.about,
        "base": str(base),
        "base_rows": len(split.first),
        "rows": len(split.later),
        "measure": data.measure,
        "decides": data.decides,
        "lag_rows": late_rows,
        "lag_seconds": late_seconds,
        **found,
    }
    return {**made, "verdict": verdict(made)}


def verdict(figures: Mapping[str, Any]) -> str:
    """Return in words whether learning helped by the measure of the task, and why a simple baseline is better if one is."""
    measure, decides = figures["measure"], figures["decides"]
    deciding = figures["stream"] if decides is None else figures["held_out"][decides]
    sign = 1 if measure in _HIGHER else -1
    values = {who: of[measure] for who, of in deciding.items() if _number(of.get(measure))}
    if not {"base", "served"} <= set(values):
        return f"{figures['measure']} is unknown: too few labels were known."
    base, served = values.pop("base"), values.pop("served")
    helped = "helps" if sign * (served - base) > 0 else "does not help"
    said = f"Learning {helped}: {measure} {base:.4g} → {served:.4g}{'' if decides is None else f' ({decides})'}."
    losses = [deciding[who].get("loss") for who in ("base", "served")]
    if helped == "does not help" and all(map(_number, losses)):
        said += f" The loss, which it lowers, went {losses[0]:.4g} → {losses[1]:.4g}."
    gate = figures["gate"]
    below = "below" if gate["gain"] >= 0 else "above"
    said += f" In total the loss is {abs(gate['gain']):.4g} {below} that of the base. Its excess over the better of base and"
    said += f" corrections is {gate['excess']:.4g}; the gate's bound is {gate['bound']:.4g}, and at the end it mixes in"
    said += f" {gate['weight']:.0%}."
    ordered = sorted(values, key=lambda who: -sign * values[who])
    better = [f"{who} ({values[who]:.4g})" for who in ordered if sign * (values[who] - served) > 0]
    worse = [f"{who} ({values[who]:.4g})" for who in ordered if sign * (values[who] - served) <= 0]
    if better:
        said += f" It loses to {' and '.join(better)}."
    if worse:
        said += f" Not better: {' and '.join(worse)}."
    if figures["known"] < 0.5:
        said += f" Only {figures['known']:.0%} of the labels were known before the last row was scored."
    repeats = figures["repeats"]
    if repeats is not None and repeats > 0.9:
        said += f" {repeats:.1%} of the labels equal the one before, so the last known label says much while it is fresh."
    return said


def print_rehearsal(figures: Mapping[str, Any]) -> None:
    """Print the comparison, the rows that were only scored, and the verdict."""
    console = Console(highlight=False)
    rows, seconds = figures["lag_rows"], figures["lag_seconds"]
    late = f"{rows} rows or lists later" if rows else f"{_span(seconds)} later" if seconds else "before the next row or list"
    console.print(f"{figures['data']}: {figures['about']}")
    console.print(f"{figures['base_rows']:,} rows before, {figures['rows']:,} in the stream; labels are known {late}")
    for title, measures in {_STREAM: figures["stream"], **figures["held_out"]}.items():
        names = [n for n in measures["served"] if n not in _NOT_SHOWN and _number(measures["served"][n])]
        shown = table("", *names)
        for who, found in measures.items():
            shown.add_row(who, *(_shown(found.get(name)) for name in names))
        console.print(f"\n{title}", style="bold")
        console.print(shown)
    if figures["intervals"]:
        shown = table("month", "labels", "served", "fixed", "width", "fixed width")
        for month in figures["intervals"]:
            shown.add_row(*(value if isinstance(value, str) else _shown(value) for value in month.values()))
        console.print("\nlabels within the interval as served, and within a fixed one (split conformal)", style="bold")
        console.print(shown)
    console.print(f"\n{figures['verdict']}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if _number(value) else "-"


def _span(seconds: float) -> str:
    days = seconds / DAY
    return f"{days:g} days" if days >= 1 else f"{seconds:g} seconds"
