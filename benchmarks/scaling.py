"""Scaling over candidates, devices and seeds, in environment steps and generations a second.

    python -m benchmarks.scaling [--quick] [--json=PATH]

ARS over a linear policy that starts from zeros. Candidates: more and more of them on one device.
Devices: a fixed number of candidates for each (weak scaling), or in all (strong scaling). Seeds: so
many independent runs in one program on one device. A figure is the median of five first
generations, and counts live steps only: those of episodes that go on.

On a CPU the devices are eight host devices that share its cores, and the world is the pendulum: a
functional check, and every row says so. It takes two minutes on two cores, with --quick or without.

On GPUs and TPUs the world is Brax's hopper, and rows are added that would mean nothing on a CPU:
live and simulated steps a second of five Brax environments on two backends with 1, 10 and 100 seeds
(a lane between the end of its episode and its refill is simulated, and not live); the most
candidates that fit when all of them are simulated at once; what XLA's deterministic settings cost.
With a cold cache two hours; --quick leaves the added rows empty.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import lines, new_panels
from benchmarks.measure import Row, bootstrap, command_line, machine, report, seconds
from esenas_jax import Population, Search, controllers, es_enas, policies, strategies, tasks
from esenas_jax.types import Array, Key, PyTree
from experiments.command_line import configure_jax, xla_flags
from experiments.configs.base import base

REPEATS = 5
ENVIRONMENTS = ("ant", "halfcheetah", "hopper", "walker2d", "humanoid")
BACKENDS = ("spring", "mjx")
SEEDS = (1, 10, 100)
CHECK = "functional check"


def set_up_devices() -> None:
    """Ask for eight host devices and for no more of a GPU than is used; to be called first.

    JAX looks for devices when it first needs one. By default it shows one on a CPU, and takes three
    quarters of a GPU's memory, of which processes that are started from here need some.
    """
    flag = "--xla_force_host_platform_device_count"
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=8".strip()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Point(NamedTuple):
    """One program."""

    world: str  # "pendulum", or "ENVIRONMENT BACKEND" of Brax
    horizon: int
    candidates: int
    devices: int = 1
    seeds: int = 1
    lanes: int = 4096  # a device's; no more than it has candidates


class Plan(NamedTuple):
    """What is measured on a kind of device: curve -> its points."""

    candidates: list[Point]
    weak: list[Point]
    strong: list[Point]
    seeds: list[Point]


def plan(world: str, horizon: int, each: int, lanes: int, devices: int) -> Plan:
    """Return the points of the figure.

    Args:
        world: see `Point`.
        horizon: steps.
        each: candidates a device under weak scaling.
        lanes: a device's.
        devices: how many there are; powers of two up to it are used.
    """
    powers = [2**k for k in range(devices.bit_length())]
    return Plan(
        candidates=[Point(world, horizon, each * m // 4, lanes=lanes) for m in (1, 4, 16)],
        weak=[Point(world, horizon, each * d, d, lanes=lanes) for d in powers],
        strong=[Point(world, horizon, each * powers[-1], d, lanes=lanes) for d in powers],
        seeds=[Point(world, horizon, each, seeds=s, lanes=lanes) for s in SEEDS],
    )


def search(point: Point) -> Search:
    """Return the search of a point."""
    world = (
        tasks.pendulum()
        if point.world == "pendulum"
        else tasks.brax_environment(*point.world.split())
    )
    task = tasks.episodes(world, horizon=point.horizon, normalizer=tasks.ars_normalizer())
    policy = policies.dense(
        task.obs_size,
        (),
        task.action_size,
        output_activation=policies.identity,
        weight_init=policies.zeros,
    )
    each = -(-point.candidates // point.devices)
    return es_enas(
        policy,
        task,
        strategies.ars(point.candidates // 2, 0),
        controllers.constant(policy.space),
        population=Population(lanes=min(point.lanes, each), refill_every=16, devices=point.devices),
    )


class Measured(NamedTuple):
    """What a point showed."""

    live: int  # steps of a generation of all seeds
    seconds: np.ndarray  # [REPEATS], of a generation of all seeds


def measure(point: Point) -> Measured:
    """Time the first generation of all seeds of a point, after one to warm up."""
    one, key = search(point), jax.random.key(0)
    init, step = one.init, one.step
    if point.seeds > 1:
        init, step, key = jax.vmap(init), jax.vmap(step), jax.random.split(key, point.seeds)
    state, step = jax.jit(init)(key), jax.jit(step)
    live = int(np.asarray(step(key, state)[1].steps, np.int64).sum())
    return Measured(live, np.array([seconds(lambda: step(key, state)) for _ in range(REPEATS)]))


def rate_rows(title: str, point: Point, measured: Measured) -> list[Row]:
    """Return a point's live steps and generations a second; a generation is one of each seed."""
    out = []
    for amount, unit in ((measured.live, "live steps/s"), (point.seeds, "generations/s")):
        rates = amount / measured.seconds
        out.append(Row(title, float(np.median(rates)), bootstrap(rates), unit))
    return out


