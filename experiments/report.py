"""Pictures of a run: its learning curve, and the network that it found.

Both are PNGs 1,200 pixels wide, with no text below 9 pt. They are drawn on figures of their own:
neither pyplot nor any global setting of matplotlib is touched, and matplotlib is imported only when
something is drawn.
"""

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH, DPI = 8.0, 150  # inches, and pixels per inch
MARGIN = 0.2  # inches
TITLE, LABEL, SMALL = 13.0, 10.5, 9.5  # points

INK, GREY, PALE = "#222222", "#5f5f5f", "#c4c4c4"
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#00795a"  # after Okabe and Ito
# Blue to orange is told apart by all common kinds of colour vision. The middle is grey, not white,
# and lightness falls with |weight|, so that a small weight is seen on paper.
DIVERGING = ("#08306b", "#2b7bba", "#c6c6c6", "#e58429", "#7f3300")

MANY_ROWS = 60  # above it, a learning curve is smoothed
MAX_POINTS = 600  # of a line
STEPS = (1, 2, 2.5, 5, 10)  # from tick to tick
MAX_EDGES = 50_000  # that are drawn
MAX_SHARED = 24  # distinct weights that get a swatch each

# --- learning curve -------------------------------------------------------------------------------


def learning_curve(
    rows: "Sequence[Mapping[str, float | None]]",
    path: Path,
    *,
    title: str,
    best: float | None = None,
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

    The x axis is `env_steps`, or `generation` when no environment step was taken.

    Raises:
        ValueError: if the x axis decreases from one row to the next.
    """
    _save(_learning_curve_figure(rows, title, best), path)


def _learning_curve_figure(
    rows: "Sequence[Mapping[str, float | None]]", title: str, best: float | None
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
    curves = [] if np.isnan(mean).all() else [("return", mean, std, BLUE)]
    if not same.all():
        curves.append(("return without alive bonus", bare, np.full_like(bare, np.nan), VERMILION))
    has_lengths = bool(np.nansum(np.abs(length)) > 0)
    window = (x.size // 25) | 1 if x.size > MANY_ROWS else 1

    notes = [f"{len(rows):,} generation{'s' * (len(rows) != 1)}"]
    if window > 1:
        notes.append(f"strong lines: running mean of {window:,} generations")
    if np.nansum(failed) > 0:
        notes.append(f"failed candidates: {np.nansum(failed):,.0f}")

    figure = _figure(5.6 if has_lengths else 4.4)
    used = _heading(figure, title, " · ".join(notes))
    y_names = ("return" + " per episode" * (x_name != "generation"), "episode length\n(steps)")
    panels = figure.subplots(
        1 + has_lengths,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [3.2, 1.0][: 1 + has_lengths]},
    )[:, 0]
    for axes, name in zip(panels, y_names, strict=False):
        _plain_axes(axes, name)
        axes.yaxis.set_major_locator(MaxNLocator(6 if axes is panels[0] else 3, steps=STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(_ticks(axes.yaxis)))
    panels[-1].set_xlabel(x_name, fontsize=LABEL, color=INK)
    panels[-1].xaxis.set_major_locator(MaxNLocator(8, steps=STEPS, integer=True))
    panels[-1].xaxis.set_major_formatter(FuncFormatter(_ticks(panels[-1].xaxis)))

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
        line.set_label(f"best: {_compact(best)}")
        handles.append(line)
    if x.size == 1:
        panels[0].set_xticks(x)
    elif x.size and 0 <= x[0] <= 0.1 * x[-1]:
        panels[0].set_xlim(left=0)

    if handles:
        used += _legend_above(figure, handles, used)
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


# --- network --------------------------------------------------------------------------------------


class NetworkSummary(NamedTuple):
    """What there is to count in a network. An edge is a finite weight other than zero."""

    edges: int
    possible: int  # edges of the dense network
    hidden_used: int  # hidden units on a path of edges from an input to an output
    hidden: int
    distinct_weights: int  # different numbers on the edges
    nonfinite: int  # weights that are not finite, counted as pruned


def network_summary(matrices: Sequence[np.ndarray]) -> NetworkSummary:
    """Count edges, hidden units in use and distinct weights of a network.

    Args:
        matrices: the weights [n_in, n_out] of consecutive layers, zero where an edge is pruned.

    Raises:
        ValueError: if there is no matrix, or their shapes do not fit each other.
    """
    weights, nonfinite = _checked(matrices)
    used = _units_used(weights)
    edges = np.concatenate([w[w != 0] for w in weights])
    return NetworkSummary(
        edges=edges.size,
        possible=sum(w.size for w in weights),
        hidden_used=sum(int(u.sum()) for u in used[1:-1]),
        hidden=sum(u.size for u in used[1:-1]),
        distinct_weights=np.unique(edges).size,
        nonfinite=nonfinite,
    )


def network(
    matrices: Sequence[np.ndarray],
    path: Path,
    *,
    title: str,
    input_labels: Sequence[str] | None = None,
) -> None:
    """Draw a network as a PNG: units in columns, inputs on the left, edges by sign and size.

    Units that are on no path of edges from an input to an output are pale, their edges pale and
    dashed. Biases are not drawn: a pale hidden unit with an edge to an output may still add a
    constant to it. Strong edges lie on top of weak ones; of more than 50,000 only the strongest are
    drawn, and the subtitle says so.

    Args:
        matrices: the bound weights [n_in, n_out] of consecutive layers, zero where an edge is
            pruned; one matrix is a linear policy. Weights that are not finite are drawn as pruned,
            and the subtitle counts them.
        path: the PNG to write; its folder exists.
        title: of the figure; wrapped when it is long.
        input_labels: names of the inputs [n_in], drawn in place of their indices where they fit;
            long ones are cut off.

    Raises:
        ValueError: if there is no matrix, their shapes do not fit each other, or there are not as
            many labels as inputs.
    """
    _save(_network_figure(matrices, title, input_labels), path)


def _network_figure(
    matrices: Sequence[np.ndarray], title: str, input_labels: Sequence[str] | None
) -> "Figure":
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    weights, _ = _checked(matrices)
    sizes = [weights[0].shape[0], *(w.shape[1] for w in weights)]
    if input_labels is not None and len(input_labels) != sizes[0]:
        raise ValueError(
            f"input_labels must name the network's {sizes[0]} inputs, got {len(input_labels)}."
        )
    summary = network_summary(matrices)
    used = _units_used(weights)
    any_pale = summary.edges > 0 and not all(u.all() for u in used)
    shared = 0 < summary.distinct_weights <= min(MAX_SHARED, summary.edges - 1)
    largest = max(float(np.abs(w).max()) for w in weights) or 1.0
    colours = LinearSegmentedColormap.from_list("weight", DIVERGING)
    norm = Normalize(-largest, largest)

    # Everything below is in inches, from the lower left corner.
    tallest = max(sizes)
    body = min(max(0.2 * tallest, min(0.34 * tallest, 5.0), 2.4), 7.0)
    swatch_rows = math.ceil(summary.distinct_weights / 10)
    key = 0.0 if not summary.edges else 0.55 * swatch_rows + 0.3 if shared else 0.5
    footer = MARGIN + key + 0.3 * any_pale
    # How high the heading is decides how high the figure is.
    heading = _heading(_figure(1.0), title, _counts(summary))
    figure = _figure(heading + 0.55 + body + 0.1 + footer)
    _heading(figure, title, _counts(summary))
    height = figure.get_figheight()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()

    gaps = [min(body / n, max(0.7, body / 6)) for n in sizes]
    left_names = _names(figure, sizes[0], gaps[0], input_labels)
    right_names = _names(figure, sizes[-1], gaps[-1], None)
    left = MARGIN + max(0.55, 0.2 + max(_text_width(figure, s, SMALL) for s in left_names))
    right = (
        WIDTH - MARGIN - max(0.55, 0.2 + max(_text_width(figure, s, SMALL) for s in right_names))
    )
    xs = np.linspace(left, right, len(sizes))
    diameters = [min(0.24, 0.7 * gap, 0.5 * (xs[1] - xs[0])) for gap in gaps]
    middle = footer + 0.1 + body / 2
    ys = [middle + gap * ((n - 1) / 2 - np.arange(n)) for n, gap in zip(sizes, gaps, strict=True)]

    _draw_edges(axes, weights, used, xs, ys, lambda w: colours(norm(w)), largest)
    for depth, (n, x, y, d) in enumerate(zip(sizes, xs, ys, diameters, strict=True)):
        outer = depth in (0, len(sizes) - 1)
        _draw_units(axes, x, y, used[depth], d)
        if outer:
            names, side = (left_names, -1) if depth == 0 else (right_names, 1)
        else:
            fits = 72 * d >= 6.2 * len(str(n - 1)) + 3
            names, side = ([str(i) for i in range(n)] if fits else [""] * n), 0
        for name, y_unit, live in zip(names, y, used[depth], strict=True):
            if name:
                axes.text(
                    x + side * (d / 2 + 0.06),
                    y_unit,
                    name,
                    ha=("right", "center", "left")[side + 1],
                    va="center_baseline",
                    fontsize=SMALL if side else 9,
                    color=INK if live else GREY,
                    parse_math=False,
                    zorder=5,
                )
    _column_heads(figure, axes, sizes, xs, footer + 0.1 + body + 0.12)

    if shared:
        _swatches(axes, weights, lambda w: colours(norm(w)), footer - 0.05)
    elif summary.edges:
        _colour_bar(figure, norm, colours, footer - 0.05)
    if any_pale:
        axes.plot(
            [MARGIN, MARGIN + 0.4],
            [MARGIN + 0.06] * 2,
            color=GREY,
            alpha=0.6,
            linewidth=1.2,
            linestyle=(0, (3, 2)),
        )
        axes.text(
            MARGIN + 0.5,
            MARGIN + 0.06,
            "dashed or pale: on no path from an observation to an action",
            va="center",
            fontsize=SMALL,
            color=GREY,
        )
    return figure


def _checked(matrices: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Return the weights as float64, zero where they are not finite, and how many are not."""
    weights = [np.asarray(w, np.float64) for w in matrices]
    shapes = [w.shape for w in weights]
    if not weights or any(len(s) != 2 or 0 in s for s in shapes):
        raise ValueError(f"matrices must be one or more of shape [n_in, n_out], got {shapes}.")
    if any(a[1] != b[0] for a, b in itertools.pairwise(shapes)):
        raise ValueError(f"matrices must fit each other, [a, b] before [b, c], got {shapes}.")
    nonfinite = sum(int((~np.isfinite(w)).sum()) for w in weights)
    return [np.where(np.isfinite(w), w, 0.0) for w in weights], nonfinite


def _units_used(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return a bool [n] for every layer: which units are on a path from an input to an output."""
    reached = [np.ones(weights[0].shape[0], bool)]
    for w in weights:
        reached.append((w[reached[-1]] != 0).any(0))
    reaches = [np.ones(weights[-1].shape[1], bool)]
    for w in reversed(weights):
        reaches.append((w[:, reaches[-1]] != 0).any(1))
    return [a & b for a, b in zip(reached, reversed(reaches), strict=True)]


def _counts(summary: NetworkSummary) -> str:
    parts = [f"{summary.edges:,} of {summary.possible:,} edges"]
    if summary.hidden:
        parts.append(f"{summary.hidden_used:,} of {summary.hidden:,} hidden units in use")
    parts.append(
        f"{summary.distinct_weights:,} distinct weight{'s' * (summary.distinct_weights != 1)}"
    )
    if summary.nonfinite:
        parts.append(f"{summary.nonfinite:,} not finite and drawn as pruned")
    if summary.edges > MAX_EDGES:
        parts.append(f"the strongest {MAX_EDGES:,} drawn")
    return " · ".join(parts)


def _draw_edges(
    axes: "Axes",
    weights: Sequence[np.ndarray],
    used: Sequence[np.ndarray],
    xs: np.ndarray,
    ys: Sequence[np.ndarray],
    colour: "Callable[[np.ndarray], np.ndarray]",
    largest: float,
) -> None:
    from matplotlib.collections import LineCollection

    segments, rgba, widths, sizes, live = [], [], [], [], []
    for depth, w in enumerate(weights):
        source, target = np.nonzero(w)
        start = np.stack([np.full(source.size, xs[depth]), ys[depth][source]], axis=1)
        end = np.stack([np.full(target.size, xs[depth + 1]), ys[depth + 1][target]], axis=1)
        value = w[source, target]
        size = np.abs(value) / largest
        alive = used[depth][source] & used[depth + 1][target]
        # The more edges, the thinner and the more transparent are those that are not strong.
        crowd = (60 / max(60, value.size)) ** 0.5
        rgb = colour(value)
        rgb[:, 3] = 0.9 * (crowd + (1 - crowd) * (0.02 + size ** (4 - 3 * crowd)))
        rgb[~alive, 3] *= 0.45
        segments.append(np.stack([start, end], axis=1))
        rgba.append(rgb)
        widths.append((0.5 + 2.7 * size) * (0.2 + 0.8 * crowd) * np.where(alive, 1.0, 0.6))
        sizes.append(size)
        live.append(alive)
    segment, colours, width, size, alive = (
        np.concatenate(parts) for parts in (segments, rgba, widths, sizes, live)
    )
    order = np.argsort(size, kind="stable")[-MAX_EDGES:]
    dashed, solid = order[~alive[order]], order[alive[order]]
    for these, style, z in ((dashed, (0, (4, 3)), 1), (solid, "solid", 2)):
        lines = LineCollection(
            segment[these].tolist(),
            colors=colours[these],
            linewidths=width[these],
            linestyles=[style],
            zorder=z,
        )
        axes.add_collection(lines, autolim=False)


def _draw_units(axes: "Axes", x: float, y: np.ndarray, used: np.ndarray, diameter: float) -> None:
    for these, face, edge in ((~used, "white", PALE), (used, "#eef1f5", INK)):
        axes.scatter(
            np.full(int(these.sum()), x),
            y[these],
            s=(72 * diameter) ** 2,
            c=edge if diameter < 0.06 else face,
            edgecolors=edge,
            linewidths=0.0 if diameter < 0.06 else 1.0,
            zorder=4,
        )


def _names(figure: "Figure", n: int, gap: float, labels: Sequence[str] | None) -> list[str]:
    """Return what to write beside the units of an outer layer; "" where nothing fits."""
    if labels is not None and gap >= 0.16:
        return [_cut(figure, str(label), 1.9) for label in labels]
    steps = (m * 10**e for e in range(9) for m in (1, 2, 5))
    every = next(step for step in steps if step * gap >= 0.16)
    return [str(i) if i % every == 0 else "" for i in range(n)]


def _column_heads(
    figure: "Figure", axes: "Axes", sizes: Sequence[int], xs: np.ndarray, bottom: float
) -> None:
    depth = len(sizes) - 1
    room = xs[1] - xs[0] - 0.1
    fits = all(_text_width(figure, f"hidden {i}", LABEL) <= room for i in range(1, depth))
    names = [
        "observation",
        *(f"{'hidden ' if fits else 'h'}{i}" for i in range(1, depth)),
        "action",
    ]
    taken: list[tuple[float, float]] = []
    # The ends first; of the others those that still find room.
    for i in (0, depth, *range(1, depth)):
        text = f"{names[i]}\n{sizes[i]:,}"
        half = max(_text_width(figure, line, LABEL) for line in text.split("\n")) / 2 + 0.05
        if all(xs[i] + half <= low or high <= xs[i] - half for low, high in taken):
            taken.append((xs[i] - half, xs[i] + half))
            axes.text(xs[i], bottom, text, ha="center", va="bottom", fontsize=LABEL, color=INK)


def _colour_bar(figure: "Figure", norm: Any, colours: Any, top: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    height = figure.get_figheight()
    width = 3.6
    box = ((WIDTH - width) / 2 / WIDTH, (top - 0.18) / height, width / WIDTH, 0.14 / height)
    bar = figure.colorbar(
        ScalarMappable(norm, colours), cax=figure.add_axes(box), orientation="horizontal"
    )
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS, symmetric=True))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(_ticks(bar.ax.xaxis)))
    bar.ax.tick_params(labelsize=SMALL, colors=INK, length=3)
    bar.ax.text(
        -0.03,
        0.5,
        "weight",
        transform=bar.ax.transAxes,
        ha="right",
        va="center",
        fontsize=LABEL,
        color=INK,
    )


def _swatches(
    axes: "Axes",
    weights: Sequence[np.ndarray],
    colour: "Callable[[np.ndarray], np.ndarray]",
    top: float,
) -> None:
    """Draw a key with one swatch for each distinct weight, and on how many edges it lies."""
    from matplotlib.patches import Rectangle

    values, counts = np.unique(np.concatenate([w[w != 0] for w in weights]), return_counts=True)
    axes.text(
        MARGIN, top - 0.09, "weight, and on how many edges", va="center", fontsize=LABEL, color=INK
    )
    columns = math.ceil(values.size / math.ceil(values.size / 10))
    cell = (WIDTH - 2 * MARGIN) / max(columns, 5)
    for i, (value, count) in enumerate(zip(values, counts, strict=True)):
        x, y = MARGIN + cell * (i % columns), top - 0.4 - 0.55 * (i // columns)
        axes.add_patch(Rectangle((x, y), cell - 0.06, 0.14, color=colour(value), linewidth=0))
        axes.text(
            x + (cell - 0.06) / 2,
            y - 0.04,
            f"{_compact(value)}\n×{count:,}",
            ha="center",
            va="top",
            fontsize=9,
            color=INK,
            linespacing=1.1,
        )


# --- figures --------------------------------------------------------------------------------------


def _figure(height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)  # becomes its canvas
    return figure


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, format="png", dpi=DPI, facecolor="white", bbox_inches=None)


def _plain_axes(axes: "Axes", name: str) -> None:
    axes.set_facecolor("white")
    axes.set_ylabel(name, fontsize=LABEL, color=INK)
    axes.tick_params(labelsize=SMALL, colors=INK, length=3)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def _heading(figure: "Figure", title: str, subtitle: str) -> float:
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


def _legend_above(figure: "Figure", handles: list[Any], used: float) -> float:
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


def _text_width(figure: "Figure", text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line in inches."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight=weight)
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    return renderer.get_text_width_height_descent(text, font, ismath=False)[0] / DPI


def _wrapped(figure: "Figure", text: str, size: float, weight: str) -> list[str]:
    """Return at most three lines that fit the figure's width."""
    for characters in range(min(len(text), 160), 0, -2):
        lines = textwrap.wrap(text, characters, max_lines=3, placeholder=" …")
        if all(_text_width(figure, s, size, weight) <= WIDTH - 2 * MARGIN for s in lines):
            return lines
    return []


def _cut(figure: "Figure", text: str, width: float) -> str:
    """Return the text, its end replaced by an ellipsis where it is wider than `width` inches."""
    if _text_width(figure, text, SMALL) <= width:
        return text
    while text and _text_width(figure, text + "…", SMALL) > width:
        text = text[:-1]
    return text + "…"


def _ticks(axis: "Axis") -> "Callable[[float, int | None], str]":
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


def _compact(value: float) -> str:
    """Return a number with three or four digits: 0.531, 3,210, 2.5 M."""
    scale, unit = _unit(abs(value))
    value /= scale
    number = f"{value:,.0f}" if 1e3 <= abs(value) < 1e4 else f"{value:.3g}"
    return f"{number}{unit}".replace("-", "−")
