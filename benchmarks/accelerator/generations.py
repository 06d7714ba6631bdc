"""A generation of ES-ENAS: the search, its programs, and its steps a second.

Candidates differ in weights and architecture: 64 edges of a network with 32 hidden units, evolved,
and ES on top. The controller is handed the lengths of episodes beside the scores, and puts them
among the metrics: what was simulated is then known of the very program that is timed.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.rows import Figure, Named, Program
from benchmarks.measure import bootstrap, seconds
from esenas_jax import (
    Population,
    Search,
    controllers,
    es_enas,
    objectives,
    policies,
    strategies,
    tasks,
)
from esenas_jax.controllers import Controller
from esenas_jax.objectives import Objective
from esenas_jax.tasks.environment import Environment
from esenas_jax.types import Array, Cost, Evaluation, Key, PyTree, Scores

KEY = jax.random.key(0)
LENGTHS = "lengths"
MEMBERS = 1024  # of the evolving population, at most


class Setting(NamedTuple):
    """One program."""

    world: str  # "pendulum", or an environment of Brax
    backend: str  # of Brax; "" for the pendulum
    candidates: int
    lanes: int  # a device's
    horizon: int
    seeds: int = 1  # runs in one program
    devices: int = 1

    @property
    def kind(self) -> str:
        """What its programs cost, see `schedule.KINDS`."""
        return "pendulum" if self.world == "pendulum" else self.backend

    @property
    def steps(self) -> int:
        """Environment steps of a generation of all seeds, if no episode ends early."""
        return self.seeds * self.candidates * self.horizon

    @property
    def title(self) -> str:
        """What rows are called."""
        return f"{self.world} {self.backend}".strip()


@functools.cache
def environment(world: str, backend: str) -> Environment:
    """Return the environment of a setting."""
    return tasks.pendulum() if world == "pendulum" else tasks.brax_environment(world, backend)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep back what Brax says of itself when it makes an environment."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@functools.cache
def frame_skip(world: str, backend: str) -> int:
    """Return how many steps of the integrator an environment step is."""
    if world == "pendulum":
        return 1
    import brax.envs

    with quietly():
        made: Any = brax.envs.get_environment(world, backend=backend)
    return round(float(made.dt / made.sys.opt.timestep))


@functools.cache
def search(setting: Setting) -> Search:
    """Return the search of a setting."""
    task = tasks.episodes(
        environment(setting.world, setting.backend),
        horizon=setting.horizon,
        normalizer=tasks.es_normalizer(),
    )
    policy = policies.edge_pruned(task.obs_size, (32,), task.action_size, num_edges=64)
    exact = min(16, setting.candidates // 4)
    evolution = controllers.regularized_evolution(policy.space, min(MEMBERS, setting.candidates))
    controller, objective = telling_lengths(evolution, objectives.shifted_return())
    return es_enas(
        policy,
        task,
        strategies.es((setting.candidates - exact) // 2, exact, noise_std=0.1, step_size=0.01),
        controller,
        objective=objective,
        population=Population(lanes=setting.lanes, devices=setting.devices),
    )


def telling_lengths(controller: Controller, objective: Objective) -> tuple[Controller, Objective]:
    """Return both with a second number for the controller, an episode's length, that it reports."""

    def apply(state: PyTree, evaluation: Evaluation, cost: Cost) -> Scores:
        scores = objective.apply(state, evaluation, cost)
        steps = evaluation.steps.astype(jnp.float32)
        return scores._replace(controller=jnp.stack([scores.controller, steps]))

    def update(
        key: Key, state: PyTree, genotypes: PyTree, info: PyTree, scores: Array, valid: Array
    ) -> tuple[PyTree, dict[str, Array]]:
        after, metrics = controller.update(key, state, genotypes, info, scores[:, 0], valid)
        return after, {**metrics, LENGTHS: scores[:, 1]}

    return (
        controller._replace(update=update, num_objectives=2),
        objective._replace(apply=apply, num_objectives=2),
    )


def keys_of(setting: Setting) -> Key:
    """Return the key of the run, or those of all seeds."""
    return KEY if setting.seeds == 1 else jax.random.split(KEY, setting.seeds)


def programs(setting: Setting) -> list[Program]:
    """Return the programs of a setting: its first state, and a generation."""
    name = f"{setting.title} {tuple(setting)[2:]}"

    def step() -> Any:
        following = of_all_seeds(setting, search(setting).step)
        return jax.jit(following).lower(keys_of(setting), traced_init(setting).out_info)

    return [
        Program(f"{name} init", functools.partial(traced_init, setting)),
        Program(f"{name} step", step),
    ]


@functools.cache
def traced_init(setting: Setting) -> jax.stages.Lowered:
    """Return the program of the first state, traced."""
    return jax.jit(of_all_seeds(setting, search(setting).init)).lower(keys_of(setting))


def of_all_seeds(setting: Setting, f: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a run as one of all runs of a setting."""
    return f if setting.seeds == 1 else jax.vmap(f)


class Running(NamedTuple):
    """A run in which evolution has a population, at the generation that is timed."""

    state: PyTree
    live: int  # environment steps of that generation, of all seeds
    lengths: np.ndarray  # int [N], or [seeds, N]: of its episodes


@functools.lru_cache(maxsize=1)  # several measurements of the best setting follow each other
def running(setting: Setting, init: Any, step: Any) -> Running:
    """Return a run after its first generation, which warms everything up."""
    keys = keys_of(setting)
    state = step(keys, init(keys))[0]
    metrics = step(keys, state)[1]
    live = int(np.asarray(metrics.steps, np.int64).sum())
    return Running(state, live, np.asarray(metrics.controller[LENGTHS]).astype(np.int64))


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


def ticks_of(setting: Setting, lengths: np.ndarray) -> int:
    """Return how often a generation steps its lanes; seeds share them, candidate by candidate."""
    each = lengths.T.reshape(-1)
    return ticks(each, min(setting.lanes, each.size), search(setting).population.refill_used)


def rows_of(title: str) -> tuple[Named, ...]:
    """Return the rows of `figures`."""
    return (
        Named(f"{title}: live environment steps", "steps/s"),
        Named(f"{title}: simulated environment steps", "steps/s"),
        Named(f"{title}: live physics steps", "steps/s"),
    )


def described(setting: Setting, live: int) -> dict[str, Any]:
    """Return what a figure of a setting is a figure of."""
    return {
        **setting._asdict(),
        "dtype": "float32",
        "frame_skip": frame_skip(setting.world, setting.backend),
        "live_steps": live,
    }


def figures(setting: Setting, repeats: int, init: Any, step: Any) -> list[Figure]:
    """Time a generation, and return its steps a second: live, simulated, and of the integrator."""
    run, keys = running(setting, init, step), keys_of(setting)
    times = np.array([seconds(lambda: step(keys, run.state)) for _ in range(repeats)])
    simulated = min(setting.lanes, run.lengths.size) * ticks_of(setting, run.lengths)
    details = described(setting, run.live) | {
        "simulated_steps": simulated,
        "seconds": times.tolist(),
        "unit_seconds": float(np.median(times)) / setting.steps,
    }
    amounts = (run.live, simulated, run.live * details["frame_skip"])
    return [rate(amount, times, details) for amount in amounts]


def rate(amount: float, times: np.ndarray, details: dict[str, Any]) -> Figure:
    """Return the median rate of an amount done in each of some times, with its interval."""
    rates = amount / times
    return Figure(float(np.median(rates)), bootstrap(rates), details=details)
