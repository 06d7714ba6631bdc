"""All cores of a CPU against one device: time of a live step, and memory.

    python -m benchmarks.cores [--quick] [--json=PATH]

A generation of five configs, each carried out in three ways: by one device, uncut; by one device
that does the config's virtual shards one after the other; and as the config has it, its shards
shared out among the cores that the process may use. Each way has a process of its own, with the
flags that `experiments.train` sets, and they take turns. Time is that of a live step after the
first generations, since runs that round differently have episodes of different lengths; of the
digits it is that of a candidate. Memory is the most that a process held.

Twenty minutes on two cores; the file is written after each config. --quick measures the pendulum
and the digits, in few rounds.
"""

import contextlib
import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.figures import intervals
from benchmarks.measure import PAIRS, Row, bootstrap, command_line, machine, report
from experiments.build import plan
from experiments.command_line import configure_jax, load_config, set_xla_flags
from experiments.cores import make_host_devices

ROOT = Path(__file__).parent.parent
WAYS = ("one device", "one device, V shards", "all cores")


class World(NamedTuple):
    """A config, and what is changed in it."""

    config: str
    changes: dict[str, Any]
    warm_up: int  # generations before any is timed
    generations: int  # that are timed at a time
    speedup: float | None = None  # of all cores: the target
    unit: str = "live step"  # what the time is of


WORLDS = {
    "hopper, 64 candidates": World("quickstart", {}, 40, 2, 1.2),
    "hopper, 512 candidates": World("quickstart", {"strategy.num_directions": 248}, 20, 1, 1.7),
    "halfcheetah, 450 candidates": World("halfcheetah_partition", {"task.horizon": 50}, 1, 1, 1.6),
    "pendulum, 80 candidates": World("pendulum_edges", {}, 5, 4),
    "digits, 129 candidates": World("digits", {}, 5, 10, unit="candidate"),
}
QUICK = ("pendulum, 80 candidates", "digits, 129 candidates")


def config_of(world: World, way: str) -> ConfigDict:
    """Return the config of a world, carried out in one of `WAYS`."""
    config = load_config(f"experiments/configs/{world.config}.py")
    config.update_from_flattened_dict(world.changes)
    if way != "all cores":
        config.devices = 1
    if way == "one device":
        config.virtual_shards = None
    return config


def serve(name: str, way: str) -> None:
    """Carry out some generations for each line of the standard input, and print what they took."""
    world = WORLDS[name]
    config = config_of(world, way)
    set_xla_flags(config)
    make_host_devices()
    configure_jax()
    search, key = plan(config).search, jax.random.key(0)
    step = jax.jit(search.step, donate_argnums=1)
    state = jax.jit(search.init)(key)
    for _ in range(world.warm_up):
        # More than 32 generations sent ahead can leave XLA's devices of a CPU without a thread.
        state = jax.block_until_ready(step(key, state)[0])
    print("ready", flush=True)
    for _ in sys.stdin:
        started, seen = time.perf_counter(), []
        for _ in range(world.generations):
            state, metrics = step(key, state)
            seen.append(metrics.steps)
        steps = sum(int(n) for n in jax.device_get(seen))
        amount = steps if world.unit == "live step" else search.num_candidates * len(seen)
        took = time.perf_counter() - started
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        answer = {"seconds": took, "amount": amount, "bytes": peak, "devices": len(jax.devices())}
        print(json.dumps(answer), flush=True)


@contextlib.contextmanager
def processes(name: str) -> Iterator[dict[str, subprocess.Popen]]:
    """Start a process for each way, one after the other, and end them."""
    started = {}
    try:
        for way in WAYS:
            code = f"from benchmarks.cores import serve; serve({name!r}, {way!r})"
            started[way] = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            if started[way].stdout.readline() != "ready\n":
                raise RuntimeError(f"{name} does not run by {way}; its error is above.")
        yield started
    finally:
        for process in started.values():
            process.stdin.close()
            process.wait()


def ask(process: subprocess.Popen) -> dict[str, float]:
    """Let a process carry out generations, and return what it answers."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def measure(name: str, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return what each way answered, a round after the other; the ways take turns."""
    answers: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with processes(name) as started:
        for round_ in range(rounds + 1):
            for k in range(len(WAYS)):
                way = WAYS[(k + round_) % len(WAYS)]
                answers[way].append(ask(started[way]))
    return {way: of_way[1:] for way, of_way in answers.items()}


def rows_of(name: str, answers: dict[str, list[dict[str, float]]] | None) -> list[Row]:
    """Return the rows of a world; without values if it was not measured."""
    rows = [
        Row(f"{name}: one device / all cores", None, None, "x", WORLDS[name].speedup, "at_least"),
        Row(f"{name}: V shards on one device / uncut", None, None, "x", 1.15, "at_most"),
        *(Row(f"{name}: a {WORLDS[name].unit}, {way}", None, None, "us") for way in WAYS),
        *(Row(f"{name}: memory, {way}", None, None, "MB") for way in WAYS),
    ]
    if rows[0].target is None:
        rows[0].direction = None
    if answers is None:
        return rows
    times = {
        way: np.array([1e6 * a["seconds"] / a["amount"] for a in of_way])
        for way, of_way in answers.items()
    }
    one, cut, cores = (times[way] for way in WAYS)
    memory = [np.array([max(a["bytes"] for a in answers[way]) / 1e6]) for way in WAYS]
    values = [one / cores, cut / one, one, cut, cores, *memory]
    for row, value in zip(rows, values, strict=True):
        row.value = float(np.median(value))
        row.interval = bootstrap(value) if value.size > 1 else None
    return rows


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in QUICK if arguments.quick else WORLDS:
        found[name] = measure(name, 3 if arguments.quick else PAIRS)
        rows = [row for world in WORLDS for row in rows_of(world, found.get(world))]
        report("cores", rows, arguments.json, functools.partial(draw, rows))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the ratios, with their intervals."""
    intervals(
        [row for row in rows if row.unit == "x" and row.value is not None],
        path,
        "Time of a live step: one device over all cores, and V shards on one device over none",
        f"Medians of {PAIRS} rounds and 95 % intervals · {machine()}",
    )


if __name__ == "__main__":
    main()
