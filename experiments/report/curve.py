"""The learning curve of a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from experiments.report.figure import (
    GREY,
    INK,
    LABEL,
    STEPS,
    TITLE,
    compact,
    heading,
    legend_above,
    new_figure,
    plain_axes,
    save,
    ticks,
)

BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#00795a"  # after Okabe and Ito
MANY_ROWS = 60  # above it, a learning curve is smoothed
MAX_POINTS = 600  # of a line


def learning_curve(
    rows: "Sequence[Mapping[str, float | None]]",
    path: Path,
    *,
    title: str,
    best: float | None = None,
    value: str = "return",
) -> None:
    """Draw the learning curve of a run as a PNG.

    The upper panel has the return of the exact evaluations: their mean, a band of one standard
    deviation over the exact candidates of a generation, and the return without the alive bonus
    where it differs. The lower one has the episode length; it is left out when all are zero.

    Above 60 rows the raw values are drawn faintly, and strongly their centred running mean; its
    window (named in the subtitle) is a 25th of the rows, and is cut off at both ends of the run.
    The band is then the root mean square of the deviations in the window.

    Args:
        rows: one mapping a generation, in order, as in metrics.jsonl. Read are `generation`,
            `env_steps` (simulated since the start of the run, so it never decreases), `exact_mean`,
            `exact_std`, `return_without_bonus`, `episode_length` and `failed` (candidates of the
            generation). A value may be None, not finite or missing: it is a gap in its line, and a
            row without a place on the x axis is left out.
        path: the PNG to write; its folder exists.
        title: of the figure; wrapped when it is long.
        best: a return to compare with, drawn as a dashed line: that of the answer, say.
        value: what the returns are called.

    The x axis is `env_steps`, or `generation` when no environment step was taken.

    Raises:
        ValueError: if the x axis decreases from one row to the next.
    """
    save(_learning_curve_figure(rows, title, best, value), path)


def _learning_curve_figure(
    rows: "Sequence[Mapping[str, float | None]]",
    title: str,
    best: float | None,
    value: str = "return",
) -> "Figure":
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def column(name: str) -> np.ndarray:
        values = np.array([row.get(name) for row in rows], np.float64)  # None becomes nan
        return np.where(np.isfinite(values), values, np.nan)

    x, x_name = column("env_steps"), "environment steps"
    if not np.nansum(x) > 0:
        x, x_name = column("generation"), "generation"
    placed = np.isfinite(x)
    x = x[placed]
    if np.any(np.diff(x) < 0):
        i = int(np.argmax(np.diff(x) < 0))
        raise ValueError(f"the rows' {x_name} must not decrease, got {x[i]:g} before {x[i + 1]:g}.")
    mean, std, bare, length, failed = (
        column(name)[placed]
        for name in (
            "exact_mean",
            "exact_std",
            "return_without_bonus",
            "episode_length",
            "failed",
        )
    )
    same = np.isnan(bare) | np.isclose(bare, mean, rtol=1e-5, atol=1e-6)
    curves = [] if np.isnan(mean).all() else [(value, mean, std, BLUE)]
    if not same.all():
        curves.append(("return without alive bonus", bare, np.full_like(bare, np.nan), VERMILION))
    has_lengths = bool(np.nansum(np.abs(length)) > 0)
    window = (x.size // 25) | 1 if x.size > MANY_ROWS else 1

    notes = [f"{len(rows):,} generation{'s' * (len(rows) != 1)}"]
    if window > 1:
        notes.append(f"strong lines: running mean of {window:,} generations")
    if np.nansum(failed) > 0:
        notes.append(f"failed candidates: {np.nansum(failed):,.0f}")

    figure = new_figure(5.6 if has_lengths else 4.4)
    used = heading(figure, title, " · ".join(notes))
    y_names = (value + " per episode" * (x_name != "generation"), "episode length\n(steps)")
    panels = figure.subplots(
        1 + has_lengths,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [3.2, 1.0][: 1 + has_lengths]},
    )[:, 0]
    for axes, name in zip(panels, y_names, strict=False):
        plain_axes(axes, name)
        axes.yaxis.set_major_locator(MaxNLocator(6 if axes is panels[0] else 3, steps=STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(ticks(axes.yaxis)))
    panels[-1].set_xlabel(x_name, fontsize=LABEL, color=INK)
    panels[-1].xaxis.set_major_locator(MaxNLocator(8, steps=STEPS, integer=True))
    panels[-1].xaxis.set_major_formatter(FuncFormatter(ticks(panels[-1].xaxis)))

    handles = []
    for label, values, deviation, colour in curves:
        handles += _curve(panels[0], x, values, deviation, colour, label, window)
    if has_lengths:
        _curve(panels[1], x, length, np.full_like(length, np.nan), GREEN, "episode length", window)
        panels[1].set_ylim(bottom=0)
    if not curves:
        panels[0].text(
            0.5,
            0.5,
            "no finite evaluations",
            transform=panels[0].transAxes,
            ha="center",
            va="center",
            fontsize=TITLE,
            color=GREY,
        )
        panels[0].set_yticks([])
        if not has_lengths:
            panels[0].set_xticks([])
    elif best is not None and math.isfinite(best):
        line = panels[0].axhline(best, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        line.set_label(f"best: {compact(best)}")
        handles.append(line)
    if x.size == 1:
        panels[0].set_xticks(x)
    elif x.size and 0 <= x[0] <= 0.1 * x[-1]:
        panels[0].set_xlim(left=0)

    if handles:
        used += legend_above(figure, handles, used)
    height = figure.get_figheight()
    figure.set_layout_engine(
        "constrained", rect=(0, 0, 1, 1 - used / height), w_pad=0.12, h_pad=0.09
    )
    return figure


def many_curves(
    rows: "Sequence[Mapping[str, Any]]", path: Path, *, title: str, value: str = "return"
) -> None:
    """Draw the learning curves of many runs of one program as a PNG.

    A thin line a seed, and a strong one for the mean over the seeds of a setting, at the mean of
    their environment steps; a colour a setting of the sweep. Above 60 generations all are centred
    running means over a 25th of them.

    Args:
        rows: of metrics.jsonl, those of a generation after those of the one before. Read are `run`,
            `seed`, what stands between it and `generation` (the swept numbers), `generation`,
            `env_steps` and `exact_mean`.
        path: the PNG to write; its folder exists.
        title: of the figure.
        value: what the returns are called.
    """
    save(_many_curves_figure(rows, title, value), path)


def _many_curves_figure(
    rows: "Sequence[Mapping[str, Any]]", title: str, y_name: str = "return"
) -> "Figure":
    from matplotlib import colormaps
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    names = list(rows[0])
    swept = names[names.index("seed") + 1 : names.index("generation")]
    number = 1 + max(row["run"] for row in rows)
    settings: dict[tuple, list[int]] = {}
    for row in rows[:number]:
        settings.setdefault(tuple(row[name] for name in swept), []).append(row["run"])

    def table(name: str) -> np.ndarray:  # [generations, runs]
        values = np.array([row[name] for row in rows], np.float64)
        return np.where(np.isfinite(values), values, np.nan).reshape(-1, number)

    value, x, x_name = table("exact_mean"), table("env_steps"), "environment steps"
    if not np.nansum(x) > 0:
        x, x_name = table("generation"), "generation"
    generations = value.shape[0]
    window = (generations // 25) | 1 if generations > MANY_ROWS else 1
    at = np.unique(np.linspace(0, generations - 1, MAX_POINTS).round().astype(int))

    notes = [f"{number:,} runs of {generations:,} generations, thin: a seed, strong: their mean"]
    if window > 1:
        notes.append(f"running means of {window:,} generations")
    figure = new_figure(4.8)
    used = heading(figure, title, " · ".join(notes))
    axes = figure.subplots()
    plain_axes(axes, y_name + " per episode" * (x_name != "generation"))
    axes.set_xlabel(x_name, fontsize=LABEL, color=INK)
    for axis, ticks_wanted in ((axes.yaxis, 6), (axes.xaxis, 8)):
        axis.set_major_locator(MaxNLocator(ticks_wanted, steps=STEPS))
        axis.set_major_formatter(FuncFormatter(ticks(axis)))

    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(settings)))
    handles = []
    for colour, (numbers, runs) in zip(shades, settings.items(), strict=True):
        smooth = np.stack([_running_mean(value[:, r], at, window) for r in runs], axis=1)
        where = x[at][:, runs].mean(axis=1)
        axes.plot(where, smooth, color=colour, linewidth=0.7, alpha=0.4, zorder=2)
        mean = np.where(np.isnan(smooth).any(axis=1), np.nan, smooth.mean(axis=1))
        label = ", ".join(
            f"{name.split('.')[-1]} {v:.4g}" for name, v in zip(swept, numbers, strict=True)
        )
        handles += axes.plot(
            where,
            mean,
            color=colour,
            linewidth=2,
            marker="o" if generations == 1 else "",
            label=label or f"mean of {len(runs)} seeds",
            zorder=4,
        )
    used += legend_above(figure, handles, used)
    height = figure.get_figheight()
    figure.set_layout_engine(
        "constrained", rect=(0, 0, 1, 1 - used / height), w_pad=0.12, h_pad=0.09
    )
    return figure


def _curve(
    axes: "Axes",
    x: np.ndarray,
    values: np.ndarray,
    deviation: np.ndarray,
    colour: str,
    label: str,
    window: int,
) -> list[Any]:
    """Draw one line with its band; return what belongs into a legend."""
    if window > 1:
        extremes = _thinned(values)
        axes.plot(x[extremes], values[extremes], color=colour, linewidth=0.7, alpha=0.3, zorder=2)
        at = np.unique(np.linspace(0, x.size - 1, MAX_POINTS).round().astype(int))
        values = _running_mean(values, at, window)
        deviation = np.sqrt(_running_mean(deviation**2, at, window))
        x = x[at]
    low, high = values - deviation, values + deviation
    seen = np.isfinite(low)
    marker = "o" if window == 1 else ""
    handles: list[Any] = axes.plot(
        x, values, color=colour, linewidth=2, marker=marker, markersize=4, label=label, zorder=4
    )
    if seen.any():
        band = axes.fill_between(
            x,
            low,
            high,
            where=seen.tolist(),
            color=colour,
            alpha=0.18,
            linewidth=0,
            label="±1 std over exact candidates",
            zorder=1,
        )
        handles.append(band)
        # A band has no width where both neighbours are missing.
        padded = np.concatenate([[False], seen, [False]])
        alone = seen & ~padded[:-2] & ~padded[2:]
        axes.vlines(x[alone], low[alone], high[alone], color=colour, alpha=0.3, linewidth=6)
    return handles


def _running_mean(values: np.ndarray, at: np.ndarray, window: int) -> np.ndarray:
    """Return the means over the finite ones of `window` values around each index of `at`."""
    means = np.full(at.size, np.nan)
    for j, i in enumerate(at):
        part = values[max(0, i - window // 2) : i + window // 2 + 1]
        part = part[np.isfinite(part)]
        if part.size:
            means[j] = part.mean()
    return means


def _thinned(values: np.ndarray) -> np.ndarray:
    """Return increasing indices, at most two for each of MAX_POINTS bins: its extremes."""
    if values.size <= 2 * MAX_POINTS:
        return np.arange(values.size)
    kept = []
    for part in np.array_split(np.arange(values.size), MAX_POINTS):
        if np.isnan(values[part]).all():
            kept.append(part[0])
        else:
            kept += [part[np.nanargmin(values[part])], part[np.nanargmax(values[part])]]
    return np.unique(kept)
