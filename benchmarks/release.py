"""Whether the options that the release does not have pay: each, and all, against its update.

    python -m benchmarks.release [--quick] [--json=PATH]

The same candidates a generation, ES and regularized evolution; what differs is

- what becomes of perturbations of parameters that an architecture does not use: left out, or
  averaged over those who use them (`strategies.Unused`);
- whether scores are compared with what was expected of their architecture (`baseline_rate`);
- whether the halves of a pair share architecture and start. What is expected of an architecture
  then cancels from their difference, and only scales the step.

Each has the step size and noise that are the best of five for it on each problem, on other seeds.
Two ratios to the released update, paired by seed, as means with 95 % bootstrap intervals. Below 1
the option is better.

- Episodes to a threshold: until exact evaluations, averaged over ten generations, have gone four
  fifths of the way that those of the released update go in its best setting on the other seeds. A
  run that never does counts with all of its episodes. That the threshold would be another one on
  still other seeds is in no interval.
- Distance from the best: how far the exact evaluations are from a score that none surpasses,
  averaged over the run: the area above their curve.

Problems, 20 seeds each and four for the grid: hidden 8 of 32 weights, the rest must be off; the
same with weights that matter up to 100 times as much as others; 24 edges whose hidden colouring has
4 colours; and Pendulum, 24 of 64 edges. Then the quickstart's Hopper for 200 generations of 64
candidates, five seeds and two for the grid: each option and all, without what lies between.

Rows lie in runs/release, and are not measured again; Hopper's runs lie there, too, and go on where
they were. Ten minutes on two cores, and two hours for Hopper. --quick has a fifth of the
generations and leaves Pendulum and Hopper out; nothing is then judged.
"""

import enum
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import intervals
from benchmarks.hopper import train
from benchmarks.measure import (
    Row,
    bootstrap_ratio_of_means,
    command_line,
    machine,
    remembered,
    report,
)
from esenas_jax import (
    Population,
    Search,
    Starts,
    controllers,
    es_enas,
    policies,
    strategies,
    tasks,
)
from esenas_jax.policies import Policy
from esenas_jax.policies.costs import cost
from esenas_jax.spaces import OneOf, Repeat, SubsetOf
from esenas_jax.strategies import Unused
from esenas_jax.tasks import Task
from esenas_jax.types import Array, Evaluation, Genotype, Key, PyTree
from experiments.command_line import configure_jax

DIRECTIONS, EXACT = 32, 16
WAY = 0.8  # that the released update goes, to the threshold
SMOOTHED = 10  # generations whose exact evaluations are averaged
# Step size and noise, as multiples of the problem's.
GRID = ((1.0, 1.0), (0.3, 1.0), (3.0, 1.0), (1.0, 0.3), (1.0, 3.0))
PAIRED: dict[str, Any] = {"shared_architecture": True, "starts": Starts.PAIR}
# Name -> options of the strategy, options of the search.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "released": ({}, {}),
    "unused left out": ({"unused": Unused.ZERO}, {}),
    "mean over users": ({"unused": Unused.SHARED}, {}),
    "baseline by architecture": ({}, {"baseline_rate": 0.3}),
    "pairs share": ({}, PAIRED),
    "pairs share, unused left out": ({"unused": Unused.ZERO}, PAIRED),
    "pairs share, mean over users": ({"unused": Unused.SHARED}, PAIRED),
    "all": ({"unused": Unused.SHARED}, {"baseline_rate": 0.3, **PAIRED}),
}
ALONE = tuple(name for name in OPTIONS if not name.startswith("pairs share,"))


FOLDER = Path("runs") / "release"

# Seeds [M] and settings [M, 2] (step size, noise) -> means of exact evaluations [M, generations].
Curves = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Problem(NamedTuple):
    """What is searched, and for how long."""

    curves: Callable[[str, int], Curves]  # of an option, for so many generations
    noise_std: float
    step_size: float
    generations: int
    best: float  # a score that none surpasses
    seeds: int = 20
    tuning_seeds: int = 4
    options: tuple[str, ...] = tuple(OPTIONS)


def _function(
    size: int,
    space: SubsetOf | Repeat,
    bind: Callable[[Array, Genotype], Array],
    used: Callable[[Genotype], Array],
    loss: Callable[[Array], Array],
    **more: Any,
) -> Problem:
    """Return a problem whose score is minus a loss of the bound network."""
    policy = policies.custom(
        1,
        1,
        space,
        lambda key: 0.1 * jax.random.normal(key, (size,)),
        bind,
        lambda network, obs: jnp.sum(network)[None] * obs,
    )._replace(used=used, cost=lambda genotype: cost(edges=size, weights=size, biases=0))

    def evaluate(key: Key, network: PyTree, apply: object) -> Evaluation:
        return tasks.single_score(-loss(network))

    task = tasks.SingleShot(1, 1, evaluate)
    return Problem(partial(in_one_program, policy, task), best=0.0, **more)


