"""Populations of learners: each is the search it would be alone, and the rule sees all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import (
    choose_answer,
    learners,
    rules,
    strategies,
)
from esenas_jax.runs import runs
from esenas_jax.types import Stream, stream
from tests.runs_test import regression, simple

KEY = jax.random.key(4)
RULES = {
    "none": rules.compose(),
    "culling": rules.culling(),
    "survivors": rules.culling(0.25, rules.clones_of_survivors),
    "bred": rules.culling(0.5, rules.bred),
    "crossed": rules.culling(0.5, rules.crossed),
    "annealing": rules.annealing(0.5),
    "swarm": rules.swarm(),
    "tabu": rules.tabu(0.05, 4),
    "apart": rules.apart(0.05),
    "annealing and culling": rules.compose(rules.annealing(0.5), rules.culling()),
    "swarm and tabu": rules.compose(rules.swarm(), rules.tabu(0.05, 4)),
}


def over_rules(quick):
    """All rules, as quick tests and slow ones: rules_test.py is about each of them, too."""
    return pytest.mark.parametrize(
        "name", [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in RULES]
    )


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@functools.cache
def compiled(name, number=4, make=simple):
    """A population whose rule follows every second generation, its start, and its step."""
    population = learners(make(), number, RULES[name], every=2)
    return population, jax.jit(population.init)(KEY), jax.jit(population.step)


def carry_out(state, step, generations):
    rows = []
    for _ in range(generations):
        state, metrics = step(KEY, state)
        rows.append(metrics)
    return state, jax.tree.map(lambda *x: np.stack(x), *rows)


def test_without_a_rule_each_is_the_search_it_would_be_alone():
    state, metrics = carry_out(*compiled("none", make=regression)[1:], 4)
    search = regression()
    init, step = jax.jit(search.init), jax.jit(search.step)
    for m in range(4):
        key = jax.random.fold_in(KEY, m)
        alone = init(key)
        for t in range(4):
            alone, seen = step(key, alone)
            assert metrics.exact_score[t] >= seen.exact_score - 1e-5
        mine = jax.tree.map(lambda x, m=m: x[m], state.learners)
        equal(mine.controller.genotypes, alone.controller.genotypes)
        for name in ("controller", "strategy"):
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-5),
                getattr(mine, name),
                getattr(alone, name),
            )
    assert metrics.episodes.tolist() == [4 * search.num_candidates] * 4


@over_rules(("annealing and culling",))
def test_every_rule_learns_in_a_state_whose_shapes_never_change(name):
    _, first, step = compiled(name)
    state, metrics = carry_out(first, step, 5)
    like = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), first)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) == like
    assert step._cache_size() == 1  # the second call traces nothing
    for seen in (
        metrics.exact_score,
        *(metrics.strategy[f"learners_{x}"] for x in ("mean", "std")),
    ):
        assert np.isfinite(seen).all()


@pytest.mark.slow
def test_a_scan_of_steps_is_the_steps():
    population, first, step = compiled("annealing and culling")
    state, metrics = jax.jit(population.run, static_argnums=2)(KEY, first, 5)
    again, rows = carry_out(first, step, 5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state, again)
    close(metrics.exact_score, rows.exact_score)


def test_the_rule_follows_every_second_generation():
    _, metrics = carry_out(*compiled("annealing and culling")[1:], 5)
    assert np.isfinite(metrics.strategy["kept"]).tolist() == [False, True, False, True, False]


def test_clones_go_their_own_way():
    def distinct(generations):
        state, _ = carry_out(*compiled("culling")[1:], generations)
        return len(np.unique(np.asarray(state.learners.strategy.params), axis=0))

    assert distinct(2) == 2  # the better two, and two more of the best
    assert distinct(3) == 4


@pytest.mark.slow
def test_the_rule_sees_whole_learners_with_their_controllers():
    state, _ = carry_out(*compiled("culling", make=regression)[1:], 2)
    whole = [np.asarray(x).reshape(4, -1) for x in jax.tree.leaves(state.learners.controller)]
    assert len(np.unique(np.concatenate(whole, axis=1), axis=0)) == 2


def test_several_runs_of_learners_are_one_program():
    population, _, step = compiled("culling")
    keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))
    both = runs(population, 2, capacity=4)
    noise = {"strategy.noise_std": jnp.array([[0.1, 0.2, 0.3, 0.4], [0.1] * 4])}
    start = jax.jit(both.init)(keys, noise)
    state, metrics = jax.jit(both.advance)(keys, start, np.int32(4))
    alone = jax.jit(population.init)(keys[1])
    for t in range(4):
        alone, seen = step(keys[1], alone)
        np.testing.assert_allclose(metrics.exact_score[t, 1], seen.exact_score, rtol=1e-4)
    np.testing.assert_allclose(
        state.learners.strategy.params[1], alone.learners.strategy.params, rtol=1e-4, atol=1e-5
    )
    stds = state.learners.strategy.hyper.noise_std
    assert set(np.asarray(stds[0]).tolist()) <= set(
        np.array([0.1, 0.2, 0.3, 0.4], np.float32).tolist()
    )
    assert (np.asarray(stds[1]) == np.float32(0.1)).all()


@over_rules(("annealing and culling",))
def test_every_rule_shares_a_table_of_noise_in_several_runs_on_several_devices(name):
    search = simple(noise=strategies.shared_table(2**10))
    for devices in (1, 2):
        population = learners(search, 4, RULES[name], every=2, devices=devices)
        state = jax.eval_shape(population.step, KEY, jax.eval_shape(population.init, KEY))[0]
        assert state.learners.strategy.noise.value.shape == (2**10,)
    population = learners(search, 4, RULES[name], every=2)
    keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))
    both = runs(population, 2, capacity=4)
    like = jax.eval_shape(both.init, keys, {})
    state, _ = jax.eval_shape(both.advance, keys, like, np.int32(4))
    assert state.learners.strategy.noise.value.shape == (2**10,)
    assert state.learners.strategy.params.shape[:2] == (2, 4)


def test_a_rules_key_is_no_slots():
    spy = rules.Rule(
        lambda learners, number: (),
        lambda key, memory, moved: (
            memory,
            moved,
            {"key": jax.random.key_data(key)[0].astype(jnp.float32)},
        ),
    )
    population = learners(simple(), 4, spy)
    _, metrics = jax.jit(lambda: population.step(KEY, population.init(KEY)))()
    key = stream(jax.random.fold_in(KEY, 4), 0, Stream.RULE)
    assert float(metrics.strategy["key"]) == float(jax.random.key_data(key)[0].astype(jnp.float32))


def test_the_learner_to_deploy_is_the_one_whose_incumbent_is_best():
    population, first, step = compiled("culling")
    state, _ = carry_out(first, step, 3)
    best = population.deployed(state)
    which = int(np.argmax(state.learners.incumbent.score))
    equal(best, jax.tree.map(lambda x: x[which], state.learners))
    answer = jax.jit(lambda: choose_answer(population.search, KEY, best, 4))()
    assert np.isfinite(answer.report.episode_return).all()


def test_a_table_of_noise_is_shared_and_never_copied():
    population = learners(simple(noise=strategies.shared_table(2**10)), 4, rules.culling())
    state = jax.jit(population.init)(KEY)
    assert state.learners.strategy.noise.value.shape == (2**10,)
    state = jax.eval_shape(population.step, KEY, state)[0]
    assert state.learners.strategy.noise.value.shape == (2**10,)


def test_a_culled_population_learns():
    population, first, step = compiled("culling")
    state, metrics = carry_out(first, step, 60)
    assert metrics.exact_score[0] < 5 * metrics.exact_score[-10:].mean() < 0
    assert population.deployed(state).incumbent.score > metrics.exact_score[0] / 10


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_devices_share_learners_out_and_change_rounding_alone(devices):
    expected, rows = carry_out(*compiled("annealing and culling")[1:], 3)
    shared = learners(simple(), 4, RULES["annealing and culling"], every=2, devices=devices)
    got, seen = carry_out(jax.jit(shared.init)(KEY), jax.jit(shared.step), 3)
    np.testing.assert_allclose(
        got.learners.strategy.params, expected.learners.strategy.params, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(seen.exact_score, rows.exact_score, rtol=1e-4)
    np.testing.assert_array_equal(seen.episodes, rows.episodes)


WRONG = {
    "one survivor to breed": (
        lambda: learners(simple(), 2, rules.culling(0.5, rules.bred)),
        "share must leave two of 2 learners to breed, got 0.5, which leaves 1.",
    ),
    "clones within a block of proposals": (
        lambda: learners(simple()._replace(propose_every=4), 4, rules.culling(), every=6),
        (
            "every must be a multiple of the search's propose_every, 4: a clone would change its "
            "architectures within a block, got 6."
        ),
    ),
    "one learner for culling": (
        lambda: learners(simple(), 1, rules.culling()),
        "number must be at least 2 for this rule, got 1.",
    ),
    "one learner for a pair of rules": (
        lambda: learners(simple(), 1, rules.compose(rules.annealing(), rules.swarm())),
        "number must be at least 2 for this rule, got 1.",
    ),
    "no learner": (lambda: learners(simple(), 0), "number must be at least 1, got 0."),
    "never": (
        lambda: learners(simple(), 2, rules.culling(), every=0),
        "every must be at least 1, got 0.",
    ),
    "devices that do not divide": (
        lambda: learners(simple(), 3, devices=2),
        (
            "devices can share out learners if their number is a multiple of the devices and no "
            "generation is shared out itself, got 3 learners, 2 devices and 1 shards."
        ),
    ),
    "all are culled": (
        lambda: rules.culling(1.0),
        "share must be in (0, 1), got 1.0.",
    ),
    "none is culled": (
        lambda: learners(simple(), 4, rules.culling(0.1)),
        "share must be at least 1/4 of 4 learners, got 0.1.",
    ),
    "a share of nothing": (
        lambda: rules.culling(0.0),
        "share must be in (0, 1), got 0.0.",
    ),
    "no temperature": (
        lambda: rules.annealing(0.0),
        "temperature must be a positive finite number, got 0.0.",
    ),
    "one of the temperatures is negative": (
        lambda: rules.annealing([1.0, -1.0]),
        "temperature must be a positive finite number, got -1.0.",
    ),
    "temperatures of others": (
        lambda: learners(simple(), 4, rules.annealing([1.0, 2.0])),
        "temperature must be one number, or one for each of 4 learners, got 2.",
    ),
    "a negative number of generations": (
        lambda: learners(simple(), 4).run(KEY, None, -1),
        "generations must be at least 0, got -1.",
    ),
    "no radius": (lambda: rules.tabu(0.0), "radius must be a positive finite number, got 0.0."),
    "no ring": (lambda: rules.tabu(1.0, 0), "ring_size must be at least 1, got 0."),
    "a negative pull": (
        lambda: rules.swarm(own_pull=-1.0),
        "own_pull must be finite and at least 0, got -1.0.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_gets_one_sentence(name):
    make, sentence = WRONG[name]
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - all of the sentence is compared
        make()
    assert str(raised.value) == sentence


def test_a_ring_larger_than_memory_is_refused_before_it_is_made():
    size = simple().policy.num_params
    takes = 4 * 4 * 2**40 * (size + size) / 2**30  # float32 of four learners: weights, behaviour
    with pytest.raises(
        ValueError, match=r"^ring_size must be such that the rings fit into .* GiB"
    ) as raised:
        learners(simple(), 4, rules.tabu(1.0, 2**40))
    assert f"4 learners of {size} weights take {takes:.3g} GiB." in str(raised.value)
