"""Late updates: made from the state that the worker saw, and added to the one that is there."""

import functools

import jax
import numpy as np
import pytest

from esenas_jax import asynchronous, strategies
from tests.runs_test import regression, simple

KEY = jax.random.key(2)


@functools.cache
def compiled(make, lags):
    late = asynchronous(make(), lags)
    return late, jax.jit(late.step)


@functools.cache
def by_hand(make):
    search = make()
    return search, jax.jit(search.step_from)


def same(a, b, rtol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


@pytest.mark.parametrize("lags", [(0,), (1,), (2, 0, 1), (4, 4)])
def test_every_update_is_of_the_state_that_its_worker_saw(lags):
    late, step = compiled(simple, lags)
    search, step_from = by_hand(simple)
    state, seen = late.init(KEY), [search.init(KEY)]
    for t in range(7):
        state, metrics = step(KEY, state)
        source = seen[t - min(lags[t % len(lags)], t)].source
        expected, told = step_from(KEY, source, seen[t])
        seen.append(expected)
        same(state.now, expected)
        same(metrics, told)
    assert int(state.generation) == 7


def test_without_a_lag_it_is_the_search_controller_included():
    late, step = compiled(regression, (0,))
    search = regression()
    state, expected = late.init(KEY), search.init(KEY)
    plain = jax.jit(search.step)
    for _ in range(3):
        state, _ = step(KEY, state)
        expected, _ = plain(KEY, expected)
    same(state.now, expected, rtol=1e-5)


def test_the_incumbent_is_the_weights_that_were_evaluated():
    late, step = compiled(simple, (3,))
    state = late.init(KEY)
    visited = []
    for _ in range(12):
        visited.append(np.asarray(state.now.strategy.params))
        state, _ = step(KEY, state)
    kept = np.asarray(state.now.incumbent.params)
    assert any((kept == x).all() for x in visited)
    # The best exact score came from one of them, three updates before it was heard of.
    scores = []
    state = late.init(KEY)
    for t in range(12):
        state, metrics = step(KEY, state)
        scores.append((float(metrics.exact_score), max(t - 3, 0)))
    np.testing.assert_array_equal(kept, visited[max(scores)[1]])


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
