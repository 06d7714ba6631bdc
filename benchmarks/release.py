"""Whether the options that the release does not have pay: each, and all, against its update.

    python -m benchmarks.release [--quick] [--json=PATH]

The same 80 candidates a generation, ES and regularized evolution; what differs is

- what becomes of perturbations of parameters that an architecture does not use: left out, or
  averaged over those who use them (`strategies.Unused`);
- whether scores are compared with what was expected of their architecture (`baseline_rate`);
- whether the halves of a pair share architecture and start. What is expected of an architecture
  then cancels from their difference, and only scales the step.

Each has the step size and noise that are best for it on each problem, out of one grid of five on
four other seeds. Two ratios to the released update with 20 seeds, paired, as means with 95 %
bootstrap intervals: episodes until the exact evaluations reach a threshold that was fixed
beforehand (a run that never does counts with all of its episodes), and how far the exact
evaluations are from the best score there is, averaged over the run: the area above their curve.
Below 1 the option is better.

Problems: hidden 8 of 32 weights, the rest must be off; the same with weights that matter up to
100 times as much as others; 24 edges whose hidden colouring has 4 colours; and Pendulum, 24 of 64
edges. A functional result, the same on every machine but for rounding. Half an hour on two cores.
--quick has a fifth of the generations and leaves Pendulum out; nothing is then judged.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import intervals
from benchmarks.measure import Row, bootstrap_ratio_of_means, command_line, machine, report
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

SEEDS, TUNING_SEEDS = 20, 4
DIRECTIONS, EXACT = 32, 16
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


class Problem(NamedTuple):
    """What is searched, and for how long."""

    policy: Policy
    task: Task
    noise_std: float
    step_size: float
    generations: int
    threshold: float  # of the exact evaluations
    best: float  # the highest score there is


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

    return Problem(policy, tasks.SingleShot(1, 1, evaluate), best=0.0, **more)


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
        threshold=-1.0,
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
        threshold=-3.0,
    )


def pendulum() -> Problem:
    """The pendulum of `experiments/configs/pendulum_edges.py`, an episode a candidate."""
    task = tasks.episodes(tasks.pendulum(), horizon=200, normalizer=tasks.es_normalizer())
    policy = policies.edge_pruned(task.obs_size, (16,), task.action_size, num_edges=24)
    return Problem(policy, task, 0.5, 0.8, 150, threshold=-400.0, best=0.0)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "8 of 32": partial(hidden_subset, 1.0),
    "8 of 32, ill-conditioned": partial(hidden_subset, 100.0),
    "24 edges in 4 colours": hidden_colours,
    "Pendulum": pendulum,
}


def curves(
    problem: Problem, option: str, generations: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the function from seeds [M] and settings [M, 2] to exact means [M, generations]."""
    of_strategy, of_search = OPTIONS[option]
    strategy = strategies.es(DIRECTIONS, EXACT, **of_strategy)
    search: Search = es_enas(
        problem.policy,
        problem.task,
        strategy,
        controllers.regularized_evolution(problem.policy.space, strategy.num_candidates),
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


def measured(problem: Problem, option: str, generations: int) -> tuple[np.ndarray, np.ndarray]:
    """Return episodes to the threshold [SEEDS] and the mean distance from the best [SEEDS]."""
    train = curves(problem, option, generations)
    grid = np.array([(a * problem.step_size, b * problem.noise_std) for a, b in GRID])

    def distance(curve: np.ndarray) -> np.ndarray:
        return problem.best - np.where(np.isfinite(curve), curve, -1e9).mean(axis=1)

    # As many runs as the table has, so that one program serves both.
    tried = train(
        np.tile(np.arange(1000, 1000 + TUNING_SEEDS), len(GRID)), grid.repeat(TUNING_SEEDS, axis=0)
    )
    best = int(np.argmin(distance(tried).reshape(len(GRID), -1).mean(axis=1)))
    curve = train(np.arange(SEEDS), np.tile(grid[best], (SEEDS, 1)))
    reached = curve >= problem.threshold
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, generations)
    print(
        f"{option}: step {grid[best][0]:g}, noise {grid[best][1]:g}; threshold reached by "
        f"{int(reached.any(axis=1).sum())} of {SEEDS}",
        flush=True,
    )
    return first * (2 * DIRECTIONS + EXACT), distance(curve)


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    rows: list[Row] = []
    for name, make in PROBLEMS.items():
        skip = arguments.quick and name == "Pendulum"
        problem = make()
        generations = problem.generations // (5 if arguments.quick else 1)
        print(f"{name}, {generations} generations")
        reference = None if skip else measured(problem, "released", generations)
        for option in list(OPTIONS)[1:]:
            found = None if reference is None else measured(problem, option, generations)
            for place, called in enumerate(("episodes to the threshold", "distance from the best")):
                row = Row(f"{name}, {option}", None, None, f"x {called}")
                if reference is not None and found is not None:
                    row.value, interval = bootstrap_ratio_of_means(found[place], reference[place])
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
            f"Ratios of means and 95 % intervals over {SEEDS} seeds · {machine()}",
        ),
    )


if __name__ == "__main__":
    main()
