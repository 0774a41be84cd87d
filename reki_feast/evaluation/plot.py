"""A picture of a table: a panel a metric, a bar a measure, the paper's figures as marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reki_feast.errors import MissingExtraError
from reki_feast.escaping import visible
from reki_feast.evaluation.measures import Measure, ResultTable
from reki_feast.evaluation.render import written
from reki_feast.files import atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#4c6a92", "#c58b4e", "#7a9e7e", "#8f7aa8", "#9a9a9a")
_INK, _RULE = "#333333", "#d9d9d9"
_PAPER = "_paper"  # the underscore keeps it out of a legend made by itself
_LONG, _FEW = 10, 6  # letters of a label above which bars lie; bars up to which they do
_WIDTH = 7.2  # inches
_ACROSS, _SIGN = 72, 8  # letters that a legend has room for, and those that a name's sign takes
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "reki-feast",  # ids of an SVG are random without it
    "svg.fonttype": "path",  # the same picture wherever it is seen
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _INK,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.parse_math": False,  # a name may hold dollars
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Panel:
    """The bars of one metric: groups along the axis, a bar a series in each.

    Attributes:
        label: of the axis of values.
        groups: their names.
        series: their names; one without a name needs no legend.
        bars: by place of group and series.
    """

    label: str
    groups: tuple[str, ...]
    series: tuple[str, ...]
    bars: dict[tuple[int, int], Measure]

    @property
    def lies(self) -> bool:
        """Whether bars lie, a number beside each: few bars, long names, or times of a base."""
        named = any(len(name) > _LONG for name in self.groups)
        return named or self.start > 0 or len(self.bars) <= _FEW

    @property
    def start(self) -> float:
        """Where the line is that bars are compared with."""
        return 1.0 if any(bar.form == "times" for bar in self.bars.values()) else 0.0


def check() -> None:
    """See, before anything is trained, that pictures can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    _matplotlib()


def draw(table: ResultTable, folder: Path) -> list[Path]:
    """Write ``NAME.svg`` and ``NAME.png``; the same table gives the same bytes.

    Returns:
        The files; none where the table has nothing to draw.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures, rc_context = _matplotlib()
    panels = panels_of(table)
    if not panels:
        return []
    size = (_WIDTH, 0.3 + sum(map(_height, panels)))
    with rc_context(_STYLE):
        figure = figures(figsize=size, layout="constrained", facecolor="white")
        _fill(figure, visible(table.title), panels)
        paths = [folder / f"{table.name}.svg", folder / f"{table.name}.png"]
        plain = {"Date": None, "Creator": None}
        atomically(paths[0], partial(figure.savefig, format="svg", metadata=plain))
        of_pixels = {"Software": None}
        atomically(paths[1], partial(figure.savefig, format="png", dpi=160, metadata=of_pixels))
    return paths


def panels_of(table: ResultTable) -> list[Panel]:
    """The panels of a table: one a drawn metric, or one a series of it where metrics are rows.

    A row's first text names its group; its other texts, or the series, name a bar in it.
    """
    panels = []
    for metric in table.drawn:
        measures = [measure for measure in table.measures if measure.metric == metric]
        series = dict.fromkeys(measure.series for measure in measures)
        if len(series) > 1 and any(measure.row[1:] for measure in measures):
            panels += [_panel([m for m in measures if m.series == name], name) for name in series]
        elif measures:
            panels.append(_panel(measures, ""))
    return panels


def _panel(measures: Sequence[Measure], name: str) -> Panel:
    names = [visible(" ".join(measure.row[1:]) or measure.series) for measure in measures]
    heads = [visible(measure.row[0]) for measure in measures]
    groups = tuple(dict.fromkeys(heads))
    series = tuple(dict.fromkeys(names))
    bars = {
        (groups.index(head), series.index(own)): measure
        for measure, head, own in zip(measures, heads, names, strict=True)
    }
    return Panel(_label(measures, name), groups, series, bars)


def _label(measures: Sequence[Measure], name: str) -> str:
    units = list(dict.fromkeys(measure.unit for measure in measures))
    unit = units[0] if len(units) == 1 else ""
    word = "gain" if measures[0].form == "gain" else ""
    what = " in ".join(filter(None, [word, unit]))
    return visible(f"{what}, {name}" if name else what)


def _matplotlib() -> tuple[type[Figure], Any]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "matplotlib draws the pictures of an evaluation",
            detail=f"it cannot be imported: {error}",
            hint='pip install "reki-feast[evaluate]"',
        ) from error
    return Figure, rc_context


def _height(panel: Panel) -> float:
    """Inches that the bars of a panel need."""
    rows = math.ceil(len(panel.series) / _legend_columns(panel.series))
    legend = 0.3 * rows if len(panel.series) > 1 else 0.0
    return 0.8 + legend + (0.34 * len(panel.bars) if panel.lies else 2.2)


def _fill(figure: Figure, title: str, panels: Sequence[Panel]) -> None:
    heights = [_height(panel) for panel in panels]
    every = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    for axes, panel in zip(every, panels, strict=True):
        _bars(axes, panel)
        _frame(axes, panel)
        _legend(axes, panel)


def _bars(axes: Axes, panel: Panel) -> None:
    width = 0.8 / len(panel.series) if len(panel.series) > 1 else 0.56
    for at, name in enumerate(panel.series):
        found = [(group, bar) for (group, place), bar in panel.bars.items() if place == at]
        shift = (at - (len(panel.series) - 1) / 2) * width
        places = [group + shift for group, _ in found]
        means = [bar.ours.mean - panel.start for _, bar in found]
        spread = [bar.ours.std or 0.0 for _, bar in found]
        style: dict[str, Any] = {"color": _COLOURS[at % len(_COLOURS)], "zorder": 2}
        style |= {"left" if panel.lies else "bottom": panel.start, "label": name}
        if any(spread):
            style |= {"xerr" if panel.lies else "yerr": spread, "capsize": 2.0, "ecolor": _INK}
            style["error_kw"] = {"elinewidth": 0.9}
        (axes.barh if panel.lies else axes.bar)(places, means, width * 0.94, **style)
        _paper(axes, panel, places, [bar for _, bar in found])
        if panel.lies:
            _values(axes, places, [bar for _, bar in found])


def _paper(axes: Axes, panel: Panel, places: Sequence[float], bars: Sequence[Measure]) -> None:
    """The paper's figures: a mark each, or the two ends of a span."""
    mark: dict[str, Any] = {"marker": "D", "markersize": 5, "markerfacecolor": "white"}
    mark |= {"color": _INK, "zorder": 4, "label": _PAPER}
    for place, bar in zip(places, bars, strict=True):
        if bar.reference is not None:
            span = bar.reference if isinstance(bar.reference, tuple) else (bar.reference,)
            across = [place] * len(span)
            where = (span, across) if panel.lies else (across, span)
            axes.plot(*where, linestyle="-" if len(span) > 1 else "none", **mark)


