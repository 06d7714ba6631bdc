"""Scaling over candidates, devices and seeds, in environment steps and generations a second.

    python -m benchmarks.scaling [--quick] [--json=PATH]

ARS over a linear policy that starts from zeros. Candidates: more and more of them on one device.
Devices: a fixed number of candidates for each (weak scaling), or in all (strong scaling). Seeds: so
many independent runs in one program on one device. A figure is the median of five first
generations, and counts live steps only: those of episodes that go on.

On a CPU the devices are eight host devices that share its cores, and the world is the pendulum: a
functional check, and every row says so. It takes two minutes on two cores, with --quick or without.

On GPUs and TPUs the world is Brax's hopper. What they do besides is in `benchmarks.accelerator`.
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.figures import lines, new_panels
from benchmarks.measure import Row, bootstrap, command_line, machine, report, seconds
from esenas_jax import Population, Search, controllers, es_enas, policies, strategies, tasks
from experiments.command_line import configure_jax

REPEATS = 5
SEEDS = (1, 10, 100)
CHECK = "functional check"


def set_up_devices() -> None:
    """Ask for eight host devices; to be called before JAX looks for devices, and shows one."""
    flag = "--xla_force_host_platform_device_count"
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=8".strip()


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
    report("scaling", rows, arguments.json, lambda path: draw(points, measured, on_cpu, path))


if __name__ == "__main__":
    main()