def ticks(lengths: Sequence[int] | np.ndarray, lanes: int, refill_every: int) -> int:
    """Return how often every lane is stepped until all episodes have ended, as in `rollout`.

    Args:
        lengths: steps of each episode [N], by id; an action is one step.
        lanes: at most N.
        refill_every: actions between refills.
    """
    left = np.array(lengths[:lanes])
    following, blocks = lanes, 0
    while (left > 0).any():
        blocks += 1
        working = left > 0
        left = left - refill_every
        for lane in np.flatnonzero(working & (left <= 0)):
            if following < len(lengths):
                left[lane] = lengths[following]
                following += 1
    return blocks * refill_every


def simulated_steps(point: Point) -> int:
    """Return the steps of a point's generation that are simulated, live or not, of all seeds."""
    one = search(point)
    ids = jnp.arange(one.num_candidates)

    @jax.jit
    def lengths(keys: Key) -> Array:
        def of(key: Key) -> Array:
            state = one.init(key)
            asked: PyTree = jax.vmap(lambda i: one.candidate(key, state, state.generation, i))(ids)
            return one.evaluate(state, asked).steps

        return jax.vmap(of)(keys)

    key = jax.random.key(0)  # the seeds of `measure`
    keys = key[None] if point.seeds == 1 else jax.random.split(key, point.seeds)
    lanes, refill = one.population.lanes_for(one.task), one.population.refill_used
    # Seeds in one program go on until the last of them has ended.
    longest = max(ticks(row, lanes, refill) for row in np.asarray(lengths(keys)))
    return point.seeds * lanes * longest


def environment_points() -> Iterator[Point]:
    """Yield the points of the table of Brax environments."""
    for name in ENVIRONMENTS:
        for backend in BACKENDS:
            for seeds in SEEDS:
                yield Point(f"{name} {backend}", 200, 1024, seeds=seeds)


def environment_rows(point: Point, run: bool) -> list[Row]:
    """Return live and simulated steps a second of a point; empty if it does not run, or fit."""
    title = f"{point.world}, {point.candidates:,} candidates, seeds: {point.seeds}"
    empty = [Row(title, None, None, "live steps/s"), Row(title, None, None, "simulated steps/s")]
    if not run:
        return empty
    try:
        measured, simulated = measure(point), simulated_steps(point)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"{title}: does not fit.")
        return empty
    finally:
        jax.clear_caches()
    rates = simulated / measured.seconds
    live, _ = rate_rows(title, point, measured)
    return [live, Row(title, float(np.median(rates)), bootstrap(rates), "simulated steps/s")]


def largest_population(world: str, run: bool) -> Row:
    """Return the largest power of two of candidates that can be simulated at once, 16 steps each.

    Above 2^20 it is not tried: at a horizon of 1,000 a generation has fewer than 2^21 candidates.
    """
    row = Row(f"{world}: most candidates at once (of at most 2^20)", None, None, "candidates")
    for candidates in (2**k for k in range(13, 21) if run):
        point = Point(world, 16, candidates, lanes=candidates)
        try:
            measure(point)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            break
        finally:
            jax.clear_caches()
        row.value = float(candidates)
    return row


