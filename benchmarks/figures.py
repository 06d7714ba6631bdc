"""Pictures of what was measured, in the style of the reports of runs."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measure import Row, verdict
from experiments.report.curve import BLUE, GREEN, VERMILION
from experiments.report.figure import (
    GREY,
    INK,
    LABEL,
    MARGIN,
    PALE,
    SMALL,
    WIDTH,
    compact,
    heading,
    legend_above,
    new_figure,
    plain_axes,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# After Okabe and Ito; the last ones are told apart by their markers too.
COLOURS = (BLUE, VERMILION, GREEN, "#cc79a7", "#8a6d00", "#56b4e9", "#7a3e00")
MARKERS = "osD^vP*"
WIDE_SPAN = 4.0  # an axis of ratios that differ by more than this factor is logarithmic
NAME, VALUE = 3.05, 1.7  # inches to the left and right of an interval plot

_VERDICTS = {"holds": GREEN, "does not hold": VERMILION, "undecided": GREY, "no target": BLUE}


def intervals(rows: Sequence[Row], path: Path, title: str, subtitle: str) -> None:
    """Draw rows as points with their intervals and targets, one panel for each unit.

    Args:
        rows: what was measured, and what was not: that is written where its value would be.
        path: the PNG to write; its folder exists.
        title: of the figure.
        subtitle: on which machine, say.
    """
    from matplotlib.lines import Line2D

    units = list(dict.fromkeys(row.unit for row in rows))
    groups = [[row for row in rows if row.unit == unit] for unit in units]
    rows_high, axis_high = 0.42, 0.55  # inches
    heights = [rows_high * len(group) + axis_high for group in groups]
    figure = new_figure(1.05 + sum(heights))
    used = heading(figure, title, subtitle)
    handles: list[Any] = []
    if any(row.target is not None for row in rows):
        handles = [
            Line2D([], [], color=colour, marker="o", linewidth=2.5, label=text)
            for text, colour in _VERDICTS.items()
            if any(_word(row) == text for row in rows if row.value is not None)
        ]
        handles.append(
            Line2D([], [], color=INK, marker="|", markersize=13, linewidth=0, label="target")
        )
    used += legend_above(figure, handles, used) if handles else 0.0

    height = figure.get_figheight()
    top = height - used - 0.1
    for unit, group in zip(units, groups, strict=True):
        bottom = top - rows_high * len(group)
        axes = figure.add_axes(
            (NAME / WIDTH, bottom / height, (WIDTH - NAME - VALUE) / WIDTH, (top - bottom) / height)
        )
        _interval_panel(axes, group, unit)
        top = bottom - axis_high
    save(figure, path)


def _interval_panel(axes: "Axes", rows: Sequence[Row], unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    plain_axes(axes, "")
    axes.set_xlabel(
        {"x": "ratio of times"}.get(unit, unit.replace("x the", "ratio:")),
        fontsize=SMALL,
        color=INK,
        labelpad=2,
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels([textwrap.fill(row.name, 38) for row in rows], linespacing=1.0)
    values = [
        x
        for row in rows
        for x in (row.value, row.target, *(row.interval or ()))
        if x is not None and np.isfinite(x)
    ]
    if values and min(values) > 0 and max(values) > WIDE_SPAN * min(values):
        axes.set_xscale("log")
        # Over two decades there is no room for more than their beginnings.
        subs = (1,) if max(values) > 100 * min(values) else (1, 2, 5)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(min(values) / 1.3, max(values) * 1.3)
    elif values:
        room = 0.12 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
        axes.set_xlim(min(values) - room, max(values) + room)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        axes.set_xticks([])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: compact(x)))
    if unit.startswith("x") and axes.get_xlim()[0] < 1 < axes.get_xlim()[1]:
        axes.axvline(1, color=PALE, linewidth=1.2, zorder=1)
    for y, row in enumerate(rows):
        colour = _VERDICTS.get(_word(row), GREY)
        if row.interval is not None:
            axes.plot(row.interval, (y, y), color=colour, linewidth=3, solid_capstyle="butt")
        if row.value is not None:
            axes.plot([row.value], [y], "o", color=colour, markersize=6, zorder=3)
        if row.target is not None:
            axes.plot([row.target] * 2, (y - 0.33, y + 0.33), color=INK, linewidth=1.6, zorder=2)
        axes.text(
            1.03, y, _numbers(row), transform=axes.get_yaxis_transform(), va="center",
            fontsize=SMALL, color=INK if row.value is not None else GREY, linespacing=1.1,
        )  # fmt: skip


def _word(row: Row) -> str:
    return "no target" if row.target is None else verdict(row)


def _numbers(row: Row) -> str:
    """Return what stands to the right of a row: its value, and its target or its interval."""
    value = "not measured" if row.value is None else compact(row.value)
    if row.target is None:
        low_high = row.interval and " to ".join(compact(x) for x in row.interval)
        return f"{value}\n{low_high}" if low_high else value
    whole = "all of it " if row.whole else ""
    return f"{value}\n{whole}{(row.direction or '').replace('_', ' ')} {compact(row.target)}"


def new_panels(
    count: int, title: str, subtitle: str, *, share_y: bool = False, height: float = 4.6
) -> tuple[list["Axes"], Callable[[list[Any], Path], None]]:
    """Return up to three panels side by side, or more in two columns, and what finishes the figure.

    That function adds a legend above them, and writes the PNG.

    Args:
        count: of panels.
        title: of the figure.
        subtitle: below it.
        share_y: one y axis for all of them.
        height: of a row of panels and the heading, in inches.
    """
    columns = count if count <= 3 else 2
    rows = -(-count // columns)
    height *= 1 + 0.6 * (rows - 1)
    figure = new_figure(height)
    used = heading(figure, title, subtitle)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel())
    for spare in panels[count:]:
        spare.remove()
    panels = panels[:count]

    def finish(handles: list[Any], path: Path) -> None:
        below = used + (legend_above(figure, handles, used) if handles else 0.0)
        figure.set_layout_engine(
            "constrained",
            rect=(0, 0, 1 - 0.5 * MARGIN / WIDTH, 1 - below / height),
            w_pad=0.12,
            h_pad=0.09,
        )
        save(figure, path)

    return panels, finish


def lines(
    axes: "Axes",
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_name: str,
    y_name: str,
    **style: Any,
) -> list[Any]:
    """Draw curves over logarithmic axes, ticks at the points measured; return the lines.

    Args:
        axes: where.
        curves: label -> (x, y), positive numbers.
        x_name: what x is, and its unit.
        y_name: what y is, and its unit.
        **style: of the lines, over the usual one.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    plain_axes(axes, y_name)
    axes.set_xlabel(x_name, fontsize=LABEL, color=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    drawn = []
    for (label, (x, y)), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
        look = {"color": colour, "marker": marker, "linewidth": 2, "markersize": 5, **style}
        drawn += axes.plot(x, y, label=label, **look)
    places = sorted({float(v) for line in axes.get_lines() for v in np.asarray(line.get_xdata())})
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda v, _: compact(v)))
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    return drawn
