"""The network that a run found."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from experiments.report.figure import (
    GREY,
    INK,
    LABEL,
    MARGIN,
    PALE,
    SMALL,
    STEPS,
    WIDTH,
    _cut,
    compact,
    heading,
    new_figure,
    save,
    text_width,
    ticks,
)

# Blue to orange is told apart by all common kinds of colour vision. The middle is grey, not white,
# and lightness falls with |weight|, so that a small weight is seen on paper.
DIVERGING = ("#08306b", "#2b7bba", "#c6c6c6", "#e58429", "#7f3300")
MAX_EDGES = 50_000  # that are drawn
MAX_SHARED = 24  # distinct weights that get a swatch each


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
    save(_network_figure(matrices, title, input_labels), path)


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
    head = heading(new_figure(1.0), title, _counts(summary))
    figure = new_figure(head + 0.55 + body + 0.1 + footer)
    heading(figure, title, _counts(summary))
    height = figure.get_figheight()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()

    gaps = [min(body / n, max(0.7, body / 6)) for n in sizes]
    left_names = _names(figure, sizes[0], gaps[0], input_labels)
    right_names = _names(figure, sizes[-1], gaps[-1], None)
    left = MARGIN + max(0.55, 0.2 + max(text_width(figure, s, SMALL) for s in left_names))
    right = WIDTH - MARGIN - max(0.55, 0.2 + max(text_width(figure, s, SMALL) for s in right_names))
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
    fits = all(text_width(figure, f"hidden {i}", LABEL) <= room for i in range(1, depth))
    names = [
        "observation",
        *(f"{'hidden ' if fits else 'h'}{i}" for i in range(1, depth)),
        "action",
    ]
    taken: list[tuple[float, float]] = []
    # The ends first; of the others those that still find room.
    for i in (0, depth, *range(1, depth)):
        text = f"{names[i]}\n{sizes[i]:,}"
        half = max(text_width(figure, line, LABEL) for line in text.split("\n")) / 2 + 0.05
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
    bar.ax.xaxis.set_major_formatter(FuncFormatter(ticks(bar.ax.xaxis)))
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
            f"{compact(value)}\n×{count:,}",
            ha="center",
            va="top",
            fontsize=9,
            color=INK,
            linespacing=1.1,
        )
