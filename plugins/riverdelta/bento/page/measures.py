"""Measures: the tables of the status page, made of the measures that a report has, whatever its task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from riverdelta.core.losses import Loss
from riverdelta.evaluation.prequential import SCORERS

#: By key in a report: the name, and whether higher (1) or lower (-1) is better, or neither (0).
_NAMES = {
    "auc": ("AUC", 1), "accuracy": ("accuracy", 1), "macro_f1": ("macro F1", 1), "calibration": ("calibration error", -1),
    "mae": ("MAE", -1), "rmse": ("RMSE", -1), "r2": ("R²", 1), "bias": ("bias", 0), "deviance": ("Poisson deviance", -1),
    "ndcg10": ("NDCG@10", 1), "mrr": ("MRR", 1), "calibration_ratio": ("Σ score / Σ label", 0),
}  # fmt: skip
#: The classes that are listed one by one.
_CLASSES = 20


class Row(NamedTuple):
    """A measure or a class: base, served, and what served gains, None if higher is neither better nor worse."""

    name: str
    base: float | None
    served: float | None
    gain: float | None


def measured(base: Mapping[str, Any], served: Mapping[str, Any], loss: Loss) -> list[Row]:
    """Return a row for each measure of two reports, the loss first.

    >>> from riverdelta.core.losses import LOG_LOSS
    >>> measured({"loss": 0.5, "mrr": 0.25}, {"loss": 0.25, "mrr": 0.5}, LOG_LOSS)[1]
    Row(name='MRR', base=0.25, served=0.5, gain=0.25)
    """
    names = _named([base], loss)
    return [_row(name, base.get(key), served.get(key), sign) for key, (name, sign) in names.items()]


def beside(report: Mapping[str, Mapping[str, Any]], loss: Loss) -> tuple[list[str], dict[str, list[Any]]] | None:
    """Return the names of measures, and their values for each scorer; None of a report without simple predictions.

    >>> from riverdelta.core.losses import LOG_LOSS
    >>> beside({"base": {"accuracy": 0.5}, "served": {"accuracy": 0.75}, "last_label": {"accuracy": 0.625}}, LOG_LOSS)
    (['accuracy'], {'base': [0.5], 'served': [0.75], 'last label': [0.625]})
    """
    if not report.keys() - set(SCORERS):
        return None
    names = _named(report.values(), loss)
    values = {scorer.replace("_", " "): [found.get(key) for key in names] for scorer, found in report.items()}
    return [name for name, _ in names.values()], values


def recalls(base: Mapping[str, Any], served: Mapping[str, Any]) -> list[Row]:
    """Return the recall of each of the first 20 classes, and the mean over all others; empty without classes.

    >>> recalls({"recall": {"fault": 0.5}}, {"recall": {"fault": 0.75}})
    [Row(name='fault', base=0.5, served=0.75, gain=0.25)]
    """
    before, after = base.get("recall"), served.get("recall")
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        return []
    names = list(after)
    rest = names[_CLASSES:]
    rows = [_row(name, before.get(name), after[name], 1) for name in names[:_CLASSES]]
    if not rest:
        return rows
    base_mean, served_mean = (_mean(each.get(name) for name in rest) for each in (before, after))
    return [*rows, _row(f"mean of {len(rest)} other classes", base_mean, served_mean, 1)]


def _named(reports: Any, loss: Loss) -> dict[str, tuple[str, int]]:
    """Return the names and signs of the numbers in reports; the accuracy at a threshold is left out."""
    keys = {key for report in reports for key in report if not ("threshold" in report and key == "accuracy")}
    return {key: named for key, named in ({"loss": (loss.name, -1)} | _NAMES).items() if key in keys}


def _row(name: str, base: float | None, served: float | None, sign: int) -> Row:
    known = sign and base is not None and served is not None
    return Row(name, base, served, sign * (served - base) if known else None)  # type: ignore[operator]


def _mean(values: Iterator[float | None]) -> float | None:
    known: Sequence[float] = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