def deterministic_cost(world: str, run: bool) -> Row:
    """Return the time of a generation under XLA's deterministic settings over that without them.

    The flags are read when a process starts, so each side of three pairs has a process of its own.
    """
    row = Row(f"{world}: deterministic / default", None, None, "x")
    if not run:
        return row
    config = base()
    config.deterministic = True
    code = (
        "from benchmarks.scaling import *; configure_jax(); "
        f"print(float(np.median(measure(Point({world!r}, 1000, 1024)).seconds)))"
    )

    def once(flags: Sequence[str]) -> float:
        environment = {**os.environ, "XLA_FLAGS": " ".join([os.environ["XLA_FLAGS"], *flags])}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return float(done.stdout.split()[-1])

    ratios = [once(xla_flags(config)) / once(()) for _ in range(3)]
    row.value, row.interval = float(np.median(ratios)), bootstrap(ratios)
    return row


def draw(points: Plan, measured: dict[Point, Measured], on_cpu: bool, path: Path) -> None:
    """Draw live steps a second over candidates, devices and seeds."""
    title = "Scaling" + (f" ({CHECK}: devices share the cores of one CPU)" if on_cpu else "")
    first = points.weak[0]
    panels, finish = new_panels(
        3,
        title,
        f"{first.world}, {first.horizon:,} steps, {first.candidates:,} candidates where no other "
        f"number is said; medians of {REPEATS} first generations · {machine()}",
        share_y=True,
    )

    def rate(point: Point) -> float:
        return measured[point].live / float(np.median(measured[point].seconds))

    y_name = "live environment steps a second"
    lines(
        panels[0],
        {"": ([p.candidates for p in points.candidates], [rate(p) for p in points.candidates])},
        "candidates on one device",
        y_name,
    )
    devices = [p.devices for p in points.weak]
    curves = {
        f"weak: {first.candidates:,} candidates a device": [rate(p) for p in points.weak],
        f"strong: {points.strong[0].candidates:,} candidates in all": [
            rate(p) for p in points.strong
        ],
    }
    handles = lines(panels[1], {k: (devices, v) for k, v in curves.items()}, "devices", "")
    ideal = {"in proportion": (devices, [rate(first) * d for d in devices])}
    style = {"color": "#5f5f5f", "linestyle": (0, (4, 3)), "marker": "", "linewidth": 1.2}
    handles += lines(panels[1], ideal, "devices", "", **style)
    lines(
        panels[2],
        {"": ([p.seeds for p in points.seeds], [rate(p) for p in points.seeds])},
        "seeds in one program",
        "",
    )
    finish(handles, path)


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    set_up_devices()
    configure_jax()
    on_cpu = jax.default_backend() == "cpu"
    each, lanes = (512, 128) if on_cpu else (2048, 4096)
    world, horizon = ("pendulum", 200) if on_cpu else ("hopper spring", 1000)
    points = plan(world, horizon, each, lanes, jax.device_count())
    prefix = f"{CHECK}, " if on_cpu else ""
    rows: list[Row] = []
    measured: dict[Point, Measured] = {}
    for curve, of_curve in zip(points._fields, points, strict=True):
        for point in of_curve:
            if point not in measured:
                measured[point] = measure(point)
            title = (
                f"{prefix}{curve}: {point.candidates:,} candidates, devices: {point.devices}, "
                f"seeds: {point.seeds}"
            )
            rows += rate_rows(title, point, measured[point])
    if not on_cpu:
        run = not arguments.quick
        for point in environment_points():
            rows += environment_rows(point, run)
        rows += [largest_population(f"ant {backend}", run) for backend in BACKENDS]
        rows.append(deterministic_cost("ant spring", run))
    report("scaling", rows, arguments.json, lambda path: draw(points, measured, on_cpu, path))


if __name__ == "__main__":
    main()
