"""Random worlds and networks: no number that is not finite wins, and no error without a sentence.

The same examples every time (`derandomize`). The worlds of the first test are arguments of one
compiled program, so that hundreds of them cost as little as one.
"""

import functools
import re
from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from esenas_jax import (
    Population,
    choose_answer,
    controllers,
    es_enas,
    objectives,
    pareto_front,
    policies,
    strategies,
    tasks,
)
from esenas_jax.tasks import Environment, Transition
from experiments import build, train
from experiments.command_line import RunError, load_config
from experiments.workdir import Workdir
from tests.resume_test import CONFIG

KEY = jax.random.key(0)
HORIZON = 6
NUMBERS = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 0.0, 1.0, 1e-30])
WHEN = st.integers(0, HORIZON + 2)  # a step; beyond the horizon: never
SIZES = st.sampled_from([1e-6, 0.1, 1.0, 1e3, 1e30, 3e38])


class World(NamedTuple):
    """What happens in a world: from which step on, or beyond which action, numbers are these."""

    obs: float
    obs_from: int
    reward: float
    reward_from: int
    bonus: float
    bonus_from: int
    limit: float  # a larger action makes all three so
    ends: int  # the step that ends an episode; beyond the horizon: none does
    noise_std: float
    step_size: float


WORLDS = st.builds(World, NUMBERS, WHEN, NUMBERS, WHEN, NUMBERS, WHEN, SIZES, WHEN, SIZES, SIZES)


def environment(world: World) -> Environment:
    def reset(key):
        obs = jax.random.normal(key, (2,), jnp.float32)
        return (jnp.int32(0), jnp.bool_(False)), jnp.where(world.obs_from == 0, world.obs, obs)

    def step(state, action):
        time, blown = state
        time = time + 1
        blown = blown | ~(jnp.abs(action).max() <= world.limit)

        def shown(usual, changed, start):
            return jnp.where(blown | (time >= start), changed, usual)

        wave = jnp.sin(time.astype(jnp.float32))
        return (time, blown), Transition(
            obs=shown(jnp.stack([wave, -wave]), world.obs, world.obs_from),
            reward=shown(jnp.tanh(action[0]) + wave, world.reward, world.reward_from),
            bonus=shown(jnp.float32(0.5), world.bonus, world.bonus_from),
            done=time >= world.ends,
        )

    return Environment(2, 1, reset, step)


def exploding(x):
    return jnp.exp(10.0 * x)


# policy, strategy, controller, objective
SEARCHES = {
    "edges": (
        lambda: policies.edge_pruned(2, (3,), 1, num_edges=4, output_activation=policies.identity),
        lambda: strategies.es(4, 2),
        lambda space: controllers.regularized_evolution(space, 6),
        objectives.shifted_return,
    ),
    "an activation that overflows": (
        lambda: policies.dense(2, (3,), 1, hidden_activation=exploding),
        lambda: strategies.ars(4, 2),
        controllers.constant,
        objectives.shifted_return,
    ),
    "partition": (
        lambda: policies.partitioned(
            2, (3,), 1, num_partitions=2, output_activation=policies.identity
        ),
        lambda: strategies.es(4, 2, optimizer=optax.adam, shaping=strategies.raw),
        controllers.cross_entropy,
        objectives.weighted_product,
    ),
    "front": (
        lambda: policies.boolean_mask(2, (3,), 1, output_activation=exploding),
        lambda: strategies.es(4, 2, unused=strategies.Unused.ZERO),
        lambda space: controllers.nsga2(space, 6),
        objectives.pareto,
    ),
    "policy gradient": (
        lambda: policies.edge_pruned(2, (3,), 1, num_edges=4, hidden_activation=exploding),
        lambda: strategies.es(4, 2, shaping=strategies.centered_ranks),
        controllers.reinforce,
        objectives.shifted_return,
    ),
}


@functools.partial(jax.jit, static_argnums=0)
def carried_out(name: str, world: World, key):
    """Return a run of four generations in a world, its elites, its answer and its front."""
    task = tasks.episodes(environment(world), horizon=HORIZON, normalizer=tasks.es_normalizer())
    make_policy, make_strategy, make_controller, make_objective = SEARCHES[name]
    policy = make_policy()
    search = es_enas(
        policy,
        task,
        make_strategy(),
        make_controller(policy.space),
        objective=make_objective(),
        population=Population(lanes=3),
    )
    state = search.init(key)
    hyper = state.strategy.hyper._replace(noise_std=world.noise_std, step_size=world.step_size)
    state = state._replace(strategy=state.strategy._replace(hyper=hyper))
    state, metrics = search.run(key, state, 4)
    front = pareto_front(search, key, state, 4) if name == "front" else None
    best = search.controller.best(state.controller)
    return state, metrics, best, choose_answer(search, key, state, 6), front


