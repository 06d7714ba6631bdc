"""The front of a run: what return its architectures bring, and what they cost."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from experiments.report.curve import BLUE
from experiments.report.figure import (
    GREY,
    INK,
    LABEL,
    STEPS,
    TITLE,
    heading,
    legend_above,
    new_figure,
    plain_axes,
    save,
    ticks,
)

NAMES = {
    "edges": "edges",
    "multiplications": "multiplications an action",
    "weights": "distinct weights",
    "biases": "biases",
    "bits": "bits of weights and structure",
    "entropy_bits": "bits of weights and entropy-coded structure",
}


def front(points: Sequence[Mapping[str, Any]], cost: str, path: Path, *, title: str) -> None:
    """Draw return against cost as a PNG: a point an architecture, with its 95 % interval.

    Points that another dominates are hollow and grey; the others are joined by the steps of the
    best mean return at any cost. Intervals are Student's t, over episodes.

    Args:
        points: as in result.json. Read are `return` (mean and standard_error), `report_episodes`,
            `dominated` and the cost; of an exam `test_accuracy` and `report_examples` in the place
            of the first two. One whose mean is not finite is left out, and counted.
        cost: a field of `Cost`.
        path: the PNG to write; its folder exists.
        title: of the figure; wrapped when it is long.
    """
    save(_front_figure(points, cost, title), path)


def _front_figure(points: Sequence[Mapping[str, Any]], cost: str, title: str) -> "Figure":
    from matplotlib.ticker import FuncFormatter, MaxNLocator
    from scipy.stats import t

    def known(value: float | None) -> bool:
        return value is not None and math.isfinite(value)

    examined = bool(points) and "report_examples" in points[0]
    measure, size = (
        ("test_accuracy", "report_examples") if examined else ("return", "report_episodes")
    )
    drawn = [p for p in points if known(p[measure]["mean"])]
    notes = [f"{len(points):,} architecture{'s' * (len(points) != 1)} under the final weights"]
    if points:
        what = "examples that selected nothing" if examined else "episodes each, on untouched seeds"
        notes.append(f"{points[0][size]:,} {what}")
    if len(drawn) < len(points):
        notes.append(f"failed, and not drawn: {len(points) - len(drawn):,}")

    figure = new_figure(4.8)
    used = heading(figure, title, " · ".join(notes))
    axes = figure.subplots()
    plain_axes(axes, "test accuracy" if examined else "return per episode")
    axes.set_xlabel(NAMES[cost], fontsize=LABEL, color=INK)
    for axis, wanted in ((axes.yaxis, 6), (axes.xaxis, 8)):
        axis.set_major_locator(MaxNLocator(wanted, steps=STEPS, integer=axis is axes.xaxis))
        axis.set_major_formatter(FuncFormatter(ticks(axis)))

    handles = []
    for dominated, colour, face, label in (
        (True, GREY, "white", "dominated by another one"),
        (False, BLUE, BLUE, "in the front, with 95 % interval of the mean"),
    ):
        these = [p for p in drawn if p["dominated"] == dominated]
        if not these:
            continue
        x, y = [p[cost] for p in these], [p[measure]["mean"] for p in these]
        half = [p[measure]["standard_error"] * float(t.ppf(0.975, p[size] - 1)) for p in these]
        style = {"color": colour, "markerfacecolor": face, "markersize": 6, "capsize": 3}
        bars = axes.errorbar(x, y, half, fmt="o", linewidth=1.2, label=label, zorder=4, **style)
        handles.append(bars)
        if not dominated:
            axes.step(x, y, where="post", color=colour, linewidth=1.2, alpha=0.5, zorder=2)
    if not drawn:
        message = "no finite evaluations"
        axes.text(
            0.5, 0.5, message, transform=axes.transAxes, ha="center", va="center",
            fontsize=TITLE, color=GREY,
        )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
    if len({p[cost] for p in drawn}) == 1:
        axes.set_xticks([drawn[0][cost]])
    if handles:
        used += legend_above(figure, handles[::-1], used)
    figure.set_layout_engine(
        "constrained", rect=(0, 0, 1, 1 - used / figure.get_figheight()), w_pad=0.12, h_pad=0.09
    )
    return figure
