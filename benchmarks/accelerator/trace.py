"""Where does the time go? Three generations under JAX's profiler, kernel by kernel."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

from benchmarks.accelerator import generations, speed
from benchmarks.accelerator.children import ROOT
from benchmarks.accelerator.kernels import LARGEST, Kernels
from benchmarks.accelerator.rows import Figure, Found, Measurement, Named, lacking
from benchmarks.accelerator.sizes import Sizes

STAGE = "Where does the time go?"
GENERATIONS = 3
PATIENCE = 120.0  # seconds that reading may take


def measurements(sizes: Sizes) -> list[Measurement]:
    """Return what this stage measures."""

    def measure(found: Found, init: Any, step: Any) -> list[Figure]:
        one = speed.best(sizes, found)
        run = generations.running(one, init, step)
        with tempfile.TemporaryDirectory() as folder:
            record(Path(folder), lambda state: step(generations.KEY, state)[0], run.state)
            kernels = read_in_a_child(Path(folder))
        steps = GENERATIONS * generations.ticks_of(one, run.lengths)
        return figures(kernels, steps, one._asdict())

    return [
        Measurement(
            STAGE,
            rows_of(f"{sizes.world} spring"),
            measure,
            lambda found: generations.programs(speed.best(sizes, found)),
            kind="spring",
            work=lambda found: (2.0 + 4 * GENERATIONS) * speed.best(sizes, found).steps,
            needs=speed.rows_that_decide(sizes),
            absent=lacking("brax"),
        )
    ]


def rows_of(title: str) -> tuple[Named, ...]:
    """Return the rows of `figures`."""
    return (
        Named(f"{title}: kernels for a step of all lanes", ""),
        Named(f"{title}: share of the time in which no kernel runs", ""),
        *(Named(f"{title}: kernel {place + 1} by time, its share", "") for place in range(LARGEST)),
    )


def figures(kernels: Kernels, steps: int, details: dict[str, Any]) -> list[Figure]:
    """Return the rows of a trace.

    Args:
        kernels: of the trace.
        steps: how often all lanes were stepped. Later generations are as long as the timed one,
            or nearly: what they add is not counted.
        details: of what was traced.
    """
    shown = {**details, "kernels": kernels.number, "steps": steps, "seconds": kernels.seconds}
    largest = list(kernels.largest.items())
    return [
        Figure(kernels.number / steps, details=shown),
        Figure(kernels.idle / kernels.seconds, details=shown),
        *(
            Figure(spent / kernels.busy, note=name, details={"seconds": spent})
            for name, spent in largest
        ),
        *[Figure(None, note="there are fewer kernels")] * (LARGEST - len(largest)),
    ]


def record(folder: Path, generation: Any, state: Any) -> None:
    """Write a trace of three generations."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    options.host_tracer_level = 1 if jax.default_backend() == "cpu" else 0
    options.enable_hlo_proto = False
    jax.block_until_ready(state)
    jax.profiler.start_trace(folder, profiler_options=options)
    try:
        for _ in range(GENERATIONS):
            state = jax.block_until_ready(generation(state))
    finally:
        jax.profiler.stop_trace()


def read_in_a_child(folder: Path) -> Kernels:
    """Return what the trace in a folder shows: to read one has aborted a process before.

    Raises:
        RuntimeError: with the child's last line, if it cannot be read.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator.kernels", str(folder)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise RuntimeError(f"the trace cannot be read: {line}")
    return Kernels(**json.loads(done.stdout))
