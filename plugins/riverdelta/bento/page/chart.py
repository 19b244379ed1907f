"""Chart: two losses over time as an SVG, whose lines scale with the page and whose text does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from riverdelta.core.losses import Loss
from riverdelta.evaluation.history import Point, parts_of
from riverdelta.serving.health import SINCE, figure

_LOSSES = [factor * 10.0**power for power in range(-4, 300) for factor in (1.0, 2.0, 5.0)]
_SECONDS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, *(86_400 * 2**k for k in range(16))]
_TEXT, _PATH = Markup('<text class="{}" x="{:.2f}%" y="{:.2f}%">{}</text>'), Markup('<path class="{}" d="{}"/>')
_LINES = 'viewBox="0 0 100 100" preserveAspectRatio="none"'
#: The steps of time within which points are averaged, and the width of a mark's label, in percent.
_COLUMNS, _LABEL = 120, 10.0
_PLOT = Markup(f'<svg class="plot" role="img" aria-label="{{}}"><svg {_LINES}>{{}}</svg>{{}}</svg>')


def losses(history: Mapping[str, Any], second: str, loss: Loss, events: Iterable[Any] = (), now: float = 0.0) -> Markup | None:
    """Return a chart of the losses of base and `second` by label time until `now`; None below two points.

    A line has a gap where no labels came, and a mark at each rollback, promotion and rebase in `events` (oldest first). Points
    are in order of time, and those dated after `now` are at its end: a clock was set back since.
    """
    rows = zip(*(history.get(name) or () for name in ("time", "base", "served")), strict=False)
    points = sorted((min(row[0], now or row[0]), *row[1:]) for row in rows if None not in row)
    if len(points) < 2:
        return None
    start = points[0][0]
    end = max(now, points[-1][0], start + 1.0)
    runs = parts_of(points, (end - start) / _COLUMNS)
    values = [value for run in runs for _, *pair in run for value in pair]
    low, high = min(values) - 1e-4, max(values) + 1e-4

    def at(time: float, value: float) -> Point:
        return 100.0 * (time - start) / (end - start), 100.0 * (high - value) / (high - low)

    times, up, across = _ticks(start, end, 4, _SECONDS), "M0 {1:.2f}H100", "M{0:.2f} 0V100"
    short = "%H:%M:%S" if any(time % 60 for time in times) else "%H:%M" if end - start < 86_400 else "%a %H:%M"
    form = short if any(time % 86_400 for time in times) else "%d %b"
    marks = [
        ("up", at(start, value), up, f"{value:,.0f}" if 1e4 <= value < 1e8 else f"{value:.4g}")
        for value in _ticks(low, high, 6, _LOSSES)
    ]
    marks += [("across", at(time, low), across, f"{datetime.fromtimestamp(time, UTC):{form}}") for time in times]
    taken: list[float] = []
    for event in reversed([event for event in events if event["action"] in SINCE and start <= event["time"] <= end]):
        place = at(event["time"], high)
        side, left = ("since before", place[0] - _LABEL) if place[0] > 50.0 else ("since", place[0])  # the roomier side
        fits = all(abs(left - other) >= _LABEL for other in taken)
        taken += [left] * fits
        marks.append((side, place, across, SINCE[event["action"]].split()[0] if fits else ""))
    lines = [_PATH.format(kind, line.format(*place)) for kind, place, line, _ in marks]
    for i, kind in ((1, "base"), (2, "served")):
        paths = ["M" + "L".join("{:.2f} {:.2f}".format(*at(point[0], point[i])) for point in run) for run in runs]
        lines.append(_PATH.format(kind, "".join(paths)))
        lines.append(_PATH.format(f"{kind} dot", "".join(f"{path}h.01" for path in paths if "L" not in path)))
    texts = [_TEXT.format(kind, *place, text) for kind, place, _, text in marks if text]
    ends = [f"{name} from {figure(points[0][i])} to {figure(points[-1][i])}" for i, name in ((1, "base"), (2, second))]
    label = f"{loss.name} in {loss.unit} a {loss.example} at {len(points)} times: {', '.join(ends)}"
    return _PLOT.format(label, Markup("").join(lines), Markup("").join(texts))


def _ticks(low: float, high: float, most: int, steps: Sequence[float]) -> list[float]:
    """Return the multiples in a range of the first step that divides it into at most `most` parts."""
    step = next((step for step in steps if step >= (high - low) / most), steps[-1])
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
