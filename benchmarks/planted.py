"""Whether controllers learn: architectures hidden in spaces, found from scores alone.

    python -m benchmarks.planted [--quick] [--json=PATH]

Generations of 64 candidates, no weights, and three ways to score them:

- edges: 8 of 60 are hidden, and a score is the share of them that was chosen;
- partition: colours of 20 edges are hidden, 3 of them, and a score is the share of the pairs of
  edges that are rightly together or apart, whatever the colours are called (Rand, 1971);
- trap: 8 of 60 again, but short of all eight a score falls with every one that is found.

The first two without noise, and with noise as large as scores of uniform architectures differ.
What is shown is the true score of what each controller would deploy, its best architectures
compared on 32 fresh scores each: mean and 95 % bootstrap interval over 20 seeds, each with hidden
architectures of its own. Every controller has its defaults, on every problem; the learning rates
among these were chosen on other seeds of the first two. Random search gets
its best 8 of all generations re-evaluated, which is more than `controllers.random` offers.

A functional result, the same on every machine but for rounding. Ten minutes on two cores. --quick
has five seeds and leaves the autoregressive kinds out; nothing is then judged.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import intervals
from benchmarks.measure import Row, bootstrap_mean, command_line, machine, report
from esenas_jax import controllers
from esenas_jax.controllers import Controller
from esenas_jax.spaces import OneOf, Repeat, Space, SubsetOf
from esenas_jax.types import Array, Genotype, Key
from experiments.command_line import configure_jax

CANDIDATES, SEEDS, AGAIN = 64, 20, 32
AUTOREGRESSIVE = "autoregressive"

CONTROLLERS: dict[str, Callable[[Space], Controller]] = {
    "random search": controllers.random,
    "hill climbing": controllers.hill_climbing,
    "regularized evolution": lambda space: controllers.regularized_evolution(space, CANDIDATES),
    "NSGA-II": lambda space: controllers.nsga2(space, CANDIDATES),
    "cross-entropy": controllers.cross_entropy,
    "REINFORCE": controllers.reinforce,
    "PPO": controllers.ppo,
    f"REINFORCE, {AUTOREGRESSIVE}": lambda space: controllers.reinforce(
        space, controllers.autoregressive()
    ),
    f"PPO, {AUTOREGRESSIVE}": lambda space: controllers.ppo(space, controllers.autoregressive()),
}


class Problem(NamedTuple):
    """Something hidden in a space."""

    space: Space
    score: Callable[[Key, Genotype], Array]  # seed's key, genotype -> [0, 1], 1 if it was found
    generations: int
    noisy: bool = False


def _hidden_edges(key: Key, genotype: Array) -> Array:
    hidden = jax.random.permutation(key, 60)[:8]
    return jnp.mean(jnp.isin(genotype, hidden).astype(jnp.float32))


def _hidden_partition(key: Key, genotype: Array) -> Array:
    hidden = jax.random.randint(key, genotype.shape, 0, 3)
    together = genotype[:, None] == genotype[None]
    right = (together == (hidden[:, None] == hidden[None])).astype(jnp.float32)
    edges = genotype.size
    return (jnp.sum(right) - edges) / (edges * (edges - 1.0))


def _trap(key: Key, genotype: Array) -> Array:
    found = _hidden_edges(key, genotype)
    return jnp.where(found == 1.0, 1.0, 0.875 * (0.875 - found))


EDGES, COLOURS = SubsetOf(60, 8), Repeat(OneOf(3), 20)
PROBLEMS = {
    "edges": Problem(EDGES, _hidden_edges, 40),
    "partition": Problem(COLOURS, _hidden_partition, 40),
    "edges, noise": Problem(EDGES, _hidden_edges, 40, noisy=True),
    "partition, noise": Problem(COLOURS, _hidden_partition, 40, noisy=True),
    "trap": Problem(EDGES, _trap, 40),
}


def deployed(problem: Problem, controller: Controller, keeps_best: bool, key: Key) -> Array:
    """Return the true score of what a run deploys, float32 []."""
    k_hidden, k_init, k_empty, k_run, k_std, k_again = jax.random.split(key, 6)

    def true(genotypes: Genotype) -> Array:
        return jax.vmap(lambda one: problem.score(k_hidden, one))(genotypes)

    std = jnp.std(true(problem.space.sample(k_std, (1000,)))) if problem.noisy else 0.0

    def seen(key: Key, genotypes: Genotype, times: int = 1) -> Array:
        """Return the mean of as many scores."""
        score = true(genotypes)
        return score + std * jax.random.normal(key, score.shape) / times**0.5

    def generation(carry: tuple, t: Array) -> tuple[tuple, None]:
        state, best, scores = carry
        k_plan, k_propose, k_noise, k_update = jax.random.split(jax.random.fold_in(k_run, t), 4)
        plan = controller.prepare(k_plan, state)
        ids = jnp.arange(CANDIDATES)
        keys = jax.vmap(lambda i: jax.random.fold_in(k_propose, i))(ids)
        genotypes, info = jax.vmap(controller.propose, (0, None, 0))(keys, plan, ids)
        score = seen(k_noise, genotypes)
        told = score if controller.num_objectives == 1 else jnp.stack([score, 0 * score], axis=1)
        valid = jnp.ones(CANDIDATES, bool)
        state, _ = controller.update(k_update, state, genotypes, info, told, valid)
        all_ = jax.tree.map(lambda *x: jnp.concatenate(x), best, genotypes)
        scores, order = jax.lax.top_k(jnp.concatenate([scores, score]), scores.size)
        return (state, jax.tree.map(lambda x: x[order], all_), scores), None

    nothing = (problem.space.sample(k_empty, (8,)), jnp.full(8, -jnp.inf, jnp.float32))
    carry = (controller.init(k_init), *nothing)
    (state, best, _), _ = jax.lax.scan(generation, carry, jnp.arange(problem.generations))
    genotypes, valid = controller.best(state)
    if keeps_best:
        genotypes, valid = best, jnp.ones(8, bool)
    again = jnp.where(valid, seen(k_again, genotypes, AGAIN), -jnp.inf)
    return true(genotypes)[jnp.argmax(again)]


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    seeds = 5 if arguments.quick else SEEDS
    keys = jax.random.split(jax.random.key(0), seeds)
    rows = []
    for problem_name, problem in PROBLEMS.items():
        for name, make in CONTROLLERS.items():
            row = Row(f"{problem_name}: {name}", None, None, problem_name)
            rows.append(row)
            if arguments.quick and AUTOREGRESSIVE in name:
                continue
            run = partial(deployed, problem, make(problem.space), name == "random search")
            scores = np.asarray(jax.jit(jax.vmap(run))(keys), float)
            row.value = float(scores.mean())
            row.interval = None if arguments.quick else bootstrap_mean(scores)[1]
            print(f"{row.name}: found by {int((scores == 1).sum())} of {seeds}", flush=True)
    report(
        "planted",
        rows,
        arguments.json,
        lambda path: intervals(
            [row for row in rows if row.value is not None],
            path,
            "What controllers find of what is hidden (1: all of it)",
            f"Mean and 95 % interval over {seeds} seeds · {machine()}",
        ),
    )


if __name__ == "__main__":
    main()
