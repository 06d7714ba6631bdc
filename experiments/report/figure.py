"""What the pictures share: sizes, colours, headings, ticks.

PNGs 1,200 pixels wide, with no text below 9 pt, drawn on figures of their own: neither pyplot nor
any global setting of matplotlib is touched. Matplotlib is imported when something is drawn.
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH, DPI = 8.0, 150  # inches, and pixels per inch
MARGIN = 0.2  # inches
TITLE, LABEL, SMALL = 13.0, 10.5, 9.5  # points
INK, GREY, PALE = "#222222", "#5f5f5f", "#c4c4c4"
STEPS = (1, 2, 2.5, 5, 10)  # from tick to tick


def new_figure(height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)  # becomes its canvas
    return figure


def save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, format="png", dpi=DPI, facecolor="white", bbox_inches=None)


def plain_axes(axes: "Axes", name: str) -> None:
    axes.set_facecolor("white")
    axes.set_ylabel(name, fontsize=LABEL, color=INK)
    axes.tick_params(labelsize=SMALL, colors=INK, length=3)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def heading(figure: "Figure", title: str, subtitle: str) -> float:
    """Write title and subtitle into the upper left corner; return their height in inches."""
    height = figure.get_figheight()
    used = 0.16
    for text, size, weight, colour in (
        (title, TITLE, "bold", INK),
        (subtitle, SMALL, "normal", GREY),
    ):
        for line in _wrapped(figure, text, size, weight):
            figure.text(
                MARGIN / WIDTH,
                1 - used / height,
                line,
                va="top",
                fontsize=size,
                fontweight=weight,
                color=colour,
                parse_math=False,
            )
            used += 1.4 * size / 72
    return used + 0.06


def legend_above(figure: "Figure", handles: list[Any], used: float) -> float:
    """Draw a legend below the heading, in as many columns as fit; return its height in inches."""
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(MARGIN / WIDTH, 1 - used / figure.get_figheight()),
            ncols=columns,
            fontsize=SMALL,
            frameon=False,
            labelcolor=INK,
            borderpad=0,
            borderaxespad=0,
            columnspacing=1.6,
            handlelength=1.8,
        )
        box = legend.get_window_extent()
        if columns == 1 or box.width / DPI <= WIDTH - 2 * MARGIN:
            return box.height / DPI + 0.08
        legend.remove()
    return 0.0


def text_width(figure: "Figure", text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line in inches."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight=weight)
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    return renderer.get_text_width_height_descent(text, font, ismath=False)[0] / DPI


def _wrapped(figure: "Figure", text: str, size: float, weight: str) -> list[str]:
    """Return at most three lines that fit the figure's width."""
    for characters in range(min(len(text), 160), 0, -2):
        lines = textwrap.wrap(text, characters, max_lines=3, placeholder=" …")
        if all(text_width(figure, s, size, weight) <= WIDTH - 2 * MARGIN for s in lines):
            return lines
    return []


def _cut(figure: "Figure", text: str, width: float) -> str:
    """Return the text, its end replaced by an ellipsis where it is wider than `width` inches."""
    if text_width(figure, text, SMALL) <= width:
        return text
    while text and text_width(figure, text + "…", SMALL) > width:
        text = text[:-1]
    return text + "…"


def ticks(axis: "Axis") -> "Callable[[float, int | None], str]":
    """Return a function from a tick to its label, in units that suit the axis: 2 M, 500 k."""

    def label(value: float, position: int | None = None) -> str:
        del position
        low, high = sorted(axis.get_view_interval())
        limit = max(abs(low), abs(high))
        if abs(value) < 1e-9 * limit:
            return "0"
        scale, unit = _unit(limit) if high - low > 0.02 * limit else (1.0, "")
        return f"{value / scale:,.10g}{unit}".replace("-", "−")

    return label


def _unit(limit: float) -> tuple[float, str]:
    """Return what to divide numbers up to `limit` by, and the letter that says so."""
    for scale, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if max(scale, 1e4) <= limit < 1e15:
            return scale, unit
    return 1.0, ""


def compact(value: float) -> str:
    """Return a number with three or four digits: 0.531, 3,210, 2.5 M."""
    scale, unit = _unit(abs(value))
    value /= scale
    number = f"{value:,.0f}" if 1e3 <= abs(value) < 1e4 else f"{value:.3g}"
    return f"{number}{unit}".replace("-", "−")
