"""The pictures of a run: what they say is true, and it can be read."""

import itertools
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from experiments import report
from experiments.report import curve as drawn_curve
from experiments.report import figure
from experiments.report import front as drawn_front
from experiments.report import network as drawing

SIZES = [(3, 1), (4, 3), (3, 4, 2), (3, 4, 4, 2), (2, 3, 3, 3, 2)]


def masked(rng, sizes, density):
    """Weights of a random network, about `density` of them kept."""
    return [
        rng.normal(size=shape) * (rng.random(shape) < density)
        for shape in itertools.pairwise(sizes)
    ]


def row(generation, **values):
    return {
        "generation": generation,
        "env_steps": 6_400 * (generation + 1),
        "episodes": 64 * (generation + 1),
        "exact_mean": 1_000.0 + 10 * generation,
        "exact_std": 50.0,
        "fitness_mean": 900.0,
        "fitness_max": 1_500.0,
        "return_without_bonus": 700.0 + 10 * generation,
        "episode_length": 100.0,
        "failed": 0,
    } | values


def nothing(generation):
    return dict.fromkeys(row(0)) | {
        "generation": generation,
        "env_steps": 6_400 * (generation + 1),
        "failed": 64,
    }


def noisy(n, **values):
    noise = np.random.default_rng(0).normal(size=(n, 3)) * 200
    return [
        row(
            i,
            exact_mean=2_000 * i / n + noise[i, 0],
            return_without_bonus=1_500 * i / n + noise[i, 1],
            exact_std=abs(noise[i, 2]),
        )
        | values
        for i in range(n)
    ]


