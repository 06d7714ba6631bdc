"""What is not finite never wins: in training, among learners, on a front, in the answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import (
    Population,
    act,
    choose_answer,
    controllers,
    es_enas,
    learners,
    objectives,
    pareto_front,
    policies,
    rules,
    strategies,
    tasks,
)
from esenas_jax.rollout import rollout
from esenas_jax.tasks import Environment, Transition
from esenas_jax.tasks.task import Lens

KEY = jax.random.key(3)
HORIZON, LIMIT = 6, 5.0
SEEN_AS_IT_IS = Lens(jnp.zeros(2), jnp.zeros(2), jnp.ones(2))


def explosive(what: str = "step") -> Environment:
    """Return a world that pays about 1 a step for ever, also when it has blown up.

    It does at the first action beyond `LIMIT`, if `what` is "step" or "last step", and shows NaN
    from then on, or at its last step. If `what` is "reset" every other start is NaN.
    """

    def reset(key):
        start = jax.random.uniform(key, (2,), minval=-1.0)
        hidden = (what == "reset") & (start[0] < 0)
        return (jnp.int32(0), start, jnp.bool_(False)), jnp.where(hidden, jnp.nan, start)

    def step(state, action):
        time, start, blown = state
        time = time + 1
        blown = blown | (jnp.abs(action[0]) > LIMIT)
        last = time >= HORIZON - 1
        shown = blown & {"step": True, "last step": last}.get(what, False)
        obs = jnp.where(shown, jnp.nan, start)
        done = (what == "last step") & last
        reward = 1.0 + 0.01 * jnp.tanh(action[0])
        return (time, start, blown), Transition(obs, reward, jnp.float32(0), done)

    return Environment(2, 1, reset, step)


def returns(world: Environment, actions: list[float]) -> np.ndarray:
    """Return what episodes come to in which an action is repeated."""
    task = tasks.episodes(world, horizon=HORIZON)
    given = jnp.array(actions, jnp.float32)
    run = jax.jit(
        lambda: rollout(
            task,
            lambda e: (given[e], jax.random.fold_in(KEY, e)),
            lambda e: SEEN_AS_IT_IS,
            lambda network, obs: network[None],
            num_episodes=len(actions),
            lanes=2,
            refill_every=2,
        )
    )
    totals, _ = run()
    return np.asarray(totals.reward), np.asarray(totals.steps)


def test_an_episode_fails_at_the_first_observation_or_action_that_is_not_finite():
    actions = [1.0, 9.0, np.nan, -np.inf, -1.0]
    reward, steps = returns(explosive(), actions)
    np.testing.assert_array_equal(np.isnan(reward), [False, True, True, True, False])
    more = 0.01 * np.tanh(1.0)
    np.testing.assert_allclose(reward[[0, 4]], HORIZON * np.array([1 + more, 1 - more]), rtol=1e-6)
    np.testing.assert_array_equal(steps, [HORIZON, 1, 1, 1, HORIZON])


def test_the_last_observation_counts():
    reward, steps = returns(explosive("last step"), [1.0, 9.0])
    np.testing.assert_array_equal(np.isnan(reward), [False, True])
    np.testing.assert_array_equal(steps, [HORIZON - 1, HORIZON - 1])


def test_an_episode_whose_first_observation_is_not_finite_fails_before_it_acts():
    reward, steps = returns(explosive("reset"), [1.0] * 8)
    failed = np.isnan(reward)
    assert 0 < failed.sum() < 8
    np.testing.assert_array_equal(steps, np.where(failed, 0, HORIZON))
    np.testing.assert_allclose(reward[~failed], HORIZON * (1 + 0.01 * np.tanh(1.0)), rtol=1e-6)


@functools.cache
def search(world: str = "step", controller: str = "evolution"):
    """Return a search whose perturbations often act beyond the limit."""
    task = tasks.episodes(explosive(world), horizon=HORIZON, normalizer=tasks.es_normalizer())
    policy = policies.edge_pruned(2, (3,), 1, num_edges=4, output_activation=policies.identity)
    several = controller == "nsga2"
    made = {
        "evolution": lambda: controllers.regularized_evolution(policy.space, 8),
        "nsga2": lambda: controllers.nsga2(policy.space, 8),
    }[controller]()
    return es_enas(
        policy,
        task,
        strategies.es(6, 3, noise_std=5.0, step_size=0.5),
        made,
        objective=objectives.pareto() if several else None,
        population=Population(lanes=4),
        max_failed=1.0,
    )


def acts_within_the_limit(made, contender) -> bool:
    starts = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    return bool((np.abs(act(made, contender, starts)) <= LIMIT).all())


def all_finite(tree) -> bool:
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


def test_a_candidate_that_became_nan_is_no_parent_and_not_the_answer():
    made = search()
    state, metrics = jax.jit(made.run, static_argnums=2)(KEY, made.init(KEY), 6)
    assert (np.asarray(metrics.failed) > 0).all()
    filled = np.asarray(state.controller.scores) > -np.inf
    assert filled.any()
    assert all_finite((state.strategy, state.moments, state.incumbent))
    answer = choose_answer(made, KEY, state, 16)
    assert 0.99 * HORIZON <= float(answer.score) <= 1.01 * HORIZON
    assert acts_within_the_limit(made, answer.chosen)


@pytest.mark.slow
def test_learners_do_not_follow_one_that_became_nan():
    made = learners(search(), 4, rules.culling())
    state, _ = jax.jit(made.run, static_argnums=2)(KEY, made.init(KEY), 4)
    deployed = made.deployed(state)
    assert all_finite((state.learners.strategy, deployed.incumbent))


@pytest.mark.slow
def test_a_front_has_none_that_became_nan():
    made = search(controller="nsga2")
    state, _ = jax.jit(made.run, static_argnums=2)(KEY, made.init(KEY), 4)
    front = pareto_front(made, KEY, state, 8)
    failed = np.asarray(front.evaluations.failed).any(axis=1)
    assert np.asarray(front.dominated)[failed].all()
    assert np.isfinite(np.asarray(front.evaluations.episode_return)[~failed]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_fails_whatever_its_score(value):
    logits = jnp.array([1.0, value])
    assert not tasks.finite({"a": jnp.ones(2), "b": logits})
    assert tasks.finite({"a": jnp.ones(2), "b": jnp.arange(3)})
    examples = tasks.Examples(np.eye(2, dtype=np.float32), np.array([0, 0], np.int32))
    task = tasks.supervised(examples, 2, batch_size=2, test=examples)

    def apply(network, obs):
        return jnp.where(obs[0] > 0, network, jnp.array([1.0, 0.0]))

    assert task.evaluate(KEY, logits, apply).failed
    assert not task.evaluate(KEY, jnp.array([1.0, 0.0]), apply).failed
    told = task.report.evaluate(logits, apply)
    np.testing.assert_array_equal(told.failed, [True, False])
    np.testing.assert_array_equal(told.statistics["test_accuracy"], [0.0, 1.0])


def test_results_with_double_ids_or_without_statistics_are_refused():
    made = search()
    state = jax.jit(made.init)(KEY)
    ids = jnp.arange(made.num_candidates, dtype=jnp.int32)
    asked = jax.jit(jax.vmap(made.candidate, (None, None, None, 0)))(KEY, state, 0, ids)
    seen = jax.jit(made.evaluate)(state, asked)

    def tell(ids, seen):
        return made.tell(KEY, state, state.generation, ids, asked.genotype, asked.info, seen)

    with pytest.raises(ValueError, match=r"^ids must be distinct, got 1 twice\.$"):
        tell(ids.at[2].set(1), seen)
    with pytest.raises(ValueError, match=r"^ids must be in \[0, 14\], got 15\.$"):
        tell(ids.at[2].set(15), seen)
    with pytest.raises(ValueError, match=r"^evaluations must have the statistics of the obs"):
        tell(ids, seen._replace(statistics=()))
    after, metrics = jax.jit(tell)(ids.at[2].set(1), seen)  # where ids are not known
    assert metrics.discarded == 1
    np.testing.assert_array_equal(after.strategy.params, state.strategy.params)
    told = jax.jit(tell)
    after, metrics = told(ids, seen)
    assert metrics.discarded == 0
    assert not np.array_equal(after.strategy.params, state.strategy.params)
    # A host may send a length or sums of observations that are not finite.
    _, shorter = told(ids, seen._replace(episode_length=seen.episode_length.at[14].set(jnp.nan)))
    assert shorter.failed == metrics.failed + 1
    sums = seen.statistics._replace(first=seen.statistics.first.at[0].set(jnp.nan))
    after, metrics = told(ids, seen._replace(statistics=sums))
    assert metrics.discarded == 1
    assert all_finite(after.moments)
