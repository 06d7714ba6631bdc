"""How things are measured here: the two sides of a ratio alternate in one process.

Every benchmark is `python -m benchmarks.NAME [--quick] [--json=PATH]`, prints a table, and ends
with status 0 when it ran to the end, whatever it measured.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments.provenance import provenance

PAIRS = 15  # at least; see `paired_ratio`
# An interval wider than this share of its value decides nothing, unless the target lies so far off
# that an interval three times as wide on its side would not reach it.
WIDE = 0.10
PATIENCE = 150.0  # seconds that a ratio may take until its interval is no longer too wide


@dataclasses.dataclass
class Row:
    """One measured figure, and the target it is held against, if there is one."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    unit: str = ""
    target: float | None = None
    direction: Literal["at_most", "at_least"] | None = None
    whole: bool = False  # the target is one for all of the interval
    note: str = ""  # what there is to say besides, or why there is no value

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None if that is undecided.

        By the interval's better end, if it is not too wide; if the target is one for all of the
        interval, by all of it, and not met when all of it misses.
        """
        if self.value is None or self.target is None or self.interval is None:
            return None
        low, high = self.interval
        if self.whole:
            at_most = self.direction == "at_most"
            met = [end <= self.target if at_most else end >= self.target for end in (low, high)]
            return met[0] if met[0] == met[1] else None
        near = low if self.target < self.value else high
        far = abs(self.target - self.value) > 3.0 * abs(near - self.value)
        if _wide(self.value, self.interval) and not far:
            return None
        return low <= self.target if self.direction == "at_most" else high >= self.target


def _wide(value: float, interval: tuple[float, float]) -> bool:
    return interval[1] - interval[0] > WIDE * abs(value)


def verdict(row: Row) -> str:
    """Say in a word or three whether a row's target holds."""
    if row.value is None:
        return "not measured"
    return {True: "holds", False: "does not hold", None: "undecided"}[row.holds]


def cell(row: Row) -> str:
    """Return a row's figure, its unit, its interval unless that is the figure again, its note."""
    if row.value is None:
        return f"not measured: {row.note}" if row.note else "not measured"
    text = f"{figure(row.value)} {row.unit}".strip()
    if row.interval is not None and row.interval != (row.value, row.value):
        low, high = map(figure, row.interval)
        text = f"{text} [{low}, {high}]"
    return f"{text}, {row.note}" if row.note else text


def figure(value: float) -> str:
    """Return a number with four digits, or as many as it has before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def judged(row: Row) -> str:
    """Return what a row is held against, and whether it holds; "" if against nothing."""
    if row.target is None:
        return ""
    what = f"{(row.direction or '').replace('_', ' ')} {row.target:,g}"
    return f"{'all of it ' if row.whole else ''}{what}: {verdict(row)}"


def seconds(f: Callable[[], Any]) -> float:
    """Return how long a call takes until its arrays are there."""
    started = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - started


def paired_ratio(
    numerator: Callable[[], Any], denominator: Callable[[], Any], pairs: int = PAIRS
) -> tuple[float, tuple[float, float], np.ndarray]:
    """Time two calls in turn, and return the median of their per-pair ratios.

    Which side goes first alternates too, so that neither always finds the caches of the other.
    Whoever asks for 15 pairs or more gets more of them while the interval is too wide to decide
    anything, as long as `PATIENCE` lasts: when to stop depends on its width, never on the value.

    Args:
        numerator: called once to warm up, then once a pair.
        denominator: likewise.
        pairs: how many at least, 1 or more; 15 for a result that counts.

    Returns:
        The median ratio, its 95 % bootstrap interval, and the times [pairs, 2] in seconds.
    """
    sides = (numerator, denominator)
    for side in sides:
        seconds(side)
    started, times = time.perf_counter(), np.empty((0, 2))
    while True:
        more = np.empty((max(pairs, len(times)), 2))  # then twice as many, and again
        for pair in range(len(more)):
            for side in (0, 1) if pair % 2 else (1, 0):
                more[pair, side] = seconds(sides[side])
        times = np.concatenate([times, more])
        ratios = times[:, 0] / times[:, 1]
        value, interval = float(np.median(ratios)), bootstrap(ratios)
        spent = time.perf_counter() - started
        if pairs < PAIRS or not _wide(value, interval) or 2 * spent > PATIENCE:
            return value, interval, times


def bootstrap(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the median."""
    values = np.asarray(values)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (10_000, values.size)), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
) -> tuple[float, tuple[float, float]]:
    """Return the mean of values [n], and its 95 % percentile-bootstrap interval."""
    values = np.asarray(values, float)
    rng = np.random.default_rng(0)
    means = values[rng.integers(values.size, size=(10_000, values.size))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), (float(low), float(high))


