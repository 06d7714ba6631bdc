"""What late updates cost: the loss after equal updates, the later they come.

    python -m benchmarks.staleness [--quick] [--json=PATH]

S + 1 workers share one model and take turns, so that every update is of weights that are S updates
old (`esenas_jax.asynchronous`): S = 0, 1, 4, 16. ARS with 32 directions, 300 updates, five step
sizes; on the toy regression, on Rosenbrock's function of 20 weights, and on the digits with a dense
network of 64-16-10. The loss is that of the weights after the last update, on 16 mini-batches.

The figure has every step size. The table has, for every S, the step that is best on five other
seeds: the ratio of losses to S = 0 as a geometric mean over 20 seeds, paired, with a 95 % bootstrap
interval.

A functional result, the same on every machine but for rounding. Five minutes on two cores. --quick
leaves the digits out, and has a fifth of the updates; nothing is then judged.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import lines, new_panels
from benchmarks.functions import rosenbrock, search_over_weights
from benchmarks.measure import Row, command_line, machine, report
from benchmarks.noise import ratio_of_losses
from esenas_jax import (
    Population,
    Search,
    Starts,
    asynchronous,
    controllers,
    es_enas,
    policies,
    strategies,
    tasks,
)
from esenas_jax.answer import Contender, reevaluate
from esenas_jax.policies import Policy
from esenas_jax.strategies import Strategy
from esenas_jax.tasks import Task
from esenas_jax.types import Array, Stream, stream
from experiments.command_line import configure_jax

STALENESS, STEPS = (0, 1, 4, 16), (0.001, 0.003, 0.01, 0.03, 0.1)
SEEDS, TUNING_SEEDS, UPDATES, BATCHES = 20, 5, 300, 16


def _ars() -> Strategy:
    return strategies.ars(32, 1, noise_std=0.03, num_elites=16)


def _of(policy: Policy, task: Task) -> Search:
    return es_enas(
        policy,
        task,
        _ars(),
        controllers.constant(policy.space),
        population=Population(lanes=65),
        starts=Starts.GENERATION,
    )


def regression() -> Search:
    """The toy regression, from zero weights."""
    task = tasks.polynomial_regression(jax.random.key(0))
    policy = policies.dense(
        task.obs_size, (), 1, output_activation=policies.identity, weight_init=policies.zeros
    )
    return _of(policy, task)


def valley() -> Search:
    """Rosenbrock's function of 20 weights, from the origin."""
    return search_over_weights(rosenbrock, jnp.zeros(20), _ars(), Population(lanes=65))


def digits() -> Search:
    """Handwritten digits."""
    task = tasks.digits(0)
    return _of(policies.flax_dense(task.obs_size, task.action_size, hidden=(16,)), task)


TASKS: dict[str, Callable[[], Search]] = {
    "regression": regression,
    "Rosenbrock": valley,
    "digits": digits,
}


def losses(search: Search, staleness: int, updates: int) -> tuple[np.ndarray, np.ndarray]:
    """Return losses by step size and seed: [steps, TUNING_SEEDS] and [steps, SEEDS]."""
    late = asynchronous(search, (staleness,))
    seeds = np.append(np.arange(1000, 1000 + TUNING_SEEDS), np.arange(SEEDS))

    def run(seed: Array, step_size: Array) -> Array:
        key = jax.random.key(seed)
        state = late.init(key)
        strategy = state.now.strategy
        hyper = strategy.hyper._replace(step_size=step_size)
        state = state._replace(now=state.now._replace(strategy=strategy._replace(hyper=hyper)))
        now = late.deployed(late.run(key, state, updates)[0])
        # Of exact evaluations the last are of weights that are as old as the updates are late.
        only = search.policy.space.sample(key)
        field = jax.tree.map(lambda x: x[None], Contender(now.strategy.params, only, now.moments))
        starts = jnp.arange(BATCHES, dtype=jnp.int32)[None]
        key = stream(key, now.generation, Stream.REPORT)
        return -jnp.mean(reevaluate(search, key, field, starts).episode_return)

    over = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))
    found = np.asarray(over(jnp.asarray(seeds, jnp.uint32), jnp.asarray(STEPS)), float)
    # A run that diverged has a loss that no other has.
    found = np.where(np.isfinite(found), found, 1e9)
    return found[:, :TUNING_SEEDS], found[:, TUNING_SEEDS:]


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    rows: list[Row] = []
    drawn: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, make in TASKS.items():
        if arguments.quick and name == "digits":
            rows += [Row(f"{name}, {s} updates late", None, None, "x the loss") for s in STALENESS]
            continue
        search = make()
        updates = UPDATES // (5 if arguments.quick else 1)
        found = {s: losses(search, s, updates) for s in STALENESS}
        means = {s: np.exp(np.log(table).mean(axis=1)) for s, (_, table) in found.items()}
        drawn[name] = {
            f"step size {step:g}": ([s + 1 for s in STALENESS], [means[s][k] for s in STALENESS])
            for k, step in enumerate(STEPS)
        }
        best = {s: int(np.log(tuning).mean(axis=1).argmin()) for s, (tuning, _) in found.items()}
        on_time = found[0][1][best[0]]
        for s in STALENESS:
            mine = found[s][1][best[s]]
            value, interval = ratio_of_losses(mine, on_time)
            edge = " (an edge of the grid)" if best[s] in (0, len(STEPS) - 1) else ""
            print(f"{name}, {s} late: step {STEPS[best[s]]:g}{edge}, loss {np.median(mine):.4g}")
            rows.append(
                Row(
                    f"{name}, {s} updates late",
                    value,
                    None if arguments.quick or s == 0 else interval,
                    "x the loss",
                )
            )

    def draw(path: Path) -> None:
        axes, finish = new_panels(
            len(drawn),
            "What late updates cost: the loss after as many of them",
            f"Workers take turns: an update of W is W - 1 late. Geometric means over {SEEDS} "
            f"seeds, {UPDATES} updates · {machine()}",
        )
        handles = []
        for panel, (name, curves) in zip(axes, drawn.items(), strict=True):
            handles = lines(panel, curves, "workers, W", f"loss, {name}")
        finish(handles, path)

    report("staleness", rows, arguments.json, draw)


if __name__ == "__main__":
    main()
