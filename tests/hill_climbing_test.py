"""Hill climbing: what it proposes, and when it moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import controllers, es_enas, policies, strategies, tasks
from esenas_jax.spaces import OneOf, Product, Repeat, SubsetOf
from tests.controllers_test import DRAWS, Numbered, numbered, proposer, sigmas, tell


@functools.cache
def climbing(num_incumbents=2):
    return controllers.hill_climbing(Numbered(), num_incumbents)


def begun(controller, number=0, score=1.0):
    """A state whose incumbent has that number and score."""
    return tell(controller, controller.init(jax.random.key(0)), [number], [score])[0]


def incumbent(state):
    first, second = np.asarray(state.genotype).tolist()
    assert first == second
    return first, float(state.score)


# ----------------------------------------------------------------------------- proposals


def test_the_first_generation_is_uniform():
    controller = controllers.hill_climbing(OneOf(7))
    state = controller.init(jax.random.key(1))
    drawn, _ = proposer(controller)(jax.random.key(0), state)
    assert sigmas(np.bincount(np.asarray(drawn), minlength=7), [1 / 7] * 7) < 5
    assert controller.best(state)[1].tolist() == [False]
    # It goes on until a candidate has a score.
    failed = jax.jit(controller.update)(
        jax.random.key(0), state, drawn[:3], (), jnp.full(3, jnp.nan), jnp.zeros(3, bool)
    )[0]
    again, _ = proposer(controller)(jax.random.key(0), failed)
    np.testing.assert_array_equal(again, drawn)


@pytest.mark.parametrize("num_incumbents", [0, pytest.param(1, marks=pytest.mark.slow), 5])
def test_the_first_candidates_run_the_incumbent_and_the_others_its_mutants(num_incumbents):
    # A local mutation changes one of six choices of three, and always does.
    controller = controllers.hill_climbing(Repeat(OneOf(3), 6), num_incumbents, local=True)
    parent = jnp.arange(6, dtype=jnp.int32) % 3
    state, _ = jax.jit(controller.update)(
        jax.random.key(0),
        jax.jit(controller.init)(jax.random.key(0)),
        parent[None],
        (),
        jnp.ones(1, jnp.float32),
        jnp.ones(1, bool),
    )
    children, _ = proposer(controller, 300)(jax.random.key(1), state)
    distances = (np.asarray(children) != np.asarray(parent)).sum(axis=1)
    assert distances.tolist() == [0] * num_incumbents + [1] * (300 - num_incumbents)


def test_mutants_are_those_of_pygloves_mutator_by_default():
    # One of six choices of three is redrawn: with chance 1/3 it comes out as it was.
    controller = controllers.hill_climbing(Repeat(OneOf(3), 6), 0)
    parent = jnp.zeros((1, 6), jnp.int32)
    one = jnp.ones(1, jnp.float32)
    start = jax.jit(controller.init)(jax.random.key(0))
    state, _ = jax.jit(controller.update)(jax.random.key(0), start, parent, (), one, one > 0)
    children, _ = proposer(controller)(jax.random.key(1), state)
    changed = (np.asarray(children) != 0).sum(axis=1)
    assert sigmas(np.bincount(changed, minlength=3), [1 / 3, 2 / 3, 0]) < 5


# ------------------------------------------------------------------------------ climbing


def test_it_moves_to_the_best_that_did_not_fail():
    controller = climbing()
    state = begun(controller)
    for poison in (1e9, np.nan, np.inf):
        valid = [True, True, True, False, True]
        after, metrics = tell(controller, state, [0, 0, 5, 6, 7], [1, 1, 2, poison, 3], valid)
        assert incumbent(after) == (7, 3.0)
        assert (metrics["climbed"], metrics["incumbents"]) == (1, 2)
        top, is_one = controller.best(after)
        assert (np.asarray(top).tolist(), is_one.tolist()) == ([[7, 7]], [True])
    after, metrics = tell(controller, state, [0, 0, 5], [1, 1, 0.5])
    assert incumbent(after) == (0, 1.0)
    assert metrics["climbed"] == 0


def test_one_lucky_score_does_not_reign_for_ever():
    lucky = begun(climbing(), number=4, score=9.0)
    # The two candidates that run it again score 1 and 3: it is worth 2 now.
    after, _ = tell(climbing(), lucky, [4, 4, 5], [1.0, 3.0, 1.5])
    assert incumbent(after) == (4, 2.0)
    after, _ = tell(climbing(), lucky, [4, 4, 5], [1.0, 3.0, 2.5])
    assert incumbent(after) == (5, 2.5)
    # Its score is the latest, not a mean over all: the weights have moved on.
    after, _ = tell(climbing(), tell(climbing(), lucky, [4, 4], [1.0, 3.0])[0], [4, 4], [5.0, 6.0])
    assert incumbent(after) == (4, 5.5)
    # As released it stands.
    after, _ = tell(climbing(0), begun(climbing(0), 4, 9.0), [4, 4, 5], [1.0, 3.0, 2.5])
    assert incumbent(after) == (4, 9.0)


def test_as_released_it_is_the_best_ever_seen():
    controller, rng = climbing(0), np.random.default_rng(0)
    state, best = controller.init(jax.random.key(0)), (None, -np.inf)
    for generation in range(20):
        numbers, scores = 5 * generation + np.arange(5), rng.normal(size=5).astype(np.float32)
        state, _ = tell(controller, state, numbers, scores)
        best = max([best, *zip(numbers.tolist(), scores.tolist(), strict=True)], key=lambda x: x[1])
        assert incumbent(state) == best


def test_a_mutant_that_came_out_as_it_was_is_the_incumbent_once_more():
    after, metrics = tell(climbing(), begun(climbing()), [0, 0, 0, 8], [1.0, 2.0, 9.0, 3.5])
    assert metrics["incumbents"] == 3
    assert incumbent(after) == (0, 4.0)


def test_an_incumbent_whose_evaluations_all_failed_keeps_its_score():
    valid = [False, False, True]
    after, _ = tell(climbing(), begun(climbing()), [0, 0, 8], [np.nan, 9.0, 0.5], valid)
    assert incumbent(after) == (0, 1.0)
    after, _ = tell(climbing(), begun(climbing()), [0, 0, 8], [np.nan, 9.0, 1.5], valid)
    assert incumbent(after) == (8, 1.5)
    after, _ = tell(climbing(), begun(climbing()), [0, 0, 8], [9.0, 9.0, 9.0], [False] * 3)
    assert incumbent(after) == (0, 1.0)


@pytest.mark.parametrize("num_incumbents", [0, 2])
def test_equal_scores_move_nothing(num_incumbents):
    controller = climbing(num_incumbents)
    after, metrics = tell(controller, begun(controller), [0, 0, 5, 6], [1.0] * 4)
    assert incumbent(after) == (0, 1.0)
    assert metrics["climbed"] == 0


def test_among_equal_mutants_each_is_as_likely():
    controller, state = climbing(), begun(climbing())
    numbers, scores = numbered([0, 5, 6, 7, 8]), jnp.array([1.0, 3, 2, 3, 3], jnp.float32)

    def chosen(key):
        return controller.update(key, state, numbers, (), scores, jnp.ones(5, bool))[0].genotype[0]

    found = jax.jit(jax.vmap(chosen))(jax.random.split(jax.random.key(2), DRAWS))
    assert sigmas(np.bincount(np.asarray(found), minlength=9)[5:], [1 / 3, 0, 1 / 3, 1 / 3]) < 5


def climbed(controller, fitness, generations, candidates):
    """Climb; returns the incumbent's fitness after every generation."""

    def step(state, key):
        k_plan, k_propose, k_update = jax.random.split(key, 3)
        plan, ids = controller.prepare(k_plan, state), jnp.arange(candidates, dtype=jnp.int32)
        keys = jax.random.split(k_propose, candidates)
        genotypes, info = jax.vmap(controller.propose, (0, None, 0))(keys, plan, ids)
        scores = jax.vmap(fitness)(genotypes)
        valid = jnp.ones(candidates, bool)
        state, _ = controller.update(k_update, state, genotypes, info, scores, valid)
        return state, fitness(state.genotype)

    keys = jax.random.split(jax.random.key(1), generations)
    return jax.jit(lambda: jax.lax.scan(step, controller.init(jax.random.key(0)), keys)[1])()