CURVES = {
    "no row": [],
    "one row": noisy(1),
    "two rows": noisy(2),
    "five rows": noisy(5),
    "many rows": noisy(300),
    "gaps": [nothing(i) if i % 3 else row(i) for i in range(20)],
    "gaps among many": [nothing(i) if i // 40 == 2 else row(i) for i in range(200)],
    "only gaps": [nothing(i) for i in range(5)],
    "only gaps among many": [nothing(i) for i in range(200)],
    "no steps": noisy(80, env_steps=0, episode_length=0.0),
    "no spread": noisy(5, exact_std=None),
    "equal values": [row(i, exact_mean=1.0) for i in range(5)],
    "huge values": noisy(5, exact_mean=-3e38, return_without_bonus=3e38),
    "tiny values": noisy(5, exact_mean=1e-12, return_without_bonus=2e-12, exact_std=1e-13),
    "huge steps": [row(i, env_steps=10**15 * (i + 1)) for i in range(5)],
}


def point(edges, mean, error=10.0, dominated=False):
    return {
        "return": {"mean": mean, "standard_error": error},
        "report_episodes": 16,
        "edges": edges,
        "bits": 32 * edges,
        "dominated": dominated,
    }


FRONTS = {
    "no point": [],
    "one point": [point(64, 1_000.0)],
    "one cost": [point(64, 1_000.0), point(64, 900.0, dominated=True)],
    "five points": [point(8 * i, 200.0 * i, 30.0 * i, i == 3) for i in range(5)],
    "sixteen points": [point(3 + 17 * i, 1_400.0 - 9_000 / (i + 7)) for i in range(16)],
    "only failed": [point(5, None, None, True), point(7, math.nan, math.nan, True)],
    "some failed": [point(5, 10.0), point(7, None, None, True), point(90, 2e7, 1e6)],
}
NETWORKS = {
    "linear": masked(np.random.default_rng(0), (3, 1), 1.0),
    "one edge": [np.ones((1, 1))],
    "pruned": masked(np.random.default_rng(1), (11, 32, 3), 0.15),
    "dense": masked(np.random.default_rng(2), (11, 32, 3), 1.0),
    "large": masked(np.random.default_rng(3), (244, 64, 17), 1.0),
    "deep": masked(np.random.default_rng(4), (5, *[12] * 20, 4), 0.3),
    "shared": [np.random.default_rng(5).choice(np.linspace(-1.234e-5, 1, 24), (17, 6))],
    "one shared": [np.full((3, 2), -0.5), np.full((2, 2), -0.5)],
    "empty": [np.zeros((11, 32)), np.zeros((32, 3))],
    "not finite": [np.array([[math.nan, 1.0], [math.inf, -math.inf]])],
    "huge weights": [np.array([[3e38, -3e38], [1.0, 2.0]])],
    "tiny weights": [np.array([[1e-40, -1e-40], [1e-41, 2e-41]])],
}


def curve(rows, **options):
    return drawn_curve._learning_curve_figure(
        rows, options.pop("title", "A run"), options.pop("best", None)
    )


def drawn(matrices, title="A network", labels=None):
    return drawing._network_figure(matrices, title, labels)


def texts(figure):
    """The texts that a drawn figure shows."""
    figure.canvas.draw()
    found = [*figure.texts]
    for legend in figure.legends:
        found += legend.get_texts()
    for axes in figure.axes:
        found += axes.texts
        if not axes.axison:
            continue
        found += [axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def shown(figure):
    return [text.get_text() for text in texts(figure)]


def png(path):
    """Width, height and raw pixels of a PNG, read without the library that wrote it."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, pixels, header = 8, b"", None
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert checksum == zlib.crc32(kind + body)
        if kind == b"IHDR":
            header = struct.unpack(">II", body[:8])
        pixels += body if kind == b"IDAT" else b""
        at += 12 + size
    assert kind == b"IEND"
    return *header, zlib.decompress(pixels)


def unless_slow(names, quick):
    """Rows of which `make test` draws the quick ones."""
    assert set(quick) <= set(names)
    return [pytest.param(n, marks=[] if n in quick else [pytest.mark.slow]) for n in names]


# --- what is counted ------------------------------------------------------------------------------


def searched(matrices):
    """Counts by following every sequence of units from the inputs to the outputs."""
    sizes = [len(matrices[0]), *(len(m[0]) for m in matrices)]
    on_path = set()
    for units in itertools.product(*(range(n) for n in sizes)):
        if all(m[a][b] != 0 for m, (a, b) in zip(matrices, itertools.pairwise(units), strict=True)):
            on_path |= set(enumerate(units))
    edges = [float(v) for m in matrices for line in m for v in line if v != 0]
    return report.NetworkSummary(
        edges=len(edges),
        possible=sum(a * b for a, b in itertools.pairwise(sizes)),
        hidden_used=sum(0 < layer < len(matrices) for layer, _ in on_path),
        hidden=sum(sizes[1:-1]),
        distinct_weights=len(set(edges)),
        nonfinite=0,
    ), on_path


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.15, 0.3, 0.6, 1.0])
def test_counts_are_those_of_a_search_of_all_paths(sizes, density):
    rng = np.random.default_rng(int(100 * density))
    for _ in range(10):
        matrices = masked(rng, sizes, density)
        summary, on_path = searched(matrices)
        assert report.network_summary(matrices) == summary
        used = drawing._units_used(matrices)
        assert on_path == {
            (layer, int(i)) for layer, units in enumerate(used) for i in np.flatnonzero(units)
        }


def test_a_unit_with_edges_on_one_side_only_is_not_in_use():
    # Unit 0 is never reached, unit 1 leads nowhere, unit 2 is on the path 0 -> 2 -> 0.
    first, second = np.zeros((2, 3)), np.zeros((3, 1))
    first[0, 1] = first[0, 2] = second[0, 0] = second[2, 0] = 1.0
    assert report.network_summary([first, second]) == (4, 9, 1, 3, 1, 0)


def test_shared_weights_are_counted_once_over_all_layers():
    weights = np.float32([0.5, -0.5, 0.5])
    colours = np.random.default_rng(0).integers(0, 3, 20)
    first, second = weights[colours[:12]].reshape(3, 4), weights[colours[12:]].reshape(4, 2)
    assert report.network_summary([first, second]).distinct_weights == 2


def test_a_weight_that_is_not_finite_is_no_edge():
    first = np.array([[math.nan, 1.0], [math.inf, -0.0]])
    second = np.array([[1.0], [2.0]])
    # Kept are 1 (0 -> 1), 1 and 2; hidden unit 0 is no longer reached.
    assert report.network_summary([first, second]) == (3, 6, 1, 2, 2, 2)
    assert "2 not finite and drawn as pruned" in " ".join(shown(drawn([first, second])))


@pytest.mark.parametrize("seed", range(3))
def test_the_subtitle_tells_the_counts(seed):
    matrices = masked(np.random.default_rng(seed), (3, 5, 4, 2), 0.45)
    n, _ = searched(matrices)
    assert (
        f"{n.edges} of {n.possible} edges · {n.hidden_used} of {n.hidden} hidden units in use · "
        f"{n.distinct_weights} distinct weights"
    ) in shown(drawn(matrices))


def test_a_linear_policy_has_no_hidden_units_to_tell_of():
    subtitle = shown(drawn([np.repeat(np.arange(1.0, 18.0), 6).reshape(17, 6)]))[1]
    assert subtitle == "102 of 102 edges · 17 distinct weights"


# --- what is drawn of a network -------------------------------------------------------------------


def edges_drawn(figure):
    """[(solid, width)] of every line, from the lowest to the topmost."""
    collections = [c for c in figure.axes[0].collections if hasattr(c, "get_segments")]
    return [
        (style[1] is None, width)
        for c in sorted(collections, key=lambda c: c.get_zorder())
        for style, width in zip(itertools.cycle(c.get_linestyle()), c.get_linewidth(), strict=False)
        if len(c.get_segments())
    ]


def test_every_edge_is_drawn_once_and_dashed_if_it_is_on_no_path():
    matrices = masked(np.random.default_rng(0), (3, 5, 4, 2), 0.45)
    _, on_path = searched(matrices)
    solid = sum(
        m[a, b] != 0 and (layer, a) in on_path and (layer + 1, b) in on_path
        for layer, m in enumerate(matrices)
        for a, b in np.ndindex(m.shape)
    )
    edges = sum(np.count_nonzero(m) for m in matrices)
    lines = edges_drawn(drawn(matrices))
    assert 0 < solid < edges
    assert [is_solid for is_solid, _ in lines] == [False] * (edges - solid) + [True] * solid


def test_strong_edges_lie_on_top_and_are_wide():
    widths = [width for _, width in edges_drawn(drawn(NETWORKS["dense"][:1]))]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_of_too_many_edges_the_strongest_are_drawn(monkeypatch):
    monkeypatch.setattr(drawing, "MAX_EDGES", 2)
    figure = drawn([np.array([[0.1, 3.0], [-2.0, 0.5]])])
    assert len(edges_drawn(figure)) == 2
    assert "the strongest 2 drawn" in " ".join(shown(figure))


def test_shared_weights_get_a_swatch_each_that_counts_their_edges():
    figure = drawn([np.array([[0.5, 0.5, -2.0], [0.0, 0.5, -2.0]])])
    assert {"0.5\n×3", "−2\n×2"} <= set(shown(figure))
    assert len(figure.axes[0].patches) == 2


def test_weights_of_their_own_get_a_colour_bar():
    figure = drawn([np.array([[0.5, -1.0]])])
    assert "weight" in shown(figure)
    assert figure.axes[1].get_xlim() == (-1.0, 1.0)


def test_input_labels_are_drawn_where_they_fit():
    names = [f"joint {i}" for i in range(11)]
    assert set(names) <= set(shown(drawn(NETWORKS["dense"], labels=names)))
    crowded = shown(drawn(NETWORKS["large"], labels=[f"joint {i}" for i in range(244)]))
    assert not any("joint" in text for text in crowded)
    assert {"0", "10", "240"} <= set(crowded)


@pytest.mark.parametrize(
    ("matrices", "labels", "message"),
    [
        ([], None, "one or more"),
        ([np.ones(3)], None, "one or more"),
        ([np.ones((3, 0))], None, "one or more"),
        ([np.ones((3, 2)), np.ones((3, 1))], None, "fit each other"),
        ([np.ones((3, 2))], ["a", "b"], "3 inputs, got 2"),
    ],
)
def test_what_is_no_network_is_refused(tmp_path, matrices, labels, message):
    with pytest.raises(ValueError, match=message):
        report.draw_network(matrices, tmp_path / "x.png", title="", input_labels=labels)
    assert not list(tmp_path.iterdir())


# --- what is drawn of a run -----------------------------------------------------------------------


def lines(figure, panel=0):
    """Label to (x, y) of the strong lines."""
    return {
        line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in figure.axes[panel].lines
        if not line.get_label().startswith("_")
    }


def test_few_rows_are_drawn_as_they_are():
    rows = noisy(5)
    found = lines(curve(rows))
    for label, name in (
        ("return", "exact_mean"),
        ("return without alive bonus", "return_without_bonus"),
    ):
        np.testing.assert_array_equal(found[label][0], [r["env_steps"] for r in rows])
        np.testing.assert_array_equal(found[label][1], [r[name] for r in rows])


def test_the_band_is_one_standard_deviation():
    figure = curve([row(i, exact_mean=10.0 * i, exact_std=2.0 + i) for i in range(4)])
    (band,) = (c for c in figure.axes[0].collections if "std" in str(c.get_label()))
    corners = {(round(x), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    expected = {(6_400 * (i + 1), float(y)) for i in range(4) for y in (9 * i - 2, 11 * i + 2)}
    assert corners == expected


def test_many_rows_are_smoothed_by_a_centred_running_mean():
    rows = noisy(300)
    x, y = lines(curve(rows))["return"]
    values = [r["exact_mean"] for r in rows]
    # 300 // 25 is 12; an odd window of 13 reaches 6 rows to either side.
    expected = [np.mean(values[max(0, i - 6) : i + 7]) for i in range(300)]
    np.testing.assert_array_equal(x, [r["env_steps"] for r in rows])
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_a_hundred_thousand_rows_are_thinned_and_keep_their_extremes():
    rows = [row(i, exact_mean=0.0, return_without_bonus=0.0) for i in range(100_000)]
    rows[54_321] |= {"exact_mean": 5_000.0, "return_without_bonus": -3_000.0}
    figure = curve(rows)
    assert all(len(line.get_xdata()) <= 2 * drawn_curve.MAX_POINTS for line in figure.axes[0].lines)
    seen = [y for line in figure.axes[0].lines for y in line.get_ydata()]
    assert (min(seen), max(seen)) == (-3_000.0, 5_000.0)


def test_a_return_equal_to_the_one_without_bonus_is_drawn_once():
    rows = [row(i, return_without_bonus=1_000.0 + 10 * i) for i in range(5)]
    assert set(lines(curve(rows))) == {"return"}


def test_without_environment_steps_generations_are_counted():
    figure = curve(CURVES["no steps"])
    assert {"generation", "return"} <= set(shown(figure))
    np.testing.assert_array_equal(lines(figure)["return"][0], range(80))
    assert len(figure.axes) == 1  # no episodes, no panel of their length


def test_the_best_return_is_named():
    assert "best: 3,210" in shown(curve(noisy(5), best=3_210.4))
    assert not any("best" in text for text in shown(curve(noisy(5), best=math.nan)))


@pytest.mark.parametrize("name", ["no row", "only gaps", "only gaps among many"])
def test_a_run_without_a_finite_evaluation_says_so(name):
    assert "no finite evaluations" in shown(curve(CURVES[name], best=1.0))
    assert not any("no finite" in text for text in shown(curve(CURVES["gaps"])))


def test_null_nan_and_missing_are_the_same_gap():
    def ys(value):
        rows = noisy(5)
        rows[2] |= {"exact_mean": value}
        if value == "missing":
            del rows[2]["exact_mean"]
        return lines(curve(rows))["return"][1]

    for value in (math.nan, math.inf, "missing"):
        np.testing.assert_array_equal(ys(value), ys(None))
    assert np.flatnonzero(np.isnan(ys(None))).tolist() == [2]


def test_steps_that_decrease_are_refused():
    with pytest.raises(ValueError, match="must not decrease, got 6400 before 10"):
        curve([row(0), row(1, env_steps=10)])


@pytest.mark.parametrize(
    ("limit", "value", "label"),
    [
        (9_000, 5_000, "5,000"),
        (60_000, 20_000, "20 k"),
        (8e6, 2e6, "2 M"),
        (3e6, -1.5e6, "−1.5 M"),
        (3e10, 2.5e10, "25 B"),
        (1, 0.30000000000000004, "0.3"),
        (1, 1e-17, "0"),
        (5e20, 1e20, "1e+20"),
    ],
)
def test_ticks_are_short(limit, value, label):
    class Axis:
        @staticmethod
        def get_view_interval():
            return -limit, limit

    assert figure.ticks(Axis())(value, None) == label


# --- what is drawn of a front ---------------------------------------------------------------------


def front(points, cost="edges", title="A run"):
    return drawn_front._front_figure(points, cost, title)


def bars(figure):
    """{label: [(x, y, half of the interval)]} of the points."""
    found = {}
    for container in figure.axes[0].containers:
        line, _, (collection,) = container.lines
        half = [(b[1] - a[1]) / 2 for a, b in collection.get_segments()]
        xs, ys = line.get_data()
        found[container.get_label().replace(",", "")] = list(
            zip(xs.tolist(), ys.tolist(), half, strict=True)
        )
    return found


def test_a_point_has_its_95_percent_interval_and_says_whether_it_is_dominated():
    # Student's t of 15 degrees of freedom leaves 2.5 % above 2.1314.
    found = bars(front(FRONTS["five points"]))
    assert set(found) == {"in the front with 95 % interval of the mean", "dominated by another one"}
    here = [(8.0 * i, 200.0 * i, 2.1314 * 30 * i) for i in range(5)]
    for points, expected in (
        (found["in the front with 95 % interval of the mean"], here[:3] + here[4:]),
        (found["dominated by another one"], here[3:4]),
    ):
        np.testing.assert_allclose(points, expected, rtol=1e-4)


def test_the_cost_of_a_front_is_the_one_that_was_weighed():
    figure = front(FRONTS["five points"], "bits")
    assert "bits of weights and structure" in shown(figure)
    ((x, _, _),) = bars(figure)["dominated by another one"]
    assert x == 32 * 24


def test_architectures_that_failed_are_counted_and_not_drawn():
    figure = front(FRONTS["some failed"])
    assert any("failed, and not drawn: 1" in text for text in shown(figure))
    assert [x for x, _, _ in next(iter(bars(figure).values()))] == [5.0, 90.0]
    for name in ("no point", "only failed"):
        assert "no finite evaluations" in shown(front(FRONTS[name]))


# --- what holds of every picture ------------------------------------------------------------------

LONG = (
    "A title of a run that is long enough to need more than one line, with $ and _ and {} in it "
    * 2
)
PICTURES = {
    **{f"curve of {k}": lambda rows=v: curve(rows, best=2_345.6) for k, v in CURVES.items()},
    **{f"network, {k}": lambda m=v: drawn(m) for k, v in NETWORKS.items()},
    **{f"front, {k}": lambda points=v: front(points) for k, v in FRONTS.items()},
    "front with a long title": lambda: front(FRONTS["five points"], title=LONG),
    "curve with a long title": lambda: curve(noisy(5), title=LONG),
    "network with a long title": lambda: drawn(NETWORKS["dense"], title=LONG),
    "network without a title": lambda: drawn(NETWORKS["dense"], title=""),
    "network with long labels": lambda: drawn(
        NETWORKS["dense"], labels=["angular velocity of the $left_knee " * 2] * 11
    ),
}


# One or two of each kind of picture, and what is hardest to fit in.
QUICK = {
    "curve of no row", "curve of many rows", "curve of gaps", "curve of huge values",
    "network, shared", "network, empty", "front, five points", "front, only failed",
    "front with a long title", "network with long labels",
}  # fmt: skip


@pytest.mark.parametrize("name", unless_slow(PICTURES, QUICK))
def test_texts_are_legible_and_overlap_nothing(name):
    figure = PICTURES[name]()
    found = texts(figure)
    assert min(text.get_fontsize() for text in found) >= 9
    boxes = [text.get_window_extent() for text in found]
    for text, box in zip(found, boxes, strict=True):
        inside = (
            box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        )
        assert inside, f"{text.get_text()!r} leaves the picture"
    for (a, box_a), (b, box_b) in itertools.combinations(zip(found, boxes, strict=True), 2):
        width = min(box_a.x1, box_b.x1) - max(box_a.x0, box_b.x0)
        height = min(box_a.y1, box_b.y1) - max(box_a.y0, box_b.y0)
        # The boxes of neighbouring lines may share the pixel between them.
        assert min(width, height) <= 1, f"{a.get_text()!r} overlaps {b.get_text()!r}"
    for legend in figure.legends:
        assert legend.get_window_extent().y0 >= figure.axes[0].get_window_extent().y1


@pytest.mark.parametrize(
    "name", unless_slow(["one row", "many rows", "only gaps", "no steps"], {"many rows"})
)
def test_a_curve_is_written_as_a_png(tmp_path, name):
    report.learning_curve(CURVES[name], tmp_path / "curve.png", title="A run", best=2_000.0)
    width, height, pixels = png(tmp_path / "curve.png")
    assert width == 1_200
    assert 400 <= height <= 1_000
    assert len(set(pixels)) > 10  # colours: not an empty page


@pytest.mark.parametrize("name", unless_slow(NETWORKS, {"one edge", "deep", "not finite"}))
def test_a_network_is_written_as_a_png(tmp_path, name):
    report.draw_network(NETWORKS[name], tmp_path / "network.png", title="A network")
    width, height, pixels = png(tmp_path / "network.png")
    assert width == 1_200
    assert 400 <= height <= 1_600
    assert len(set(pixels)) > 10


def test_matplotlib_is_left_as_it_was(tmp_path):
    code = """
import sys
from pathlib import Path
import numpy as np
from experiments import report
assert "matplotlib" not in sys.modules, "imported before it is used"
import matplotlib
before = dict(matplotlib.rcParams), set(matplotlib.colormaps)
folder = Path(sys.argv[1])
report.learning_curve([{"generation": 0, "exact_mean": 1.0}], folder / "a.png", title="")
report.draw_network([np.eye(3)], folder / "b.png", title="")
report.draw_network([np.arange(9.0).reshape(3, 3)], folder / "c.png", title="")
one = {"return": {"mean": 1.0, "standard_error": 0.1}, "report_episodes": 9, "edges": 3}
report.draw_front([one | {"dominated": False}], "edges", folder / "d.png", title="")
assert "matplotlib.pyplot" not in sys.modules
assert (dict(matplotlib.rcParams), set(matplotlib.colormaps)) == before
"""
    root = Path(report.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True)
    assert len(list(tmp_path.iterdir())) == 4