def finite(tree) -> bool:
    return all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(tree)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(world=WORLDS, seed=st.integers(0, 2**31))
def test_no_number_that_is_not_finite_is_among_parents_incumbent_or_answer(name, world, seed):
    arguments = World(*(np.float32(x) if isinstance(x, float) else np.int32(x) for x in world))
    key = jax.random.key(seed)
    state, metrics, best, answer, front = carried_out(name, arguments, key)
    assert finite((state.strategy.params, state.strategy.optimizer, state.moments))
    # -inf is an empty place
    numbers = [np.asarray(x) for x in jax.tree.leaves(state.controller)]
    assert not any(np.isnan(x).any() or (x == np.inf).any() for x in numbers)
    assert finite(best)
    incumbent = state.incumbent
    assert finite((incumbent.params, incumbent.moments))
    assert np.isfinite(incumbent.score) or incumbent.score == -np.inf
    if front is not None:
        failed = np.asarray(front.evaluations.failed).any(axis=1)
        assert np.asarray(front.dominated | ~front.valid)[failed].all()
    assert finite((answer.chosen, answer.cost))
    assert np.isfinite(answer.score) or answer.score == -np.inf
    sound = ~np.asarray(answer.report.failed)
    assert np.isfinite(np.asarray(answer.report.episode_return)[sound]).all()
    assert (np.asarray(metrics.failed) <= 10).all()


# What reset and step may return that is wrong: shapes, dtypes, structures.
ARRAYS = st.builds(
    jnp.zeros,
    st.sampled_from([(), (1,), (2,), (3,), (2, 1), (1, 2)]),
    st.sampled_from(["float32", "int32", "bool"]),
)
THINGS = st.one_of(
    ARRAYS,
    st.none(),
    st.just(0.0),
    st.just({"a": 1.0}),
    st.just([0.0, 0.0]),
    st.just("obs"),
    st.tuples(ARRAYS, ARRAYS),
    st.builds(Transition, ARRAYS, ARRAYS, ARRAYS, ARRAYS),
    st.tuples(ARRAYS, st.builds(Transition, ARRAYS, ARRAYS, ARRAYS, ARRAYS)),
)


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(THINGS, THINGS)
def test_whatever_an_environment_returns_is_taken_or_refused_in_a_sentence(first, following):
    task = tasks.episodes(
        Environment(2, 1, lambda key: first, lambda state, action: following), horizon=4
    )
    policy = policies.dense(2, (), 1)
    search = es_enas(policy, task, strategies.ars(2, 1), controllers.constant(policy.space))
    said = ""
    try:
        jax.eval_shape(search.step, KEY, jax.eval_shape(search.init, KEY))
    except (TypeError, ValueError) as error:
        said = str(error)
    assert re.fullmatch(r"(the environment's (reset|step) must return .*, got .*\.)?", said)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_the_command_ends_well_or_in_one_sentence_that_names_a_file(seed, tmp_path, monkeypatch):
    rng = np.random.default_rng(seed)
    numbers = [np.nan, np.inf, 1e30, 3e38, 0.0, 1.0]
    world = World(
        obs=rng.choice(numbers), obs_from=int(rng.integers(0, 9)),
        reward=rng.choice(numbers), reward_from=int(rng.integers(0, 9)),
        bonus=rng.choice(numbers), bonus_from=int(rng.integers(0, 9)),
        limit=float(rng.choice([0.1, 1.0, 1e30])), ends=int(rng.integers(1, 9)),
        noise_std=0.0, step_size=0.0,
    )  # fmt: skip

    def task():
        return tasks.episodes(environment(world), horizon=HORIZON)

    monkeypatch.setitem(build.FUNCTIONS["task"], "fuzz", task)
    config = load_config(f"{CONFIG}:edges,es,none")
    config.update({"generations": 4, "checkpoint_every": 1, "answer_episodes": 4})
    config.task = ConfigDict({"name": "fuzz"})
    config.policy.num_edges = 2
    config.strategy.update({"num_directions": 3, "num_exact": 2, "noise_std": 1.0})
    config.controller = build.section("controller", "random")
    found, said = {"failed_episodes": 0}, "(see traceback.txt)"
    try:
        found = train.train(config, Workdir(tmp_path))
    except RunError as error:
        said = str(error)
    assert re.search(r"checkpoint of generation \d|\(see .*traceback\.txt\)", said)
    assert found["failed_episodes"] == 0 or found["return"]["mean"] is None