def _values(axes: Axes, places: Sequence[float], bars: Sequence[Measure]) -> None:
    """The numbers themselves, in a column beside lying bars."""
    for place, bar in zip(places, bars, strict=True):
        style: dict[str, Any] = {"va": "center", "fontsize": 8}
        text = written(bar.ours, bar.form).replace("-", "\N{MINUS SIGN}")
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), **style)


def _frame(axes: Axes, panel: Panel) -> None:
    """Names of the groups, the line of no difference, and a quiet grid."""
    places = range(len(panel.groups))
    line: dict[str, Any] = {"color": _INK, "linewidth": 0.9, "zorder": 3}
    if panel.lies:
        axes.set_yticks(places, labels=panel.groups)
        axes.invert_yaxis()
        axes.set_xlabel(panel.label)
        axes.locator_params(axis="x", nbins=6)
        axes.axvline(panel.start, **line)
    else:
        axes.set_xticks(places, labels=panel.groups)
        axes.set_ylabel(panel.label)
        axes.axhline(panel.start, **line)
    axes.grid(axis="x" if panel.lies else "y", color=_RULE, linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _legend_columns(names: Sequence[str]) -> int:
    """Names beside each other in a legend."""
    return min(5, max(1, _ACROSS // (_SIGN + max(map(len, names)))))


def _legend(axes: Axes, panel: Panel) -> None:
    named = [at for at, name in enumerate(panel.series) if name]
    bars: list[Any] = [item for item in axes.containers if item.get_label() in panel.series]
    handles, names = [bars[at] for at in named], [panel.series[at] for at in named]
    marks = [line for line in axes.lines if line.get_label() == _PAPER]
    if marks:
        handles, names = [*handles, marks[0]], [*names, "paper"]
    if len(names) > 1:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        place |= {"ncols": _legend_columns(names)}
        axes.legend(handles, names, borderaxespad=0.2, columnspacing=1.4, **place)
