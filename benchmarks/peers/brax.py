"""Brax's ARS and ES: its own compiled generation beside ours, in speed and in learning.

A Brax generation simulates every candidate for the whole horizon. Its observation statistics and
its count of steps take only the live ones, those before an episode's end, and so do ours: budgets
of steps here are of live ones on both sides. (What Brax prints as `training/sps` counts them all.)
"""

import contextlib
import dataclasses
import functools
import importlib
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.measure import Row, bootstrap, bootstrap_ratio_of_means, paired_ratio
from esenas_jax import (
    Search,
    SearchState,
    controllers,
    es_enas,
    policies,
    strategies,
    tasks,
)
from esenas_jax.policies import Policy
from esenas_jax.rollout import rollout
from esenas_jax.strategies import Strategy
from esenas_jax.types import Array, Key, PyTree

KEY = jax.random.key(0)
EVALUATION_EPISODES = 64
RETURNS = "x the return"

Act = Callable[[PyTree, Array], Array]  # network, observation [O] -> action [A]


class Peer(NamedTuple):
    """One of Brax's algorithms in one environment."""

    step: Callable[[Any, Array], tuple[Any, Any]]  # state, raw key -> state, metrics
    state: Any  # before the first generation
    fresh: Callable[[Array], Any]  # raw key -> policy parameters
    act: Act  # on (normalizer parameters, policy parameters), without noise on the action


class Method(NamedTuple):
    """An algorithm as we have it and as Brax has it, with the same settings."""

    name: str
    policy: Callable[[int, int], Policy]  # observation and action size -> ours
    strategy: Callable[[int], Strategy]  # directions -> ours
    train: Callable[[], tuple[Any, Callable[[int], dict[str, Any]]]]  # module, directions -> kwargs
    networks: Callable[[int, int], tuple[Callable[[Array], Any], Act]]


def ars(noise_std: float = 0.03, step_size: float = 0.02) -> Method:
    """Return ARS V2 with all directions kept, over a linear policy that starts from zeros."""

    def policy(obs_size: int, action_size: int) -> Policy:
        return policies.dense(
            obs_size,
            (),
            action_size,
            output_activation=policies.identity,
            weight_init=policies.zeros,
        )

    def train() -> tuple[Any, Callable[[int], dict[str, Any]]]:
        return importlib.import_module("brax.training.agents.ars.train"), lambda directions: {
            "number_of_directions": directions,
            "top_directions": directions,
            "step_size": step_size,
            "exploration_noise_std": noise_std,
        }

    def networks(obs_size: int, action_size: int) -> tuple[Callable[[Array], Any], Act]:
        module: Any = importlib.import_module("brax.training.agents.ars.networks")
        made = module.make_policy_network(obs_size, action_size, _normalize())
        return made.init, lambda network, obs: made.apply(*network, obs)

    return Method(
        "ARS",
        policy,
        lambda directions: strategies.ars(directions, 0, noise_std, step_size),
        train,
        networks,
    )


def es(noise_std: float = 0.05, step_size: float = 0.01) -> Method:
    """Return ES with centred ranks and Adam, over one hidden layer of 32 rectified units.

    Brax's policy has twice the outputs, for it draws its actions from a distribution that it learns
    too; ours acts without noise. Brax's is evaluated at the distribution's mode.
    """
    hidden = (32,)

    def train() -> tuple[Any, Callable[[int], dict[str, Any]]]:
        module: Any = importlib.import_module("brax.training.agents.es.train")
        made: Any = importlib.import_module("brax.training.agents.es.networks")
        return module, lambda directions: {
            "population_size": directions,
            "learning_rate": step_size,
            "perturbation_std": noise_std,
            "fitness_shaping": module.FitnessShaping.CENTERED_RANK,
            "network_factory": functools.partial(made.make_es_networks, hidden_layer_sizes=hidden),
        }

    def networks(obs_size: int, action_size: int) -> tuple[Callable[[Array], Any], Act]:
        module: Any = importlib.import_module("brax.training.agents.es.networks")
        made = module.make_es_networks(
            obs_size, action_size, _normalize(), hidden_layer_sizes=hidden
        )

        def act(network: PyTree, obs: Array) -> Array:
            logits = made.policy_network.apply(*network, obs)
            return made.parametric_action_distribution.mode(logits)

        return made.policy_network.init, act

    return Method(
        "ES",
        functools.partial(_hidden, hidden=hidden),
        lambda directions: strategies.es(
            directions,
            0,
            noise_std,
            step_size,
            shaping=strategies.centered_ranks,
            optimizer=optax.adam,
        ),
        train,
        networks,
    )


