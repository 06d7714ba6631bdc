"""Late updates: made from the state that the worker saw, and added to the one that is there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import Starts, asynchronous, controllers, es_enas, policies, strategies, tasks
from esenas_jax.types import Stream, stream
from tests.runs_test import regression, simple

KEY = jax.random.key(2)


LAGS = (2, 0, 1)
SLOW = pytest.mark.slow


@functools.cache
def compiled(make, lags):
    late = asynchronous(make(), lags)
    return jax.jit(late.init), jax.jit(late.step)


@functools.cache
def by_hand(make):
    search = make()
    return jax.jit(search.init), jax.jit(search.step_from)


def same(a, b, rtol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


@pytest.mark.parametrize(
    "lags", [LAGS, *(pytest.param(lags, marks=SLOW) for lags in ((0,), (1,), (4, 4)))]
)
def test_every_update_is_of_the_state_that_its_worker_saw(lags):
    init, step = compiled(simple, lags)
    begin, step_from = by_hand(simple)
    state, seen = init(KEY), [begin(KEY)]
    for t in range(7):
        state, metrics = step(KEY, state)
        source = seen[t - min(lags[t % len(lags)], t)].source
        expected, told = step_from(KEY, source, seen[t])
        seen.append(expected)
        same(state.now, expected)
        same(metrics, told)
    assert int(state.generation) == 7


@SLOW
def test_without_a_lag_it_is_the_search_controller_included():
    init, step = compiled(regression, (0,))
    search = regression()
    state, expected = init(KEY), jax.jit(search.init)(KEY)
    plain = jax.jit(search.step)
    for _ in range(3):
        state, _ = step(KEY, state)
        expected, _ = plain(KEY, expected)
    same(state.now, expected, rtol=1e-5)


def test_the_incumbent_is_the_weights_that_were_evaluated():
    init, step = compiled(simple, LAGS)
    state = init(KEY)
    visited = []
    for _ in range(12):
        visited.append(np.asarray(state.now.strategy.params))
        state, _ = step(KEY, state)
    kept = np.asarray(state.now.incumbent.params)
    assert any((kept == x).all() for x in visited)
    # The best exact score came from one of them, some updates before its score arrived.
    scores = []
    state = init(KEY)
    for t in range(12):
        state, metrics = step(KEY, state)
        scores.append((float(metrics.exact_score), t))
    best = max(scores)[1]
    assert LAGS[best % 3] > 0
    np.testing.assert_array_equal(kept, visited[best - LAGS[best % 3]])


def test_after_discarded_generations_it_goes_on_as_if_they_had_not_been():
    """What a checkpoint holds is the state before them: workers then see what they saw."""
    task = tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=32)
    policy = policies.dense(task.obs_size, (), 1, output_activation=policies.identity)
    good = task.evaluate

    def sometimes(key, network, apply):
        # Whole generations fail: a bit of their common key says so.
        fails = jax.random.bernoulli(jax.random.fold_in(key, 7), 0.4)
        return tasks.single_score(
            jnp.where(fails, jnp.nan, good(key, network, apply).episode_return)
        )

    search = es_enas(
        policy,
        task._replace(evaluate=sometimes),
        strategies.ars(4, 1, 0.1, 0.2),
        controllers.constant(policy.space),
        starts=Starts.GENERATION,
    )
    late = asynchronous(search, (2, 1))
    step, state = jax.jit(late.step), jax.jit(late.init)(KEY)
    lost, rewound = [], 0
    for _ in range(25):
        state, _ = step(KEY, state)
        lost.append(int(state.discarded))
        if lost[-1] > 1:  # in a streak: go back, and through it again
            back = state.rewound(state.discarded)
            for _ in range(lost[-1] + 2):
                back, _ = step(KEY, back)
            ahead = state
            for _ in range(2):
                ahead, _ = step(KEY, ahead)
            jax.tree.map(np.testing.assert_array_equal, back, ahead)
            rewound += 1
    assert rewound > 1
    assert 0 in lost


def test_late_directions_are_in_proportion_to_the_weights_that_were_perturbed():
    """By hand: ARS over what the worker saw, added to what is there."""
    task = tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=32)
    policy = policies.dense(task.obs_size, (), 1, output_activation=policies.identity)
    nu, size, directions = 0.1, 0.2, 4
    search = es_enas(
        policy,
        task,
        strategies.ars(directions, 1, nu, size, multiplicative=True),
        controllers.constant(policy.space),
        starts=Starts.GENERATION,
    )
    state = jax.jit(search.init)(KEY)
    seen = state._replace(strategy=state.strategy._replace(params=jnp.array([1.0, -2.0, 0.5])))
    now = state._replace(strategy=state.strategy._replace(params=jnp.array([10.0, 1.0, 0.0])))
    moved, _ = jax.jit(search.step_from)(KEY, seen.source, now)

    theta = np.array([1.0, -2.0, 0.5])
    key = stream(KEY, 0, Stream.NOISE)
    sample = strategies.gaussian().sample
    noise = jax.jit(jax.vmap(lambda d: sample(key, (), d, 3)))(jnp.arange(directions))
    scaled = np.abs(theta) * np.asarray(noise)
    examples = stream(KEY, 0, Stream.EPISODE)

    @jax.jit
    @jax.vmap
    def score(weights):
        network = policy.bind(weights, ())
        return task.evaluate(examples, network, policy.apply).episode_return

    plus, minus = (
        np.asarray(score((theta + sign * nu * scaled).astype(np.float32)), np.float64)
        for sign in (1, -1)
    )
    step = size / directions / np.std([plus, minus]) * (plus - minus) @ scaled
    expected = np.add([10.0, 1.0, 0.0], step)
    np.testing.assert_allclose(moved.strategy.params, expected, rtol=1e-3, atol=1e-4)


def test_a_table_of_noise_is_kept_once():
    late = asynchronous(simple(noise=strategies.shared_table(2**10)), (3,))
    state = jax.eval_shape(late.init, KEY)
    assert state.past.strategy.noise.value.shape == (2**10,)
    assert state.past.strategy.params.shape == (4, *state.now.strategy.params.shape)


@pytest.mark.parametrize(
    ("lags", "sentence"),
    [
        ((), "lags must be of at least one worker, got none."),
        ((1, -1), "lags must be at least 0, got -1."),
    ],
)
def test_bad_input_gets_one_sentence(lags, sentence):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - all of the sentence is compared
        asynchronous(simple(), lags)
    assert str(raised.value) == sentence


def test_a_negative_number_of_updates_is_refused():
    with pytest.raises(ValueError, match=r"^updates must be at least 0, got -1\.$"):
        asynchronous(simple(), (1,)).run(KEY, None, -1)


def test_architectures_that_stay_for_several_generations_are_refused():
    with pytest.raises(ValueError, match=r"^a search with late updates must propose every gen"):
        asynchronous(simple()._replace(propose_every=4), (1,))
    asynchronous(simple()._replace(propose_every=4), (0,))
