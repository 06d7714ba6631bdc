"""Where does the time go? Three generations under JAX's profiler, kernel by kernel."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

from benchmarks.accelerator import generations, speed
from benchmarks.accelerator.children import ROOT
from benchmarks.accelerator.kernels import Kernels
from benchmarks.accelerator.rows import Figure, Found, Measurement, Named, lacking
from benchmarks.accelerator.sizes import Sizes
from esenas_jax.types import Part

STAGE = "Where does the time go?"
GENERATIONS = 3
LARGEST = 10  # kernels that have a row
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
        return figures(kernels, operations(step.as_text()), steps, one._asdict())

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
        Named(f"{title}: share of the kernels' time that is physics", ""),
        *(Named(f"{title}: kernel {place + 1} by time, its share", "") for place in range(LARGEST)),
    )


def operations(program: str) -> dict[str, str]:
    """Return what each kernel of a program comes from, by its name as a GPU's trace has it.

    Args:
        program: an executable as text.
    """
    found = re.findall(r"^ *(?:ROOT )?%?([\w.-]+) = .*?op_name=\"([^\"]+)\"", program, re.MULTILINE)
    return {plain(name): operation for name, operation in found}


def plain(name: str) -> str:
    """Return the name of a kernel as a GPU's trace has it: input_fusion_4 for input_fusion.4."""
    return re.sub(r"[.-]", "_", name)


def figures(
    kernels: Kernels, sources: dict[str, str], steps: int, details: dict[str, Any]
) -> list[Figure]:
    """Return the rows of a trace.

    Args:
        kernels: of the trace.
        sources: see `operations`.
        steps: how often all lanes were stepped. Later generations are as long as the timed one,
            or nearly: what they add is not counted.
        details: of what was traced.
    """
    shown = {**details, "kernels": kernels.number, "steps": steps, "seconds": kernels.seconds}
    source = {name: sources.get(plain(name), "") for name in kernels.spent}
    largest = list(kernels.spent.items())[:LARGEST]
    physics = sum(
        spent for name, spent in kernels.spent.items() if part_of(source[name]) is Part.PHYSICS
    )
    return [
        Figure(kernels.number / steps, details=shown),
        Figure(kernels.idle / kernels.seconds, details=shown),
        Figure(physics / kernels.busy, details=shown),
        *(
            Figure(
                spent / kernels.busy,
                note=described(name, source[name]),
                details={"seconds": spent, "operation": source[name]},
            )
            for name, spent in largest
        ),
        *[Figure(None, note="there are fewer kernels")] * (LARGEST - len(largest)),
    ]


def part_of(operation: str) -> Part | None:
    """Return the part of a generation that an operation belongs to: the innermost of its scopes."""
    innermost = max(Part, key=operation.rfind)
    return innermost if innermost in operation else None


def described(name: str, operation: str) -> str:
    """Return a kernel's name, the part of a generation and the operation that it comes from."""
    part = (part_of(operation) or "").removeprefix("esenas_jax.")
    return ", ".join(filter(None, [name, part, operation.rsplit("/", 1)[-1]]))


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