def hidden_subset(conditioning: float) -> Problem:
    """Eight of 32 weights must be on, at 1 or -1; importances span a factor."""
    rng = np.random.default_rng(0)
    target = np.zeros(32, np.float32)
    target[rng.choice(32, 8, replace=False)] = rng.choice([-1.0, 1.0], 8)
    importance = conditioning ** rng.uniform(-0.5, 0.5, 32).astype(np.float32)

    def on(genotype: Array) -> Array:
        return jnp.zeros(32, bool).at[genotype].set(True)

    return _function(
        32,
        SubsetOf(32, 8),
        lambda params, genotype: jnp.where(on(genotype), params, 0.0),
        on,
        lambda x: jnp.sum(importance * (x - target) ** 2),
        noise_std=0.1,
        step_size=0.05,
        generations=200,
    )


def hidden_colours() -> Problem:
    """Twenty-four edges have one of four values each, hidden."""
    rng = np.random.default_rng(1)
    target = np.array([-1.5, -0.5, 0.5, 1.5], np.float32)[rng.integers(0, 4, 24)]
    return _function(
        4,
        Repeat(OneOf(4), 24),
        lambda params, genotype: params[genotype],
        lambda genotype: jnp.zeros(4, bool).at[genotype].set(True),
        lambda x: jnp.sum((x - target) ** 2),
        noise_std=0.1,
        step_size=0.05,
        generations=200,
    )


def pendulum() -> Problem:
    """The pendulum of `experiments/configs/pendulum_edges.py`, an episode a candidate."""
    task = tasks.episodes(tasks.pendulum(), horizon=200, normalizer=tasks.es_normalizer())
    policy = policies.edge_pruned(task.obs_size, (16,), task.action_size, num_edges=24)
    return Problem(partial(in_one_program, policy, task), 0.5, 0.8, 150, best=0.0)


def hopper() -> Problem:
    """The quickstart, in programs that go on where they were stopped."""
    return Problem(in_runs, 0.1, 0.02, 200, best=3000.0, seeds=5, tuning_seeds=2, options=ALONE)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "8 of 32": partial(hidden_subset, 1.0),
    "8 of 32, ill-conditioned": partial(hidden_subset, 100.0),
    "24 edges in 4 colours": hidden_colours,
    "Pendulum": pendulum,
    "Hopper": hopper,
}
QUICK = ("8 of 32", "8 of 32, ill-conditioned", "24 edges in 4 colours")


def in_one_program(policy: Policy, task: Task, option: str, generations: int) -> Curves:
    """Return what trains a policy on a task with an option, all runs at once."""
    of_strategy, of_search = OPTIONS[option]
    strategy = strategies.es(DIRECTIONS, EXACT, **of_strategy)
    search: Search = es_enas(
        policy,
        task,
        strategy,
        controllers.regularized_evolution(policy.space, strategy.num_candidates),
        population=Population(lanes=64),
        **of_search,
    )

    def run(seed: Array, setting: Array) -> Array:
        key = jax.random.key(seed)
        state = search.init(key)
        hyper = type(state.strategy.hyper)(noise_std=setting[1], step_size=setting[0])
        state = state._replace(strategy=state.strategy._replace(hyper=hyper))
        return search.run(key, state, generations)[1].exact_mean

    compiled = jax.jit(jax.vmap(run))
    return lambda seeds, settings: np.asarray(
        compiled(jnp.asarray(seeds, jnp.uint32), jnp.asarray(settings, jnp.float32)), float
    )


def in_runs(option: str, generations: int) -> Curves:
    """Return what trains the quickstart with an option; consecutive seeds of a setting at once."""
    of_strategy, of_search = OPTIONS[option]
    sections = {"strategy": of_strategy, "search": {"starts": Starts.CANDIDATE, **of_search}}
    overrides = [
        f"--config.{section}.{name}={value.value if isinstance(value, enum.Enum) else value}"
        for section, fields in sections.items()
        for name, value in fields.items()
    ]

    def curves(seeds: np.ndarray, settings: np.ndarray) -> np.ndarray:
        out = np.empty((len(seeds), generations))
        for setting in np.unique(settings, axis=0):
            places = np.flatnonzero((settings == setting).all(axis=1))
            step_size, noise_std = setting
            name = f"{option}_{step_size:g}_{noise_std:g}_{seeds[places[0]]}"
            folder = FOLDER / name.replace(" ", "_").replace(",", "")
            train(
                folder,
                "experiments/configs/quickstart.py",
                *overrides,
                f"--config.generations={generations}",
                f"--config.seed={seeds[places[0]]}",
                f"--config.seeds={len(places)}",
                f"--config.strategy.step_size={step_size}",
                f"--config.strategy.noise_std={noise_std}",
                "--config.answer_episodes=2",  # what is deployed is not looked at
            )
            for line in (folder / "metrics.jsonl").read_text().splitlines():
                row = json.loads(line)
                out[places[row["run"]], row["generation"]] = row["exact_mean"]
        return out

    return curves


