"""How many lanes, and how often to refill them: what the defaults of a Population cost.

    python -m benchmarks.lanes [--quick] [--json=PATH]

The time of a generation from scratch over lanes x refill interval: pendulum (200 steps), and on the
spring backend hopper, with few candidates too, walker2d (1,000 steps) and halfcheetah, which never
ends early (200 steps). No more lanes are run than there are candidates.
The combinations of a world take turns, and each is compared with the fastest of the same round. A
row is one choice for all worlds, or the library's default on one world: its time over that of the
best choice for that world. Lower is better, and 1 is the best that can be had.

Half an hour on two cores, half of it compiling. --quick has the pendulum alone.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from benchmarks.figures import lines, new_panels
from benchmarks.measure import Row, bootstrap, command_line, machine, report, seconds
from esenas_jax import Population, Search, controllers, es_enas, policies, strategies, tasks
from experiments.command_line import configure_jax

KEY = jax.random.key(0)
LANES = (32, 64, 128, 256)
REFILL = (8, 16)
ROUNDS = 5
# name -> (world, candidates, horizon)
WORLDS = {
    "pendulum": ("pendulum", 1024, 200),
    "few in hopper": ("hopper", 64, 1000),
    "hopper": ("hopper", 1024, 1000),
    "walker2d": ("walker2d", 256, 1000),
    "halfcheetah": ("halfcheetah", 256, 200),
}

Choice = tuple[int, int]  # lanes, actions between refills


def search(name: str, population: Population) -> Search:
    """Return ARS over a linear policy that starts from zeros, in a world."""
    world, candidates, horizon = WORLDS[name]
    made = tasks.pendulum() if world == "pendulum" else tasks.brax_environment(world, "spring")
    task = tasks.episodes(made, horizon=horizon, normalizer=tasks.ars_normalizer())
    policy = policies.dense(
        task.obs_size,
        (),
        task.action_size,
        output_activation=policies.identity,
        weight_init=policies.zeros,
    )
    strategy = strategies.ars(candidates // 2, 0)
    return es_enas(
        policy, task, strategy, controllers.constant(policy.space), population=population
    )


def times(name: str) -> dict[Choice, np.ndarray]:
    """Return the seconds [ROUNDS] that a first generation takes, by choice."""
    calls = {}
    for lanes, refill in itertools.product(LANES, REFILL):
        one = search(name, Population(lanes=lanes, refill_every=refill))
        step, state = jax.jit(one.step), jax.jit(one.init)(KEY)
        calls[lanes, refill] = lambda step=step, state=state: step(KEY, state)
        seconds(calls[lanes, refill])
    rounds = [{choice: seconds(call) for choice, call in calls.items()} for _ in range(ROUNDS)]
    jax.clear_caches()
    return {choice: np.array([r[choice] for r in rounds]) for choice in calls}


def losses(measured: Mapping[Choice, np.ndarray]) -> dict[Choice, np.ndarray]:
    """Return each choice's time over that of the best choice, [rounds].

    The best is the choice with the least median time; round by round, so that a busy moment, which
    slows both, cancels.
    """
    best = min(measured, key=lambda choice: float(np.median(measured[choice])))
    return {choice: t / measured[best] for choice, t in measured.items()}


def choice_for_all(per_world: Mapping[str, Mapping[Choice, np.ndarray]]) -> Choice:
    """Return the choice whose greatest median loss over the worlds is least."""
    choices = next(iter(per_world.values()))
    return min(choices, key=lambda c: max(float(np.median(w[c])) for w in per_world.values()))


def default(name: str) -> Choice:
    """Return what a Population does in a world."""
    population = Population()
    return population.lanes_for(search(name, population).task), population.refill_used


def draw(measured: Mapping[str, Mapping[Choice, np.ndarray]], path: Path) -> None:
    """Draw a panel for each world: milliseconds over lanes, a line for each refill interval."""
    panels, finish = new_panels(
        len(measured),
        "Time of a first generation over lanes",
        f"Medians of {ROUNDS}; a line for each number of actions between refills · {machine()}",
    )
    handles = []
    for axes, (name, by_choice) in zip(panels, measured.items(), strict=True):
        curves = {
            f"every {refill}": (
                LANES,
                [1000 * float(np.median(by_choice[lanes, refill])) for lanes in LANES],
            )
            for refill in REFILL
        }
        _, candidates, horizon = WORLDS[name]
        y_name = "time of a generation (ms)" if axes is panels[0] else ""
        handles = lines(axes, curves, "lanes", y_name)
        axes.set_title(f"{name}\n{candidates:,} x {horizon:,} steps", fontsize=10, loc="left")
    finish(handles, path)


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    names = ["pendulum"] if arguments.quick else list(WORLDS)
    measured = {name: times(name) for name in names}
    per_world = {name: losses(by_choice) for name, by_choice in measured.items()}
    for name, by_choice in measured.items():
        for (lanes, refill), t in by_choice.items():
            print(
                f"{name}: {lanes} lanes, every {refill}: {1000 * np.median(t):.1f} ms, "
                f"{np.median(per_world[name][lanes, refill]):.3f} of the best."
            )
    chosen = choice_for_all(per_world)
    rows = []
    for title in ("least loss overall", "default"):
        for name in WORLDS:
            choice = default(name) if title == "default" else chosen
            label = f"{name}: {title}, {choice[0]} lanes every {choice[1]} / best"
            if name not in per_world:
                rows.append(Row(label, None, None, "x"))
                continue
            loss = per_world[name].get(choice)
            if loss is not None:
                rows.append(Row(label, float(np.median(loss)), bootstrap(loss), "x"))
    report("lanes", rows, arguments.json, lambda path: draw(measured, path))


if __name__ == "__main__":
    main()