def _normalize() -> Any:
    return importlib.import_module("brax.training.acme.running_statistics").normalize


def _hidden(obs_size: int, action_size: int, hidden: tuple[int, ...]) -> Policy:
    return policies.dense(obs_size, hidden, action_size, hidden_activation=jax.nn.relu)


def ours(method: Method, world: str, candidates: int, horizon: int = 1000) -> Search:
    """Return our search with a method's settings."""
    environment = tasks.brax_environment(world, "spring")
    task = tasks.episodes(environment, horizon=horizon, normalizer=tasks.ars_normalizer())
    policy = method.policy(task.obs_size, task.action_size)
    return es_enas(
        policy,
        task,
        method.strategy(candidates // 2),
        controllers.constant(policy.space),
    )


class _CapturedError(Exception):
    """Raised inside Brax's `train` when it calls its generation for the first time."""


def theirs(method: Method, world: str, candidates: int, horizon: int = 1000) -> Peer:
    """Return Brax's own compiled generation and its first state.

    `train` keeps them to itself: what it compiles is written down, and it is stopped there.
    """
    import brax.envs

    module, settings = method.train()
    seen: list[Any] = []

    def jit(f: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
        compiled = jax.jit(f, *arguments, **options)
        if getattr(f, "__name__", "") != "training_epoch":
            return compiled

        def first(state: PyTree, key: Array) -> Any:
            seen.extend((compiled, state))
            raise _CapturedError

        return first

    environment: Any = brax.envs.get_environment(world, backend="spring")
    original = module.jax
    module.jax = types.SimpleNamespace(**{**vars(jax), "jit": jit})
    try:
        with contextlib.suppress(_CapturedError):
            module.train(
                environment,
                num_timesteps=1,
                episode_length=horizon,
                normalize_observations=True,
                max_devices_per_host=1,
                num_eval_envs=1,
                **settings(candidates // 2),
            )
    finally:
        module.jax = original
    step, state = seen
    sizes = environment.observation_size, environment.action_size
    return Peer(step, state, *method.networks(*sizes))


def first_row(
    method: Method, world: str, candidates: int, horizon: int, target: float | None
) -> Row:
    """Return the row of `first_generation` without its figures."""
    size = f"{candidates:,} candidates" + (f" x {horizon:,} steps" if horizon != 1000 else "")
    name = f"{world}, {size}, first generation: brax {method.name} / ours"
    return Row(name, None, None, "x", target, None if target is None else "at_least")


def first_generation(
    method: Method, world: str, candidates: int, horizon: int, target: float | None, pairs: int
) -> Row:
    """Time first generations from scratch in turn."""
    search = ours(method, world, candidates, horizon)
    step, state = jax.jit(search.step), jax.jit(search.init)(KEY)
    peer = theirs(method, world, candidates, horizon)
    key = jax.random.PRNGKey(0)
    ratio, interval, times = paired_ratio(
        lambda: peer.step(peer.state, key), lambda: step(KEY, state), pairs
    )
    our_steps = int(step(KEY, state)[1].steps)
    their_steps = int(peer.step(peer.state, key)[0].num_env_steps)
    print(
        f"{world}, {method.name}, {candidates:,} candidates: ours {np.median(times[:, 1]):.2f} s "
        f"for {our_steps:,} live steps, Brax {np.median(times[:, 0]):.2f} s for {their_steps:,} "
        f"live ones of {candidates * horizon:,}."
    )
    jax.clear_caches()
    row = first_row(method, world, candidates, horizon, target)
    return dataclasses.replace(row, value=ratio, interval=interval)


def learning_names(method: Method, world: str, candidates: int, budget: int) -> tuple[str, str]:
    """Return the names of the two rows of `learning`."""
    run = f"{world}, {candidates:,} candidates, {budget / 1e6:g} M live steps"
    return f"{run}: time, brax {method.name} / ours", f"{run}: return, ours / brax {method.name}"


def learning(method: Method, world: str, candidates: int, budget: int, seeds: int) -> list[Row]:
    """Train both on equal live steps; compare the time of the whole run, and the final return.

    A run ends with the generation that reaches the budget. The final policies of both sides play
    the same 64 episodes in the same simulator loop, without noise on parameters or actions.
    """
    search = ours(method, world, candidates)
    step, init = jax.jit(search.step), jax.jit(search.init)
    peer = theirs(method, world, candidates)

    def our_run(seed: int) -> tuple[float, PyTree]:
        key = jax.random.key(seed)
        state: SearchState = init(key)
        started, done = time.perf_counter(), 0
        while done < budget:
            state, metrics = step(key, state)
            done += int(metrics.steps)
        return time.perf_counter() - started, (state.strategy.params, state.moments)

    def their_run(seed: int) -> tuple[float, PyTree]:
        key, k_policy = jax.random.split(jax.random.PRNGKey(seed))
        state = peer.state.replace(policy_params=peer.fresh(k_policy))
        started = time.perf_counter()
        while int(state.num_env_steps) < budget:
            key, k_step = jax.random.split(key)
            state, _ = peer.step(state, k_step)
        jax.block_until_ready(state)
        return time.perf_counter() - started, (state.normalizer_params, state.policy_params)

    def our_act(network: PyTree, obs: Array) -> Array:
        params, moments = network
        bound = search.policy.bind(params, ())  # a dense policy has no choices
        lens = search.task.lens(moments)
        return search.policy.apply(bound, (obs - lens.mean) * lens.scale)

    our_return = mean_return(search, our_act)
    their_return = mean_return(search, peer.act)
    # Compile before the first run is timed.
    jax.block_until_ready(step(KEY, init(KEY)))
    jax.block_until_ready(peer.step(peer.state, jax.random.PRNGKey(0)))
    times, returns = np.empty((seeds, 2)), np.empty((seeds, 2))
    for seed in range(seeds):
        for side in (0, 1) if seed % 2 else (1, 0):
            run, play = ((our_run, our_return), (their_run, their_return))[side]
            times[seed, side], network = run(seed)
            returns[seed, side] = float(play(network))
        print(
            f"{world}, {method.name}, seed {seed}: ours {times[seed, 0]:.1f} s, return "
            f"{returns[seed, 0]:.0f}; Brax {times[seed, 1]:.1f} s, return {returns[seed, 1]:.0f}."
        )
    jax.clear_caches()
    ratios = times[:, 1] / times[:, 0]
    for_time, for_return = learning_names(method, world, candidates, budget)
    return [
        Row(for_time, float(np.median(ratios)), bootstrap(ratios), "x"),
        Row(for_return, *bootstrap_ratio_of_means(returns[:, 0], returns[:, 1]), RETURNS),
    ]


def mean_return(search: Search, act: Act) -> Callable[[PyTree], Array]:
    """Return the compiled function from a network to its mean return over the same episodes."""
    task = search.task
    assert isinstance(task, tasks.Episodes)
    plain = tasks.episodes(task.environment, horizon=task.horizon)
    unseen = plain.lens(plain.init(KEY))  # `act` normalises

    def start(network: PyTree, episode: Array) -> tuple[PyTree, Key]:
        return network, jax.random.fold_in(jax.random.key(2**20), episode)

    @jax.jit
    def play(network: PyTree) -> Array:
        totals, _ = rollout(
            plain,
            functools.partial(start, network),
            lambda episode: unseen,
            act,
            num_episodes=EVALUATION_EPISODES,
            lanes=EVALUATION_EPISODES,
            refill_every=8,
        )
        return jnp.mean(totals.reward)

    return play
