"""Panels: the kinds in use, each with a title, a description with what to do, a unit and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, stat, statetimeline, text, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.text import TextMode

from boards.queries import SOURCE, Ask

#: Losses are in the unit of the task's loss, such as nats; "none" because Grafana cannot read a unit from a label.
LOSS, LOSS_ROW = "none", "suffix: a row"
ROWS, ROWS_SECOND, RECORDS = "count:rows", "count:rows/s", "count:records"
SECONDS, RATIO, BYTES, REQUESTS_SECOND, NUMBER = "s", "percentunit", "bytes", "reqps", "none"
SCIENTIFIC = "sci"

#: (value, colour from that value on); None: from the lowest.
Steps = Sequence[tuple[float | None, str]]
GOOD, WARN, BAD, NOTE = "green", "orange", "red", "blue"
#: The colours of what is neither good nor bad.
PLAIN: Steps = ((None, NOTE),)
#: The lines of base and served, the same everywhere.
_SCORERS = {"base": ("#c98a1b", "dash"), "served": ("#3f83e8", "solid"), "corrected": ("#8f5bd6", "solid")}
_NOTHING = "–"


def tile(
    title: str,
    description: str,
    unit: str,
    ask: Ask,
    steps: Steps = PLAIN,
    said: Mapping[int, tuple[str, str]] | None = None,
    decimals: int | None = None,
    nothing: str = _NOTHING,
    answer: bool = False,
    to: str = "",
) -> stat.Panel:
    """Return a large value with its history, or the text that `said` has for it, with its colour.

    An `answer` is readable from afar: its colour fills the tile. `to` names the dashboard with details.
    """
    made = (
        stat.Panel()
        .color_mode(c.BigValueColorMode.BACKGROUND_SOLID if said or answer else c.BigValueColorMode.VALUE)
        .graph_mode(c.BigValueGraphMode.NONE if said else c.BigValueGraphMode.AREA)
        .text_mode(c.BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_scheme(FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .mappings([*_sentences(said or {}), _blank(nothing)])
        .no_value(nothing)
    )
    if decimals is not None:
        made = made.decimals(decimals)
    if to:
        url = f"/d/riverdelta-{to.lower()}?${{__url_time_range}}&${{__all_variables}}"
        made = made.links([DashboardLink(to).type(models.DashboardLinkType.LINK).url(url)])
    return _panel(made, title, description, unit, steps, [ask], instant=bool(said))


def lines(
    title: str,
    description: str,
    unit: str,
    *asks: Ask,
    steps: Steps = PLAIN,
    low: float | None = None,
    high: float | None = None,
    stacked: bool = False,
    interval: bool = False,
    log: bool = False,
) -> timeseries.Panel:
    """Return lines over time; an `interval` is a mean with its lower and upper end, for the served scores."""
    limits = c.GraphThresholdsStyleMode.DASHED if len(steps) > 1 else c.GraphThresholdsStyleMode.OFF
    made = (
        timeseries.Panel()
        .draw_style(c.GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(30 if stacked else 0)
        .show_points(c.VisibilityMode.AUTO)
        .span_nulls(False)
        .color_scheme(FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(limits))
        .stacking(common.StackingConfig().mode(c.StackingMode.NORMAL if stacked else c.StackingMode.NONE).group("A"))
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(c.LegendDisplayMode.TABLE)
            .placement(c.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull"])
        )
        .no_value(_NOTHING)
    )
    if any("{{scorer}}" in ask.legend for ask in asks):
        for scorer, (color, dash) in _SCORERS.items():
            style = {"fill": dash, "dash": [8, 6]} if dash == "dash" else {"fill": dash}
            properties = [_fixed(color), _set("custom.lineStyle", style)]
            made = made.override_by_regexp(f"/^{scorer} /", properties)
    if interval:
        made = made.override_by_regexp("/./", [_fixed(_SCORERS["served"][0])])
        made = made.override_by_regexp("/^(lower|upper) /", [_set("custom.lineWidth", 1)])
    if log:
        made = made.scale_distribution(common.ScaleDistributionConfig().type(c.ScaleDistribution.LOG).log(10))
    made = made.min(low) if low is not None else made
    made = made.max(high) if high is not None else made
    return _panel(made, title, description, unit, steps, asks)


def bars(title: str, description: str, unit: str, ask: Ask, steps: Steps = PLAIN, high: float | None = None) -> bargauge.Panel:
    """Return one bar per series with its current value."""
    made = (
        bargauge.Panel()
        .orientation(c.VizOrientation.HORIZONTAL)
        .display_mode(c.BarGaugeDisplayMode.BASIC)
        .show_unfilled(True)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_scheme(FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .mappings([_blank(_NOTHING)])
        .no_value(_NOTHING)
        .min(0)
    )
    return _panel(made.max(high) if high is not None else made, title, description, unit, steps, [ask], instant=True)


def states(title: str, description: str, ask: Ask, said: Mapping[int, tuple[str, str]]) -> statetimeline.Panel:
    """Return a condition over time, each with its text and colour."""
    made = (
        statetimeline.Panel()
        .mappings(_sentences(said))
        .merge_values(True)
        .show_value(c.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(75)
        .line_width(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(c.LegendDisplayMode.LIST)
            .placement(c.LegendPlacement.BOTTOM)
            .show_legend(False)
        )
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.SINGLE).sort(c.SortOrder.NONE))
        .color_scheme(FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .no_value(_NOTHING)
    )
    return _panel(made, title, description, NUMBER, PLAIN, [ask])


def note(title: str, description: str, content: str) -> text.Panel:
    """Return a text in Markdown."""
    return text.Panel().title(title).description(description).mode(TextMode.MARKDOWN).content(content)


def _panel(made: Any, title: str, description: str, unit: str, steps: Steps, asks: Sequence[Ask], instant: bool = False) -> Any:
    limits = [models.Threshold(value=value, color=color) for value, color in steps]
    made = (
        made.title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(limits))
    )
    for ref, ask in zip("ABCDEFGH", asks, strict=False):
        made = made.with_target(ask.query(ref, instant))
    return made


def _sentences(said: Mapping[int, tuple[str, str]]) -> list[models.ValueMapping]:
    options = {
        str(number): models.ValueMappingResult(text=sentence, color=color, index=at)
        for at, (number, (sentence, color)) in enumerate(said.items())
    }
    return [models.ValueMap(options=options)] if options else []


def _blank(nothing: str) -> models.SpecialValueMap:
    """NaN is a value that the learner has not reported yet."""
    result = models.ValueMappingResult(text=nothing, color="text", index=99)
    return models.SpecialValueMap(
        options=models.DashboardSpecialValueMapOptions(match=models.SpecialValueMatch.NULL_AND_NAN, result=result)
    )


def _fixed(color: str) -> models.DynamicConfigValue:
    return _set("color", {"mode": models.FieldColorModeId.FIXED, "fixedColor": color})


def _set(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)
