"""Many runs in one program: each is the run that it would be alone."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import Population, controllers, es_enas, policies, strategies, tasks
from esenas_jax.runs import runs, variable
from esenas_jax.types import Shared
from tests.support.compiling import jit_as_shipped

KEYS = jax.vmap(jax.random.key)(jnp.arange(4, dtype=jnp.uint32))
STDS = np.array([0.02, 0.05, 0.1, 0.2], np.float32)
CAPACITY = 8


def regression():
    task = tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=32)
    policy = policies.edge_pruned(
        task.obs_size, (3,), 1, num_edges=6, output_activation=policies.identity
    )
    return es_enas(
        policy,
        task,
        strategies.es(8, 3, 0.1, 0.2),
        controllers.regularized_evolution(policy.space, 19),
    )


def simple(noise=None, **population):
    """A search that compiles in no time."""
    task = tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=32)
    policy = policies.dense(task.obs_size, (), 1, output_activation=policies.identity)
    strategy = strategies.ars(4, 1, 0.1, 0.2, noise=noise)
    return es_enas(
        policy,
        task,
        strategy,
        controllers.constant(policy.space),
        population=Population(**population),
    )


def pendulum(lanes=None):
    task = tasks.episodes(tasks.pendulum(), horizon=40, normalizer=tasks.es_normalizer())
    policy = policies.edge_pruned(task.obs_size, (4,), task.action_size, num_edges=8)
    return es_enas(
        policy,
        task,
        strategies.es(8, 3, 0.1, 0.2),
        controllers.regularized_evolution(policy.space, 19),
        population=Population(lanes=lanes),
    )


@functools.cache
def compiled(make, number=None, devices=1):
    made = runs(make(), number, devices=devices, capacity=CAPACITY)
    # A swinging pendulum amplifies how two programs round, and quick ones round more differently.
    jit = jit_as_shipped if make is pendulum else jax.jit
    return jit(made.init), jit(made.advance, donate_argnums=1)


def carry_out(make, keys, values, generations, number=None, devices=1):
    init, advance = compiled(make, number, devices)
    state, metrics = advance(keys, init(keys, values), np.int32(generations))
    return jax.device_get((state, metrics))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


@pytest.mark.parametrize("make", [regression, pytest.param(pendulum, marks=pytest.mark.slow)])
def test_three_seeds_in_one_program_are_each_alone(make):
    values = {"strategy.noise_std": STDS[:3]}
    state, metrics = carry_out(make, KEYS[:3], values, 4, number=3)
    assert len({float(x) for x in metrics.exact_mean[3]}) == 3
    for r in range(3):
        mine = {name: x[r] for name, x in values.items()}
        state_alone, metrics_alone = carry_out(make, KEYS[r], mine, 4)
        take = functools.partial(jax.tree.map, lambda x, r=r: x[r])
        equal(take(state.controller.genotypes), state_alone.controller.genotypes)
        close(take(state.strategy), state_alone.strategy)
        close(take(state.moments), state_alone.moments)
        close(jax.tree.map(lambda x, r=r: x[:, r], metrics).exact_mean, metrics_alone.exact_mean)


@functools.cache
def of_lanes(lanes):
    return carry_out(functools.partial(pendulum, lanes), KEYS[0], {}, 4)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [3, 19])
def test_lanes_change_a_whole_run_only_by_rounding(lanes):
    state, metrics = of_lanes(lanes)
    expected, expected_metrics = of_lanes(8)
    equal(state.controller.genotypes, expected.controller.genotypes)
    close(state.strategy, expected.strategy)
    close(metrics.exact_mean, expected_metrics.exact_mean)


def test_how_many_generations_a_dispatch_has_changes_no_bit():
    init, advance = compiled(regression)
    state = init(KEYS[0], {})
    rows = []
    for limit in (1, 4, 2):
        state, metrics = advance(KEYS[0], state, np.int32(limit))
        rows.append(jax.tree.map(lambda x, n=limit: np.asarray(x[:n]), metrics))
    expected, metrics = carry_out(regression, KEYS[0], {}, 7)
    equal(jax.device_get(state), expected)
    equal(jax.tree.map(lambda *x: np.concatenate(x), *rows), jax.tree.map(lambda x: x[:7], metrics))
    assert int(state.generation) == 7
    assert not np.asarray(metrics.exact_mean[7:]).any()


def test_generations_in_a_dispatch_are_those_of_steps():
    """Bit for bit as users compile it."""
    search, dispatch = regression(), runs(regression(), capacity=CAPACITY)
    first, step = jax.jit(search.init)(KEYS[0]), jit_as_shipped(search.step)
    state = first
    for _ in range(5):
        state, _ = step(KEYS[0], state)
    equal(state, jit_as_shipped(dispatch.advance)(KEYS[0], first, np.int32(5))[0])


def test_the_state_is_donated():
    init, advance = compiled(regression)
    state = init(KEYS[0], {})
    advance(KEYS[0], state, np.int32(1))
    assert state.strategy.params.is_deleted()


def test_devices_that_share_out_runs_change_them_only_by_rounding():
    values = {"strategy.noise_std": STDS}
    expected = carry_out(simple, KEYS, values, 3, number=4)
    got = carry_out(simple, KEYS, values, 3, number=4, devices=2)
    close(got[0].strategy, expected[0].strategy)
    close(got[1].exact_mean, expected[1].exact_mean)
    assert len(set(got[1].exact_mean[2].tolist())) == 4


@pytest.mark.slow
def test_devices_that_share_out_each_generation_of_many_runs_change_them_only_by_rounding():
    values = {"strategy.noise_std": STDS}
    expected = carry_out(simple, KEYS, values, 3, number=4)
    got = carry_out(functools.partial(simple, devices=2), KEYS, values, 3, number=4)
    close(got[0].strategy, expected[0].strategy)
    close(got[1].exact_mean, expected[1].exact_mean)


def test_devices_that_share_out_runs_tell_each_other_nothing():
    made = runs(simple(), 4, devices=2, capacity=CAPACITY)
    values = {"strategy.noise_std": STDS}
    state = compiled(simple, 4, 2)[0](KEYS, values)
    advance = jax.jit(made.advance, donate_argnums=1)
    text = advance.lower(KEYS, state, np.int32(1)).compile().as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert word not in text


def test_runs_share_one_table_of_noise():
    make = functools.partial(simple, strategies.shared_table(2**10))
    state, metrics = carry_out(make, KEYS[:2], {}, 3, number=2)
    assert isinstance(state.strategy.noise, Shared)
    assert state.strategy.noise.value.shape == (2**10,)
    for r in range(2):
        alone = carry_out(make, KEYS[r], {}, 3)[1]
        close(metrics.exact_mean[:, r], alone.exact_mean)


def test_what_can_differ_between_runs_is_what_the_pieces_say():
    assert list(variable(regression())) == [
        "strategy.noise_std",
        "strategy.step_size",
        "objective.shift_per_step",
    ]


def test_a_number_that_is_none_of_the_states_is_refused():
    message = "runs can differ in strategy.noise_std, .*, got strategy.noise_sdt."
    with pytest.raises(ValueError, match=message):
        runs(simple()).init(KEYS[0], {"strategy.noise_sdt": jnp.float32(1)})


def failing_above(threshold):
    """A task whose scores are not finite once the weights are longer than a threshold."""

    def evaluate(key, network, apply):
        far = jnp.sum(network**2) > threshold
        return tasks.single_score(jnp.where(far, jnp.nan, jnp.sum(network)))

    dense = policies.dense(4, (), 1)
    plain = dense._replace(
        bind=lambda params, genotype: params, init=lambda key: jnp.zeros(4, jnp.float32)
    )
    return es_enas(
        plain,
        tasks.SingleShot(4, 1, evaluate),
        strategies.es(8, 3, 0.01, 0.2, shaping=strategies.raw),
        controllers.constant(dense.space),
    )


def test_one_run_that_fails_stops_neither_the_others_nor_the_program():
    make = functools.partial(failing_above, 0.5)
    values = {"strategy.step_size": np.array([1.0, 1e-6], np.float32)}
    state, metrics = carry_out(make, KEYS[:2], values, 8, number=2)
    assert state.generation.tolist() == [8, 8]
    assert metrics.discarded[-1, 0] >= 3
    assert not metrics.discarded[:, 1].any()


def test_a_program_whose_runs_all_fail_stops_after_three_generations():
    make = functools.partial(failing_above, -1.0)
    state, metrics = carry_out(make, KEYS[:2], {}, 8, number=2)
    assert state.generation.tolist() == [3, 3]
    assert metrics.discarded[:3, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 0}, "number must be at least 1, got 0."),
        ({"capacity": 0}, "capacity must be at least 1, got 0."),
        (
            {"number": 4, "devices": 9},
            "devices must be in [1, 8], got 9; to split the CPU into 9, add",
        ),
        (
            {"number": 3, "devices": 2},
            "multiple of the devices and no generation is shared out itself, got 3 runs, 2 devices",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        runs(simple(), **arguments)


def test_devices_share_out_runs_or_generations_and_not_both():
    with pytest.raises(ValueError, match=r"got 4 runs, 2 devices and 2 shards\.$"):
        runs(simple(devices=2), number=4, devices=2)


@pytest.mark.parametrize(
    "noise", [None, pytest.param(strategies.shared_table(2**10), marks=pytest.mark.slow)]
)
def test_runs_that_take_turns_are_those_that_go_together(noise):
    values = {"strategy.noise_std": STDS}
    turns, together = (
        carry_out(functools.partial(simple, noise, lanes=lanes), KEYS, values, 3, number=4)
        for lanes in (9, 10)  # of 9 candidates
    )
    close(turns[0].strategy, together[0].strategy)
    close(turns[1].exact_mean, together[1].exact_mean)
    assert len(set(turns[1].exact_mean[2].tolist())) == 4