@pytest.mark.parametrize("local", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_finds_a_hidden_subset(local):
    # 8 of 60, found by random search with chance 1 / 2.6e9 a candidate.
    hidden = jnp.arange(3, 59, 7, dtype=jnp.int32)

    def fitness(genotype):
        return jnp.sum(jnp.isin(genotype, hidden), dtype=jnp.float32)

    seen = climbed(controllers.hill_climbing(SubsetOf(60, 8), local=local), fitness, 60, 40)
    assert (np.diff(seen) >= 0).all()
    assert seen[-1] == 8


ALONE = [OneOf(1), Repeat(OneOf(1), 3), Product([SubsetOf(4, 4)])]


@pytest.mark.parametrize(
    ("space", "local"),
    [
        *((ALONE[0], True), (ALONE[2], False)),
        *(
            pytest.param(ALONE[i], local, marks=pytest.mark.slow)
            for i, local in ((0, False), (1, False), (1, True), (2, True))
        ),
    ],
)
def test_a_space_of_one_architecture_is_climbed_in_place(space, local):
    seen = climbed(
        controllers.hill_climbing(space, local=local),
        lambda genotype: sum(jnp.sum(x) for x in jax.tree.leaves(genotype)).astype(jnp.float32),
        3,
        4,
    )
    assert len(set(np.asarray(seen).tolist())) == 1


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^num_incumbents must be at least 0, got -1\.$"):
        controllers.hill_climbing(OneOf(2), -1)
    with pytest.raises(TypeError, match=r"^num_incumbents must be an integer, got 1\.5\.$"):
        controllers.hill_climbing(OneOf(2), 1.5)
    policy = policies.edge_pruned(2, (4,), 1, num_edges=4)
    with pytest.raises(ValueError, match="must be at most the 2 pairs where the halves of each"):
        es_enas(
            policy,
            tasks.SingleShot(2, 1, lambda key, network, apply: tasks.single_score(jnp.zeros(()))),
            strategies.es(2, 4),
            controllers.hill_climbing(policy.space, 3),
            shared_architecture=True,
        )
