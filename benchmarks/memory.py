"""Peak memory of a generation, over candidates and weights.

    python -m benchmarks.memory [--quick] [--json=PATH]

ES with exact Gaussian noise on a sphere, 16 candidates and 16 directions at a time, and no noise
kept (`noise_bytes=0`; the default keeps up to 64 MiB on a CPU, 512 MiB elsewhere): what a
generation needs should not grow with candidates x weights, the block that a population kept in
memory would be. Every cell runs in a process of its own. On a CPU its figure is the peak of what is
resident while a state is made and one generation carried out, less what was resident when all was
compiled; on an accelerator it is the device's own `peak_bytes_in_use`.

Ten minutes on two cores, most of them for the 15 billion normals of the last cell. --quick has no
cell of more than 3 x 10^8 weights.
"""

import contextlib
import ctypes
import multiprocessing
import resource
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.figures import lines, new_panels
from benchmarks.functions import search_over_weights, sphere
from benchmarks.measure import Row, command_line, machine, report
from esenas_jax import Population, strategies
from experiments.command_line import configure_jax

WEIGHTS = (10_000, 100_000, 1_000_000)
CANDIDATES = (64, 256, 1024, 10_000)
QUICK = 3 * 10**8  # candidates x weights
TARGET = (1_000_000, 10_000)
MIB = 2**20

Cell = tuple[int, int]  # weights, candidates


def peak_bytes(cell: Cell) -> int:
    """Return the peak of one generation in bytes; to be called once in a process."""
    configure_jax()
    weights, candidates = cell
    search = search_over_weights(
        sphere,
        jnp.ones(weights),
        strategies.es(candidates // 2, 0, 0.02, 0.1, shaping=strategies.centered_ranks),
        Population(lanes=16, chunk=16, noise_bytes=0),
    )
    key = jax.random.key(0)
    init = jax.jit(search.init).lower(key).compile()
    shapes = jax.eval_shape(search.init, key)
    step = jax.jit(search.step, donate_argnums=1).lower(key, shapes).compile()
    before = _reset_peak()
    jax.block_until_ready(step(key, init(key)))
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use", _resident("VmHWM") - before))


def _reset_peak() -> int:
    """Give back what the allocator keeps, forget the peak so far, and return what is resident."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux, or not glibc
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(field: str) -> int:
    """Return VmRSS or VmHWM, its peak, of this process in bytes; without /proc, the peak."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return resident(status, field)


def resident(status: str, field: str) -> int:
    """Return a field in kB of the text of /proc/PID/status, in bytes."""
    (line,) = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def title(cell: Cell) -> str:
    return f"{cell[0]:,} weights, {cell[1]:,} candidates"


def draw(peaks: Mapping[Cell, int], path: Path) -> None:
    """Draw peaks over candidates, a line for each number of weights, and the blocks not kept."""
    panels, finish = new_panels(
        1,
        "Peak memory of a generation",
        "Exact Gaussian noise, 16 candidates at a time; dashed: what a float32 block of candidates "
        f"x weights would take · {machine()}",
    )
    measured, blocks = {}, {}
    for weights in WEIGHTS:
        there = [n for n in CANDIDATES if (weights, n) in peaks]
        # A page or two more or less is not seen: half a MiB is as little as there is to show.
        y = [max(peaks[weights, n] / MIB, 0.5) for n in there]
        measured[f"{weights:,} weights"] = (there, y)
        blocks[f"{weights}"] = (CANDIDATES, [4 * n * weights / MIB for n in CANDIDATES])
    handles = lines(panels[0], measured, "candidates", "peak memory (MiB)")
    style = {"linestyle": (0, (4, 3)), "marker": "", "linewidth": 1.2}
    lines(panels[0], blocks, "candidates", "peak memory (MiB)", **style)
    finish(handles, path)


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    cells = [(weights, n) for weights in WEIGHTS for n in CANDIDATES]
    run = [c for c in cells if not arguments.quick or c[0] * c[1] <= QUICK]
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as processes:
        peaks = dict(zip(run, processes.map(peak_bytes, run), strict=True))
    rows = []
    for cell in cells:
        row = Row(title(cell), None, None, "MiB")
        if cell in peaks:
            row.value = peaks[cell] / MIB
        if cell == TARGET:
            row.target, row.direction = 2048.0, "at_most"
            row.interval = None if row.value is None else (row.value, row.value)
        rows.append(row)
    report("memory", rows, arguments.json, lambda path: draw(peaks, path))


if __name__ == "__main__":
    main()
