"""The methods solve what they should, and their broken twins do not.

Pendulum: a policy that does nothing or spins scores about -800 to -1,500 an episode of 200 steps,
one that swings up and holds -100 to -250. Regression: the loss starts above 1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from esenas_jax import (
    Population,
    Starts,
    controllers,
    es_enas,
    policies,
    strategies,
    tasks,
)

SEEDS = 3


def curves(policy, task, strategy, controller, generations) -> np.ndarray:
    """Return the learning curves [seeds, generations] of independent runs, in one program."""
    search = es_enas(
        policy,
        task,
        strategy,
        controller,
        starts=Starts.GENERATION,
        population=Population(lanes=256, refill_every=50),
    )
    keys = jax.random.split(jax.random.key(0), SEEDS)
    states = jax.vmap(search.init)(keys)
    run = jax.jit(jax.vmap(functools.partial(search.run, generations=generations)))
    _, metrics = run(keys, states)
    return np.asarray(metrics.exact_mean)


def swing_up(strategy, generations=120) -> np.ndarray:
    """Return the mean return of the last ten generations of each seed."""
    task = tasks.episodes(
        tasks.pendulum(), horizon=200, episodes=4, normalizer=tasks.es_normalizer()
    )
    policy = policies.dense(3, (16,), 1)
    curve = curves(policy, task, strategy, controllers.constant(policy.space), generations)
    return curve[:, -10:].mean(axis=1)


def descends(step_size):
    """The wrong sign."""
    return optax.sgd(-step_size)


PENDULUM = {
    "es": functools.partial(strategies.es, 32, 8, noise_std=0.5, step_size=0.8),
    "ars": functools.partial(strategies.ars, 32, 8, noise_std=0.5, step_size=0.8),
}


@pytest.mark.parametrize("strategy", PENDULUM)
def test_pendulum_is_swung_up_in_most_seeds(strategy):
    assert np.median(swing_up(PENDULUM[strategy]())) > -300


@pytest.mark.parametrize(
    "broken",
    [
        functools.partial(PENDULUM["es"], optimizer=descends),
        functools.partial(PENDULUM["ars"], optimizer=descends),
        functools.partial(PENDULUM["es"], shaping=strategies.raw),
    ],
    ids=["es, wrong sign", "ars, wrong sign", "es, no shaping"],
)
def test_a_broken_update_does_not_swing_it_up(broken):
    assert np.median(swing_up(broken())) < -600


REGRESSION = {
    "es": functools.partial(strategies.es, 32, 4, noise_std=0.1, step_size=0.012),
    "ars": functools.partial(strategies.ars, 32, 4, 0.1, 0.1, num_elites=16),
}


def regression_losses(strategy, generations=300) -> np.ndarray:
    """Return the losses [seeds, generations] of fitting one polynomial from zero."""
    task = tasks.polynomial_regression(jax.random.key(3), batch_size=512)
    policy = policies.dense(
        5, (), 1, output_activation=policies.identity, weight_init=policies.zeros
    )
    return -curves(policy, task, strategy, controllers.constant(policy.space), generations)


@pytest.mark.parametrize("strategy", REGRESSION)
def test_the_polynomial_is_found(strategy):
    losses = regression_losses(REGRESSION[strategy]())
    assert (losses[:, 0] > 1).all()
    assert (losses[:, -10:].mean(axis=1) < 0.1).all()


@pytest.mark.parametrize(
    "broken",
    [
        functools.partial(REGRESSION["es"], optimizer=descends),
        functools.partial(REGRESSION["ars"], optimizer=descends),
    ],
    ids=["es, wrong sign", "ars, wrong sign"],
)
def test_a_wrong_sign_does_not_find_it(broken):
    assert (regression_losses(broken())[:, -1] > 1).all()


@pytest.mark.parametrize(
    ("controller", "found_by"),
    [
        # It remembers four generations; one of a single generation's size forgets what it found.
        (lambda space: controllers.regularized_evolution(space, 64), lambda found: found >= 18),
        (controllers.random, lambda found: found <= 9),
    ],
    ids=["evolution finds them", "chance does not"],
)
def test_the_search_finds_the_edges_that_matter(controller, found_by):
    """Two of ten inputs matter; the weights are given, so only the architecture can be learnt."""
    wanted = jnp.zeros(10).at[jnp.array([2, 7])].set(1.0)

    def evaluate(key, network, apply):
        x = jax.random.normal(key, (64, 10))
        predicted = jax.vmap(apply, in_axes=(None, 0))(network, x)[:, 0]
        return tasks.single_score(-jnp.mean((predicted - x @ wanted) ** 2))

    def ones(key, shape):
        return jnp.ones(shape, jnp.float32)

    policy = policies.edge_pruned(
        10, (), 1, num_edges=2, output_activation=policies.identity, weight_init=ones
    )
    task = tasks.SingleShot(10, 1, evaluate)
    strategy = strategies.es(4, 8, noise_std=1e-4, step_size=1e-6)
    search = es_enas(policy, task, strategy, controller(policy.space))

    @jax.jit
    @jax.vmap
    def answers(seed):
        key = jax.random.key(seed)
        state, _ = search.run(key, search.init(key), 40)
        return search.controller.best(state.controller)[0][0]

    found = (np.asarray(answers(jnp.arange(20))) == [2, 7]).all(axis=1)
    assert found_by(found.sum())