def bootstrap_ratio_of_means(
    numerator: Sequence[float] | np.ndarray, denominator: Sequence[float] | np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of the means of paired values [n], and its 95 % bootstrap interval."""
    pairs = np.stack([np.asarray(numerator), np.asarray(denominator)], axis=1)
    rng = np.random.default_rng(0)
    means = pairs[rng.integers(len(pairs), size=(10_000, len(pairs)))].mean(axis=1)
    low, high = np.quantile(means[:, 0] / means[:, 1], (0.025, 0.975))
    ratio = pairs[:, 0].mean() / pairs[:, 1].mean()
    return float(ratio), (float(low), float(high))


def machine() -> str:
    """Return what the figures were measured on, for a picture's second line."""
    origin = provenance()
    if origin["platform"] == "cpu":
        return processor()
    return f"{origin['device_count']} x {origin['device']}"


def processor() -> str:
    """Return the model of the processor, how wide its vectors are, and how many cores are used."""
    origin = provenance()
    bits = origin["vector_bits"]
    vectors = f" ({bits}-bit vectors)" if bits else ""
    return f"{origin['cpu']}{vectors}, {origin['usable_cores']} CPU cores"


def command_line(description: str | None) -> argparse.Namespace:
    """Parse --quick and --json."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="within five minutes on two cores, compiling included"
    )
    parser.add_argument("--json", type=Path, help="where to write the rows")
    return parser.parse_args()


def remembered(
    path: Path, settings: dict[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what a file says was measured, or measure it and write the file.

    Args:
        path: of a JSON file.
        settings: what was measured, as JSON; what was measured otherwise is refused, not returned.
        measure: () -> what is to be returned, as JSON.
    """
    if path.exists():
        known = json.loads(path.read_text())
        if known["settings"] != settings:
            raise SystemExit(f"error: {path} was measured with other settings: remove it.")
        return known["found"]
    found = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps({"settings": settings, "found": found}))
    whole.replace(path)
    return found


def _as_json(row: Row) -> dict[str, Any]:
    """Return a row as it stands in a JSON; a note that is empty does not."""
    fields = dataclasses.asdict(row)
    if not row.note:
        del fields["note"]
    return {**fields, "holds": row.holds}


def report(
    benchmark: str,
    rows: Sequence[Row],
    path: Path | None,
    draw: Callable[[Path], None] | None = None,
) -> None:
    """Print a table of rows, and write them as JSON and as a picture if there is a path.

    Args:
        benchmark: its name.
        rows: what was measured.
        path: the JSON to write; the picture is beside it, with the suffix .png.
        draw: draws the picture at a path.
    """
    for row in rows:
        print(f"{row.name:70s} {cell(row):50s} {judged(row)}")
    if path is None:
        return
    origin = provenance()
    versions = {"python": origin["python"], **origin["versions"]}
    content = {
        "benchmark": benchmark,
        "device": f"{origin['device']} ({origin['usable_cores']} cores)"
        if origin["platform"] == "cpu"
        else origin["device"],
        "device_count": origin["device_count"],
        "processor": processor(),
        "versions": versions,
        "commit": origin["commit"],
        "rows": [_as_json(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    if draw is not None:
        draw(path.with_suffix(".png"))
