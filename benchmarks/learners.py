"""What rules among learners are worth: each, and pairs, against one ARS of as many evaluations.

    python -m benchmarks.learners [--quick] [--json=PATH]

One ARS of 64 directions and 8 exact evaluations, or eight learners of 8 directions and one: 136
evaluations a generation, and the same number of generations. Five tasks: the toy regression; the
digits with a dense network of 64-16-10; Rastrigin's and Ackley's function of 20 weights; and the
pendulum with a network of 3-8-1. Culling, tabu and `apart` follow every tenth generation, annealing
and the swarm every one; pairs of rules every tenth.

Every method has the step size and noise that are best for it on each task, out of one grid of five,
by what it deploys on five seeds of another instance: another polynomial, another split, another
optimum. Temperatures and radii are not tuned: they are the task's own scales, given here, by one
rule of thumb (`Scale`). The pairs are all of the four rules that do best there, the best way to
cull among them, and the best of these pairs is shown. Optima of functions lie off the middle of
where weights start: the mean of several starts is no nearer to them.

What is shown is what is deployed, on episodes, examples or images that selected nothing: its loss
(regression and functions), its errors in percent (digits), and minus its return (pendulum): means
over 20 seeds with 95 % bootstrap intervals, the less the better. Seeds see the same task.

Rows lie in runs/learners, and are not measured again. An hour on two cores. --quick has the
regression alone, some of the rules and a tenth of the generations; nothing is then judged.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import intervals
from benchmarks.functions import ackley, rastrigin
from benchmarks.measure import (
    Row,
    bootstrap_mean,
    command_line,
    machine,
    remembered,
    report,
)
from esenas_jax import (
    Population,
    Search,
    Starts,
    choose_answer,
    controllers,
    es_enas,
    learners,
    policies,
    rules,
    strategies,
    tasks,
)
from esenas_jax.answer import Answer
from esenas_jax.policies import Policy
from esenas_jax.rules import Rule
from esenas_jax.tasks import Task
from esenas_jax.types import Array, Evaluation, Key, PyTree
from experiments.command_line import configure_jax

SEEDS, TUNING_SEEDS = 20, 5
TUNING_INSTANCE = 100  # of a task; the table has instance 0
LEARNERS, DIRECTIONS = 8, 8
# Step size and noise, as multiples of the task's.
GRID = ((1.0, 1.0), (0.3, 1.0), (3.0, 1.0), (1.0, 0.3), (1.0, 3.0))
QUICK, QUICK_RULES = ("regression",), ("none", "culling, clones of the best", "swarm")
SINGLE, PAIR = "one ARS", "the best pair"
UNITS = {
    "regression": "smooth L1",
    "digits": "% errors",
    "Rastrigin": "Rastrigin's function",
    "Ackley": "Ackley's function",
    "pendulum": "minus return",
}


class Problem(NamedTuple):
    """What is learnt, for how long, and on what scales."""

    policy: Policy
    task: Task
    noise_std: float
    step_size: float
    generations: int
    score_scale: float  # by how much scores of a learner differ from one generation to the next
    starts: Starts = Starts.GENERATION
    # What an answer is worth, the less the better.
    loss: Callable[[Answer], Array] = lambda answer: -jnp.mean(answer.report.episode_return)


def regression(instance: int) -> Problem:
    """The toy regression of `experiments/configs/regression_ars.py`, its target by instance."""
    task = tasks.polynomial_regression(jax.random.key(instance))
    policy = policies.dense(
        task.obs_size, (), 1, output_activation=policies.identity, weight_init=policies.normal
    )
    # After 300 generations losses are 1e-11: what is compared then is how float32 rounds.
    return Problem(policy, task, 0.1, 0.1, 100, score_scale=0.1)


def digits(instance: int) -> Problem:
    """Handwritten digits, split by instance."""
    task = tasks.digits(instance)
    policy = policies.flax_dense(task.obs_size, task.action_size, hidden=(16,))

    def errors(answer: Answer) -> Array:
        return 100.0 * (1.0 - jnp.mean(answer.report.statistics["test_accuracy"]))

    return Problem(policy, task, 0.1, 0.1, 300, score_scale=0.05, loss=errors)


def function(loss: Callable[[Array], Array], instance: int, **more: Any) -> Problem:
    """A function of 20 weights that start uniformly in [-5, 5], its optimum by instance."""
    rng = np.random.default_rng(instance)
    optimum = rng.choice([-1.0, 1.0], 20) * rng.uniform(3.0, 4.5, 20)
    plain = policies.dense(20, (), 1)
    policy = plain._replace(
        bind=lambda params, genotype: params,
        init=lambda key: jax.random.uniform(key, (20,), minval=-5.0, maxval=5.0),
    )

    def evaluate(key: Key, network: PyTree, apply: object) -> Evaluation:
        return tasks.single_score(-loss(network - jnp.asarray(optimum, jnp.float32)))

    task = tasks.SingleShot(20, 1, evaluate)
    return Problem(policy, task, starts=Starts.FIXED, **more)


def pendulum(instance: int) -> Problem:
    """The pendulum, an episode a candidate; seeds alone differ."""
    del instance
    task = tasks.episodes(tasks.pendulum(), horizon=200, normalizer=tasks.ars_normalizer())
    policy = policies.dense(task.obs_size, (8,), task.action_size)
    return Problem(policy, task, 0.3, 0.3, 100, 50.0, starts=Starts.CANDIDATE)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "regression": regression,
    "digits": digits,
    "Rastrigin": lambda instance: function(
        rastrigin, instance, noise_std=0.3, step_size=0.1, generations=300, score_scale=5.0
    ),
    "Ackley": lambda instance: function(
        ackley, instance, noise_std=0.3, step_size=0.1, generations=300, score_scale=0.5
    ),
    "pendulum": pendulum,
}


class Scale(NamedTuple):
    """Numbers of rules that have a unit."""

    temperature: float  # that a typical worsening is kept at with probability 1/e, and cools
    radius: float  # ten steps: one moves every weight by about the step size


def rule(name: str, problem: Problem, every: int) -> Rule:
    """Return a rule with the numbers of a problem, that follows every so many generations."""
    size = math.sqrt(problem.policy.num_params)
    scale = Scale(problem.score_scale, 10 * problem.step_size * size)
    made: dict[str, Callable[[], Rule]] = {
        "none": rules.compose,
        "culling, clones of the best": rules.culling,
        "culling, clones of survivors": lambda: rules.culling(0.5, rules.clones_of_survivors),
        "culling, bred": lambda: rules.culling(0.5, rules.bred),
        "culling, crossed": lambda: rules.culling(0.5, rules.crossed),
        "annealing": lambda: rules.annealing(
            scale.temperature, lambda t: 1.0 - jnp.minimum(every * t / problem.generations, 1.0)
        ),
        "tabu": lambda: rules.tabu(scale.radius),
        "apart from the best": lambda: rules.apart(scale.radius),
        "swarm": rules.swarm,
    }
    return made[name]()


RULES = (
    "none",
    "culling, clones of the best",
    "culling, clones of survivors",
    "culling, bred",
    "culling, crossed",
    "annealing",
    "tabu",
    "apart from the best",
    "swarm",
)
EVERY = {"annealing": 1, "swarm": 1}  # the others ten, and pairs


def losses_of(
    problem: Problem, method: str, generations: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the function from seeds [M] and settings [M, 2] to losses of what is deployed [M]."""
    several = method != SINGLE
    directions, exact = (DIRECTIONS, 1) if several else (LEARNERS * DIRECTIONS, LEARNERS)
    search: Search = es_enas(
        problem.policy,
        problem.task,
        strategies.ars(directions, exact, num_elites=directions // 2),
        controllers.constant(problem.policy.space),
        population=Population(lanes=64),
        starts=problem.starts,
    )
    names = method.split(" and ")
    searcher = search
    if several:
        every = EVERY.get(method, 10)
        rule_ = rules.compose(*(rule(name, problem, every) for name in names))
        searcher = learners(search, LEARNERS, rule_, every=every)

    def run(seed: Array, setting: Array) -> Array:
        key = jax.random.key(seed)
        state: Any = searcher.init(key)
        inner = state.learners if several else state
        hyper = jax.tree.map(
            lambda x, value: jnp.broadcast_to(value, x.shape),
            inner.strategy.hyper,
            type(inner.strategy.hyper)(noise_std=setting[1], step_size=setting[0]),
        )
        inner = inner._replace(strategy=inner.strategy._replace(hyper=hyper))
        state = state._replace(learners=inner) if several else inner
        state, _ = searcher.run(key, state, generations)
        return problem.loss(choose_answer(search, key, searcher.deployed(state), 64))

    compiled = jax.jit(jax.vmap(run))
    return lambda seeds, settings: np.asarray(
        compiled(jnp.asarray(seeds, jnp.uint32), jnp.asarray(settings, jnp.float32)), float
    )


FOLDER = Path("runs") / "learners"


def measured(name: str, method: str, quick: bool) -> dict[str, Any]:
    """Return the losses of a method: on the tuning instance, and on that of the table."""
    problem = PROBLEMS[name](TUNING_INSTANCE)
    generations = problem.generations // (10 if quick else 1)
    grid = np.array([(a * problem.step_size, b * problem.noise_std) for a, b in GRID])

    def measure() -> dict[str, Any]:
        train = losses_of(problem, method, generations)
        # As many runs at a time as the table has, so that one program serves both.
        seeds = np.arange(1000, 1000 + TUNING_SEEDS)
        tried = []
        for some in (grid[:4], grid[4:].repeat(4, axis=0)):
            losses = train(np.tile(seeds, 4), some.repeat(TUNING_SEEDS, axis=0)).reshape(4, -1)
            tried.append(np.where(np.isfinite(losses), losses, math.inf).mean(axis=1))
        scores = np.concatenate([tried[0], tried[1][:1]])
        best = int(np.argmin(scores))
        train = losses_of(PROBLEMS[name](0), method, generations)
        found = train(np.arange(SEEDS), np.tile(grid[best], (SEEDS, 1)))
        if not np.isfinite(found).all():
            failed = (~np.isfinite(found)).sum()
            raise SystemExit(f"error: {name}, {method}: {failed} seeds diverged.")
        print(
            f"{name}, {method}: {found.mean():.4g} with step {grid[best][0]:g}, noise "
            f"{grid[best][1]:g}",
            flush=True,
        )
        return {
            "tuning": float(scores[best]),
            "step_size": grid[best][0],
            "noise_std": grid[best][1],
            "losses": found.tolist(),
        }

    if quick:
        return measure()
    path = FOLDER / f"{name}_{method}.json".replace(" ", "_").replace(",", "")
    settings = {"grid": grid.tolist(), "generations": generations, "seeds": [SEEDS, TUNING_SEEDS]}
    return remembered(path, settings, measure)


def rows_of(name: str, quick: bool) -> list[Row]:
    """Return the rows of a task."""
    single = measured(name, SINGLE, quick)
    each = QUICK_RULES if quick else RULES
    found = {method: measured(name, method, quick) for method in each}
    best_first = sorted(each[1:], key=lambda method: found[method]["tuning"])
    culls = [method for method in best_first if method.startswith("culling")]
    four = [method for method in best_first if method not in culls[1:]][:4]
    pairs = [
        f"{a} and {b}"
        for a, b in itertools.combinations(four, 2)
        # Who is culled stands last: by the scores of the weights that learners are back at.
        for a, b in [(b, a) if a.startswith("culling") else (a, b)]
    ]
    pair = {method: measured(name, method, quick) for method in pairs}
    best = min(pairs, key=lambda method: pair[method]["tuning"])
    print(f"{name}, the best pair: {best}", flush=True)
    rows = []
    for method, mine in [(SINGLE, single), *found.items(), (PAIR, pair[best])]:
        value, interval = bootstrap_mean(mine["losses"])
        shown = "no rule" if method == "none" else method
        rows.append(Row(f"{name}: {shown}", value, None if quick else interval, UNITS[name]))
    return rows


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    rows: list[Row] = []
    for name in PROBLEMS:
        if not arguments.quick or name in QUICK:
            rows += rows_of(name, arguments.quick)
        else:
            rows += [
                Row(f"{name}: {method}", None, None, UNITS[name])
                for method in (SINGLE, *RULES, PAIR)
            ]
    report(
        "learners",
        rows,
        arguments.json,
        lambda path: intervals(
            [row for row in rows if row.value is not None],
            path,
            "Rules among eight learners, and one ARS (the less the better)",
            f"Means and 95 % intervals over {SEEDS} seeds · {machine()}",
        ),
    )


if __name__ == "__main__":
    main()
