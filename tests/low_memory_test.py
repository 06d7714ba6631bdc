"""Random search in the memory of its weights: its step, its draws, and what it takes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from esenas_jax import low_memory, policies, strategies, tasks
from esenas_jax.types import Stream, stream
from tests.support.compiling import jit_as_shipped

KEY = jax.random.key(5)
B = 6


def regression(batch_size=32):
    return tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=batch_size)


def linear():
    return policies.dense(3, (), 1, output_activation=policies.identity)


@functools.cache
def made(**options):
    search = low_memory(linear(), regression(), num_batches=B, **options)
    return search, jax.jit(search.step)


@functools.cache
def compiled_loss(search):
    def loss(run_key, params, batch):
        key = jax.random.fold_in(stream(run_key, 0, Stream.START), batch)
        network = search.policy.bind(params, {})
        return -search.task.evaluate(key, network, search.policy.apply).episode_return

    return jax.jit(loss)


def loss_of(search, run_key, params, batch):
    return float(compiled_loss(search)(run_key, jnp.asarray(params, jnp.float32), batch))


def test_a_step_is_three_losses_along_one_direction():
    """Against a transcription, with what is remembered, kept and taken back."""
    nu, size, temperature = 0.05, 0.6, 0.01
    search, step = made(noise_std=nu, step_size=size, temperature=temperature)
    state = search.init(KEY)
    remembered, kept_or_not = np.full(B, np.inf), set()
    for t in range(30):
        params = np.asarray(state.params, np.float64)
        new, seen = step(KEY, state)
        b = int(seen.batch)
        key = stream(KEY, t, Stream.NOISE)
        delta = np.asarray(strategies.rademacher().sample(key, (), 0, params.size), np.float64)
        plus, minus = (loss_of(search, KEY, params + s * nu * delta, b) for s in (1, -1))
        proposal = params - size * (plus - minus) / (2 * nu) * delta
        after = loss_of(search, KEY, proposal, b)
        np.testing.assert_allclose(seen.loss, (plus + minus) / 2, rtol=1e-4)
        np.testing.assert_allclose(seen.moved_loss, after, rtol=2e-3, atol=1e-4)
        kept = bool(seen.kept)
        kept_or_not.add(kept)
        # The first time there is nothing to compare with but both sides.
        known = remembered[b] if np.isfinite(remembered[b]) else float(seen.loss)
        if float(seen.moved_loss) <= known:
            assert kept
        expected = proposal if kept else params
        np.testing.assert_allclose(new.params, expected, rtol=1e-3, atol=1e-4)
        remembered[b] = seen.moved_loss if kept else seen.loss
        np.testing.assert_allclose(new.losses, remembered, rtol=1e-6)
        state = new
    assert kept_or_not == {True, False}


def test_moves_are_kept_by_metropolis_against_what_is_remembered():
    """From one state with 20,000 run keys that draw the same examples."""
    n, temperature = 20_000, 0.5
    search, _ = made(noise_std=0.01, step_size=1e-6, temperature=temperature)
    state = search.init(KEY)

    def losses(batch):
        key = jax.random.fold_in(stream(KEY, 0, Stream.START), batch)
        network = search.policy.bind(state.params, state.genotype)
        return -search.task.evaluate(key, network, search.policy.apply).episode_return

    worsening = 0.6
    state = state._replace(losses=jax.vmap(losses)(jnp.arange(B)) - worsening)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), state)
    # A later step has other draws and the same mini-batches.
    many = many._replace(generation=jnp.arange(n, dtype=jnp.int32))
    kept = np.asarray(jax.jit(jax.vmap(search.step, (None, 0)))(KEY, many)[1].kept)
    p = math.exp(-worsening / temperature)
    assert abs(kept.mean() - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-3  # steps of a millionth


@pytest.mark.parametrize("correction", [1.0, 0.0])
def test_with_correction_the_expected_step_is_that_of_uniform_mini_batches(correction):
    n, size = 20_000, 0.01
    search, _ = made(step_size=size, temperature=1e9, priority=1.0, correction=correction)
    state = search.init(KEY)
    losses = jnp.array([0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
    state = state._replace(losses=losses)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), state)
    many = many._replace(generation=jnp.arange(n, dtype=jnp.int32))
    new, seen = jax.jit(jax.vmap(search.step, (None, 0)))(KEY, many)
    assert np.asarray(seen.kept).all()
    p = np.asarray(search.probabilities(state), np.float64)
    np.testing.assert_allclose(p, 0.9 * losses / losses.sum() + 0.1 / B, rtol=1e-5)
    count = np.bincount(np.asarray(seen.batch), minlength=B)
    assert (np.abs(count / n - p) < 5 * np.sqrt(p * (1 - p) / n)).all()

    def loss(params, batch):
        key = jax.random.fold_in(stream(KEY, 0, Stream.START), batch)
        network = search.policy.bind(params, state.genotype)
        return -search.task.evaluate(key, network, search.policy.apply).episode_return

    # E[slope delta] is the gradient, up to nu^2 times third derivatives.
    slopes = jax.vmap(jax.grad(loss), (None, 0))(state.params, jnp.arange(B))
    expected = -size * np.asarray(slopes, np.float64).mean(axis=0)
    steps = np.asarray(new.params, np.float64) - np.asarray(state.params, np.float64)
    error = steps.std(axis=0) / math.sqrt(n)
    off = np.abs(steps.mean(axis=0) - expected) / error
    assert (off < 5).all() if correction else (off > 5).any()


def test_it_learns_and_a_temperature_that_cools_to_zero_ends_in_what_is_better():
    search, _ = made(
        noise_std=0.02,
        step_size=0.05,
        temperature=0.1,
        cooling=optax.linear_schedule(1.0, 0.0, 1500),
        priority=0.5,
    )
    run = jax.jit(search.run, static_argnums=2, donate_argnums=1)
    state, seen = run(KEY, search.init(KEY), 2000)
    loss = np.asarray(seen.loss)
    assert loss[:B].mean() > 0.4
    assert loss[-100:].mean() < 0.04
    assert seen.temperature[-1] < 1e-6
    assert int(state.discarded) == 0


def test_a_step_that_makes_things_worse_is_taken_back_the_first_time_too():
    search, step = made(step_size=50.0, temperature=1e-6)
    state = search.init(KEY)
    new, seen = step(KEY, state)
    assert seen.moved_loss > 10 * seen.loss
    assert not bool(seen.kept)
    np.testing.assert_array_equal(new.params, state.params)


def test_losses_that_are_not_finite_move_nothing_and_are_not_remembered():
    task = tasks.SingleShot(3, 1, lambda key, network, apply: tasks.single_score(jnp.nan * 0.0))
    search = low_memory(linear(), task, num_batches=B)
    state = search.init(KEY)
    new, seen = jax.jit(search.step)(KEY, state)
    np.testing.assert_array_equal(new.params, state.params)
    np.testing.assert_array_equal(new.losses, state.losses)
    assert int(new.discarded) == 1
    assert not bool(seen.kept)


def test_its_memory_is_a_few_times_the_weights_however_long_it_runs():
    """2.3 times for the work of a step, and the rows of metrics."""

    def evaluate(key, network, apply):
        return tasks.single_score(apply(network, jax.random.normal(key, (256,)))[0])

    task = tasks.SingleShot(256, 1, evaluate)
    policy = policies.dense(256, (256,), 1)
    search = low_memory(policy, task, num_batches=B)
    weights = 4 * policy.num_params
    state = jax.eval_shape(search.init, KEY)

    def took(steps):
        run = jit_as_shipped(search.run, static_argnums=2, donate_argnums=1)
        return run.lower(KEY, state, steps).compile().memory_analysis().temp_size_in_bytes

    assert took(10) < 3 * weights
    assert took(1000) < took(10) + 1000 * 64


WRONG = {
    "episodes": (
        lambda: low_memory(linear(), tasks.episodes(tasks.pendulum())),
        "the task must be single-shot, its loss a function of a mini-batch, got Episodes.",
    ),
    "sizes": (
        lambda: low_memory(policies.dense(4, (), 1), regression()),
        "the policy's observation size must be the task's, 3, got 4.",
    ),
    "no temperature": (
        lambda: made(temperature=0.0),
        "temperature must be a positive finite number, got 0.0.",
    ),
    "no mini-batch": (
        lambda: low_memory(linear(), regression(), num_batches=0),
        "num_batches must be at least 1, got 0.",
    ),
    "too much correction": (
        lambda: made(correction=1.5),
        "correction must be in [0, 1], got 1.5.",
    ),
    "a negative number of steps": (
        lambda: made()[0].run(jax.random.key(0), None, -1),
        "steps must be at least 0, got -1.",
    ),
    "no uniform share": (
        lambda: made(uniform_share=0.0),
        "uniform_share must be in (0, 1], got 0.0.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_gets_one_sentence(name):
    make, sentence = WRONG[name]
    with pytest.raises((TypeError, ValueError)) as raised:
        make()
    assert str(raised.value) == sentence
