"""The methods solve what they should, and their broken twins do not.

Pendulum: a policy that does nothing or spins scores about -800 to -1,500 an episode of 200 steps,
one that swings up and holds -100 to -250. Regression: the loss starts above 1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
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
from tests.support.compiling import jit_as_shipped

SEEDS = 3
SLOW = pytest.mark.slow


def learner(policy, task, strategy, generations, jit):
    """Return a function of a step's sign: the learning curves [seeds, generations] of one program.

    The sign is that of `step_size` in the state, so that both signs are one compilation.
    """
    search = es_enas(
        policy,
        task,
        strategy,
        controllers.constant(policy.space),
        starts=Starts.GENERATION,
        population=Population(lanes=256, refill_every=50),
    )

    @jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def run(key, sign):
        state = search.init(key)
        hyper = state.strategy.hyper
        hyper = hyper._replace(step_size=sign * hyper.step_size)
        state = state._replace(strategy=state.strategy._replace(hyper=hyper))
        return search.run(key, state, generations)[1].exact_mean

    keys = jax.random.split(jax.random.key(0), SEEDS)
    return lambda sign: np.asarray(run(keys, sign))


PENDULUM = {
    "es": functools.partial(strategies.es, 32, 8, noise_std=0.5, step_size=0.8),
    "ars": functools.partial(strategies.ars, 32, 8, noise_std=0.5, step_size=0.8),
}
PENDULUM["es, no shaping"] = functools.partial(PENDULUM["es"], shaping=strategies.raw)


@functools.cache
def on_pendulum(name: str):
    task = tasks.episodes(
        tasks.pendulum(), horizon=200, episodes=4, normalizer=tasks.es_normalizer()
    )
    return learner(policies.dense(3, (16,), 1), task, PENDULUM[name](), 120, jit_as_shipped)


def swing_up(name: str, sign: float = 1.0) -> float:
    """Return the median over seeds of the mean return of the last ten generations."""
    return np.median(on_pendulum(name)(sign)[:, -10:].mean(axis=1))


@pytest.mark.parametrize("strategy", [pytest.param(name, marks=SLOW) for name in ("es", "ars")])
def test_pendulum_is_swung_up_in_most_seeds(strategy):
    assert swing_up(strategy) > -300


@pytest.mark.parametrize(
    ("strategy", "sign"),
    [
        pytest.param("es", -1.0, id="es, wrong sign", marks=SLOW),
        pytest.param("ars", -1.0, id="ars, wrong sign", marks=SLOW),
        pytest.param("es, no shaping", 1.0, id="es, no shaping", marks=SLOW),
    ],
)
def test_a_broken_update_does_not_swing_it_up(strategy, sign):
    assert swing_up(strategy, sign) < -600


# A larger step circles around the minimum: ARS divides by the spread of its scores.
REGRESSION = {
    "es": functools.partial(strategies.es, 32, 4, noise_std=0.1, step_size=0.012),
    "ars": functools.partial(strategies.ars, 32, 4, 0.1, 0.05, num_elites=16),
}


@functools.cache
def on_regression(name: str):
    """Fitting one polynomial from zero."""
    task = tasks.polynomial_regression(jax.random.key(3), batch_size=512)
    policy = policies.dense(
        5, (), 1, output_activation=policies.identity, weight_init=policies.zeros
    )
    return learner(policy, task, REGRESSION[name](), 300, jax.jit)


over_strategies = pytest.mark.parametrize("strategy", [pytest.param("es", marks=SLOW), "ars"])


@over_strategies
def test_the_polynomial_is_found(strategy):
    losses = -on_regression(strategy)(1.0)
    assert (losses[:, 0] > 1).all()
    assert (losses[:, -10:].mean(axis=1) < 0.1).all()


@over_strategies
def test_a_wrong_sign_does_not_find_it(strategy):
    assert (-on_regression(strategy)(-1.0)[:, -1] > 1).all()


@pytest.mark.parametrize(
    ("controller", "found_by"),
    [
        # It remembers four generations; one of a single generation's size forgets what it found.
        (lambda space: controllers.regularized_evolution(space, 64), lambda found: found >= 18),
        pytest.param(controllers.random, lambda found: found <= 9, marks=SLOW),
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