def measured(name: str, option: str, quick: bool) -> dict[str, Any]:
    """Return the best setting, its curves on the grid's seeds, and those on the table's."""
    problem = PROBLEMS[name]()
    generations = problem.generations // (5 if quick else 1)
    grid = np.array([(a * problem.step_size, b * problem.noise_std) for a, b in GRID])

    def measure() -> dict[str, Any]:
        train = problem.curves(option, generations)
        # As many runs as the table has, on most problems, so that one program serves both.
        seeds = np.arange(1000, 1000 + problem.tuning_seeds)
        tried = train(np.tile(seeds, len(GRID)), grid.repeat(len(seeds), axis=0))
        tried = tried.reshape(len(GRID), len(seeds), generations)
        best = int(np.argmin(distance(tried, problem.best).mean(axis=1)))
        curves = train(np.arange(problem.seeds), np.tile(grid[best], (problem.seeds, 1)))
        return {
            "step_size": grid[best][0],
            "noise_std": grid[best][1],
            "tried": tried[best].tolist(),
            "curves": curves.tolist(),
        }

    if quick:
        return measure()
    settings = {
        "grid": grid.tolist(),
        "generations": generations,
        "best": problem.best,
        "seeds": [problem.seeds, problem.tuning_seeds],
    }
    path = FOLDER / f"{name}_{option}.json".replace(" ", "_").replace(",", "")
    return remembered(path, settings, measure)


def distance(curves: np.ndarray, best: float) -> np.ndarray:
    """Return how far curves [..., generations] are from a score on average; failures, very far."""
    return best - np.where(np.isfinite(curves), curves, -1e9).mean(axis=-1)


def smooth(curves: np.ndarray) -> np.ndarray:
    """Return every `SMOOTHED` generations' mean: float [..., generations - SMOOTHED + 1]."""
    return np.lib.stride_tricks.sliding_window_view(curves, SMOOTHED, axis=-1).mean(axis=-1)


def threshold(tried: np.ndarray) -> float:
    """Return the score `WAY` from where curves [runs, generations] begin to where they end."""
    means = smooth(tried).mean(axis=0)
    if not np.isfinite(means).all():
        raise ValueError("the released update must not fail in its best setting, but it did.")
    return float(means[0] + WAY * (means[-1] - means[0]))


def until(curves: np.ndarray, score: float) -> tuple[np.ndarray, int]:
    """Return the generations that each of curves took to a score, and how many got there.

    An average stands for the middle of its generations.
    """
    reached = smooth(curves) >= score
    there = reached.any(axis=1)
    taken = np.where(there, reached.argmax(axis=1) + SMOOTHED // 2, curves.shape[1])
    return taken, int(there.sum())


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    rows: list[Row] = []
    for name, make in PROBLEMS.items():
        measures, problem = name in QUICK or not arguments.quick, make()
        reference: list[np.ndarray] = []
        aim = 0.0
        for option in problem.options:
            each: list[np.ndarray] = []  # to the threshold, and to the best
            if measures:
                found = measured(name, option, arguments.quick)
                if option == "released":
                    aim = threshold(np.array(found["tried"]))
                curves = np.array(found["curves"])
                taken, there = until(curves, aim)
                each = [taken, distance(curves, problem.best)]
                print(
                    f"{name}, {option}: step {found['step_size']:g}, noise "
                    f"{found['noise_std']:g}; {aim:.4g} reached by {there} of {len(curves)}",
                    flush=True,
                )
            if option == "released":
                reference = each
                continue
            for i, what in enumerate(("episodes to the threshold", "distance from the best")):
                row = Row(f"{name}, {option}", None, None, f"x {what}")
                if measures:
                    row.value, interval = bootstrap_ratio_of_means(each[i], reference[i])
                    row.interval = None if arguments.quick else interval
                rows.append(row)
    report(
        "release",
        rows,
        arguments.json,
        lambda path: intervals(
            [row for row in rows if row.value is not None],
            path,
            "Options against the released update (below 1: better)",
            f"Ratios of means and 95 % intervals over 20 seeds, 5 of Hopper · {machine()}",
        ),
    )


if __name__ == "__main__":
    main()
