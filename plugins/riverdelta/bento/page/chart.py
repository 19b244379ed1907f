"""Chart: two lines of losses as one SVG that stretches, with its scales beside it as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from riverdelta.bento.page.wording import count, nats, number

WIDTH, HEIGHT = 600, 200
#: More points than this a phone cannot show: neighbours are averaged.
_MOST = 60
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_GAPS = 4


@dataclass(frozen=True)
class Chart:
    """The picture, the labels of its scales (top to bottom, left to right), its description and its figures."""

    svg: Markup
    losses: list[str]
    examples: list[str]
    rows: list[tuple[str, str, str]]


def losses(history: Mapping[str, Any], second: str) -> Chart | None:
    """Draw base and the `second` line over examples; None before there are two points."""
    points = _points(history)
    if len(points) < 2:
        return None
    low, high = _range([z for point in points for z in point[1:]])
    first, last = points[0][0], points[-1][0]

    def place(n: float, loss: float) -> str:
        x = WIDTH * (n - first) / (last - first)
        return f"{x:.1f},{HEIGHT * (high - loss) / (high - low):.1f}"

    base, served = ([place(n, pair[i]) for n, *pair in points] for i in (0, 1))
    label = (
        f"Log loss of the base and {second}, in nats a row, over {count(last)} examples: base from {nats(points[0][1])} to "
        f"{nats(points[-1][1])}, {second} from {nats(points[0][2])} to {nats(points[-1][2])}."
    )
    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="{}" y1="{y}" y2="{y}"/>').format(WIDTH, y=HEIGHT * i / _GAPS)
        for i in range(_GAPS + 1)
    )
    svg = Markup(
        '<svg viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{label}">{grid}'
        '<polygon class="between" points="{area}"/><polyline class="base" points="{base}"/>'
        '<polyline class="served" points="{served}"/></svg>'
    ).format(
        w=WIDTH,
        h=HEIGHT,
        label=label,
        grid=grid,
        area=" ".join(base + served[::-1]),
        base=" ".join(base),
        served=" ".join(served),
    )
    spread = [low + (high - low) * i / _GAPS for i in range(_GAPS, -1, -1)]
    places = max(0, 2 - math.floor(math.log10(high - low)))
    every = max(1, math.ceil(len(points) / 12))
    return Chart(
        svg,
        [f"{loss:.{places}f}" for loss in spread],
        [count(n) for n in (first, (first + last) / 2, last)],
        [(count(n), nats(b), nats(s)) for n, b, s in points[::-1][::every]],
    )


def bar(share: Any) -> Markup:
    """Draw a part of a whole, 0 to 1; what says how much stands beside it in words."""
    part = min(max(number(share) or 0.0, 0.0), 1.0)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="whole" width="100" '
        'height="6"/><rect class="part" width="{:.1f}" height="6"/></svg>'
    ).format(100 * part)


def _points(history: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """(examples, base, second) of all points that have both, `_MOST` at the most."""
    columns = (history.get(name) or () for name in ("examples", "base", "served"))
    # A history of another version may be anything: what is not a number is left out.
    points = [
        (n, b, s) for n, b, s in (tuple(map(number, row)) for row in zip(*columns, strict=False)) if None not in (n, b, s)
    ]
    whole = [(n or 0.0, b or 0.0, s or 0.0) for n, b, s in points]
    each = math.ceil(len(whole) / _MOST) if whole else 1
    groups = [whole[i : i + each] for i in range(0, len(whole), each)]
    made = [(g[-1][0], sum(p[1] for p in g) / len(g), sum(p[2] for p in g) / len(g)) for g in groups]
    return made if len(made) < 2 or made[0][0] < made[-1][0] else []


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Round numbers around all values, `_GAPS` equal steps apart."""
    low, high = min(values), max(values)
    least = max((high - low) / _GAPS, 1e-3)
    for power in range(math.floor(math.log10(least)), 310):
        for factor in _STEPS:
            step = factor * 10.0**power
            start = math.floor(low / step) * step
            if step >= least and start + _GAPS * step >= high:
                return start, start + _GAPS * step
    return low, high
