"""Controllers: which architectures they propose, and what they make of the scores."""

import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import controllers
from esenas_jax.spaces import OneOf, Product, Repeat, SubsetOf
from tests.reference import evolution

FRESH = 1_000_000
DRAWS = 20_000


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Genotypes are int32 [2] that carry a number twice. A mutant says who its parent was."""

    def sample(self, key, shape=()):
        return jnp.full((*shape, 2), FRESH, jnp.int32)

    def mutate(self, key, genotype, local=False):
        return genotype


def numbered(numbers):
    return jnp.stack([jnp.asarray(numbers, jnp.int32)] * 2, axis=1)


def sigmas(counts, probabilities):
    """How many standard deviations a chi-square is too large (Wilson and Hilferty, 1931)."""
    counts = np.asarray(counts, float)
    expected = np.asarray(probabilities, float) * counts.sum()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    freedom = possible.sum() - 1
    if freedom == 0:
        return 0.0
    counts, expected = counts[possible], expected[possible]
    statistic = np.sum((counts - expected) ** 2 / expected)
    scale = 2.0 / (9.0 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1.0 - scale)) / math.sqrt(scale)


@functools.cache
def updater(controller):
    def update(state, genotypes, info, scores, valid):
        return controller.update(jax.random.key(9), state, genotypes, info, scores, valid)

    return jax.jit(update)


def tell(controller, state, numbers, scores, valid=None):
    """Feed candidates back; returns the new state and the metrics."""
    valid = np.ones(len(numbers), bool) if valid is None else valid
    info = jnp.full(len(numbers), -1, jnp.int32)
    return updater(controller)(
        state, numbered(numbers), info, jnp.asarray(scores, jnp.float32), jnp.asarray(valid)
    )


@functools.cache
def proposer(controller, many=DRAWS):
    """(key, state) -> genotypes and info of many proposals, from one plan."""

    def propose(key, state):
        k_plan, k_candidates = jax.random.split(key)
        plan = controller.prepare(k_plan, state)
        ids = jnp.arange(many, dtype=jnp.int32)
        return jax.vmap(controller.propose, in_axes=(0, None, 0))(
            jax.random.split(k_candidates, many), plan, ids
        )

    return jax.jit(propose)


@functools.cache
def replanner(controller, many=DRAWS):
    """(key, state) -> one proposal from each of many plans."""

    def propose(key, state):
        k_plan, k_candidate = jax.random.split(key)
        return controller.propose(k_candidate, controller.prepare(k_plan, state), jnp.int32(0))

    return jax.jit(lambda key, s: jax.vmap(propose, (0, None))(jax.random.split(key, many), s))


@functools.cache
def evolution_of(population_size, tournament_size, num_best=3):
    return controllers.regularized_evolution(Numbered(), population_size, tournament_size, num_best)


# ------------------------------------------------------------- evolution: the population


@pytest.mark.parametrize("per_generation", [1, 3, 7, 20])
def test_the_population_is_that_of_the_reference(per_generation):
    size = 7
    controller = evolution_of(size, 3)
    reference = evolution.RegularizedEvolution(size, 3, None, None, np.random.default_rng(0))
    state = controller.init(jax.random.key(0))
    rng = np.random.default_rng(per_generation)
    number = 0
    for generation in range(30):
        numbers = np.arange(number, number + per_generation)
        number += per_generation
        scores = rng.integers(-4, 5, per_generation).astype(float)  # with ties
        # Failures come with scores that would win, or that spoil whatever they touch.
        valid = rng.random(per_generation) > (1.0 if generation == 11 else 0.3)
        told = np.where(valid, scores, rng.choice([1e9, np.nan, np.inf, -1e9], per_generation))
        state, metrics = tell(controller, state, numbers, told, valid)
        for i in np.flatnonzero(valid):
            reference.feedback(numbers[i], scores[i])

        members = len(reference.population)
        assert int(state.members) == members
        kept = np.asarray(state.genotypes)[size - members :].tolist()
        assert kept == [[n, n] for n, _ in reference.population]
        rewards = [reward for _, reward in reference.population]
        assert state.scores[size - members :].tolist() == rewards
        assert (np.asarray(state.scores)[: size - members] == -np.inf).all()
        assert float(metrics["population_mean"]) == pytest.approx(np.mean(rewards or [0]), 1e-6)
        assert float(metrics["population_max"]) == max(rewards, default=-np.inf)

        top, is_one = controller.best(state)
        assert is_one.tolist() == [i < members for i in range(3)]
        scored = dict(reference.population)
        best = [scored[int(n)] for n, _ in np.asarray(top)[: min(3, members)]]
        assert best == sorted(rewards, reverse=True)[:3]
        assert len({int(n) for n, _ in np.asarray(top)[: min(3, members)]}) == len(best)


@pytest.mark.parametrize("poison", [1e9, np.nan, np.inf])
def test_a_failed_candidate_is_never_parent_or_best(poison):
    controller = evolution_of(6, 2)
    state = controller.init(jax.random.key(0))
    for start in (0, 10):
        numbers = start + np.arange(5)
        valid = np.array([True, False, True, True, False])
        state, _ = tell(controller, state, numbers, np.where(valid, -1.0, poison), valid)
    expected = {0, 2, 3, 10, 12, 13}
    parents, info = replanner(controller)(jax.random.key(1), state)
    assert set(np.asarray(parents)[:, 0].tolist()) == expected
    assert (np.asarray(info) >= 0).all()
    top, is_one = controller.best(state)
    assert is_one.all()
    assert set(np.asarray(top)[:, 0].tolist()) <= expected


# --------------------------------------------------------------- evolution: the proposals


def test_proposals_are_random_until_the_population_is_full():
    controller = evolution_of(6, 2)
    state = controller.init(jax.random.key(0))
    for members in range(6):
        genotypes, info = proposer(controller, 50)(jax.random.key(members), state)
        assert (np.asarray(genotypes) == FRESH).all()
        assert (np.asarray(info) == -1).all()
        # A failure brings the end of the first phase no closer.
        failed = members % 2 == 0
        numbers, valid = [members, 99][: 1 + failed], [True, False][: 1 + failed]
        state, metrics = tell(controller, state, numbers, [1.0, 5.0][: 1 + failed], valid)
        assert float(metrics["share_random"]) == 1.0
    genotypes, info = proposer(controller, 50)(jax.random.key(6), state)
    assert set(np.asarray(genotypes)[:, 0].tolist()) <= set(range(6))
    assert (np.asarray(info) >= 0).all()


def test_the_first_phase_is_uniform_over_the_space():
    space = Product({"edges": SubsetOf(4, 2), "op": OneOf(3)})
    controller = controllers.regularized_evolution(space, 10)
    genotypes, _ = proposer(controller)(jax.random.key(0), controller.init(jax.random.key(1)))
    edges, ops = np.asarray(genotypes["edges"]).tolist(), np.asarray(genotypes["op"]).tolist()
    counts = collections.Counter((*e, op) for e, op in zip(edges, ops, strict=True))
    assert len(counts) == 18
    assert sigmas(list(counts.values()), [1 / 18] * 18) < 5


def full(controller, scores):
    """A state whose member i has the number i."""
    state = controller.init(jax.random.key(0))
    return tell(controller, state, range(len(scores)), scores)[0]


@pytest.mark.parametrize(
    ("size", "tournament"),
    [
        *((9, 3), (9, 9), (2, 2)),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((9, 2), (9, 8), (30, 5))),
    ],
)
def test_the_rank_of_a_tournaments_winner_is_hypergeometric(size, tournament):
    controller = evolution_of(size, tournament, 1)
    order = np.random.default_rng(1).permutation(size)  # order[r] has rank r
    scores = np.empty(size)
    scores[order] = -np.arange(size)
    parents, info = proposer(controller)(jax.random.key(3), full(controller, scores))
    winners = np.asarray(parents)[:, 0]
    ranks = np.argsort(order)[winners]
    np.testing.assert_array_equal(info, ranks)
    # The winner has rank r when the others come from the size - 1 - r below it.
    probabilities = [
        math.comb(size - 1 - r, tournament - 1) / math.comb(size, tournament) for r in range(size)
    ]
    assert sigmas(np.bincount(ranks, minlength=size), probabilities) < 5


def test_winners_are_as_frequent_as_in_the_reference():
    size, tournament = 8, 3
    controller = evolution_of(size, tournament)
    scores = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 1.0, 5.0]  # with ties
    ours, _ = replanner(controller)(jax.random.key(3), full(controller, scores))
    reference = evolution.RegularizedEvolution(
        size, tournament, None, lambda rng, parent: parent, np.random.default_rng(0)
    )
    for number, score in enumerate(scores):
        reference.feedback(number, score)
    a = np.bincount(np.asarray(ours)[:, 0], minlength=size)
    b = np.bincount([reference.propose() for _ in range(DRAWS)], minlength=size)
    # Two samples of one size: (a - b)^2 / (a + b) has the distribution of one cell's chi-square.
    mean = (a + b) / 2
    deviation = (a - b) / np.sqrt(2)
    assert sigmas(mean + deviation, mean / mean.sum()) < 5


@pytest.mark.parametrize("scores", [[2.0] * 6, [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]])
def test_tied_members_are_equally_likely_parents(scores):
    size, tournament = 6, 2
    controller = evolution_of(size, tournament)
    parents, _ = replanner(controller)(jax.random.key(5), full(controller, scores))
    by_rank = [math.comb(size - 1 - r, 1) / math.comb(size, 2) for r in range(size)]
    # Members with one score share the probability of the ranks that they occupy together.
    ranks = {s: [r for r, t in enumerate(sorted(scores)[::-1]) if t == s] for s in set(scores)}
    probabilities = [np.mean([by_rank[r] for r in ranks[score]]) for score in scores]
    assert sigmas(np.bincount(np.asarray(parents)[:, 0], minlength=size), probabilities) < 5


@pytest.mark.parametrize(("local", "changed"), [(False, 2 / 3), (True, 1)])
def test_a_child_is_its_parent_mutated_once(local, changed):
    # Parents differ everywhere; redrawing one of six choices of three changes it with chance 2/3.
    space = Repeat(OneOf(3), 6)
    controller = controllers.regularized_evolution(space, 3, 2, num_best=1, local=local)
    parents = jnp.stack([jnp.full(6, i, jnp.int32) for i in range(3)])
    state, _ = jax.jit(controller.update)(
        jax.random.key(0),
        jax.jit(controller.init)(jax.random.key(0)),
        parents,
        jnp.full(3, -1, jnp.int32),
        jnp.array([2.0, 1.0, 0.0], jnp.float32),
        jnp.ones(3, bool),
    )
    children, info = proposer(controller)(jax.random.key(1), state)
    distances = (np.asarray(children) != np.asarray(parents)[np.asarray(info)]).sum(axis=1)
    assert sigmas(np.bincount(distances, minlength=7), [1 - changed, changed, *[0] * 5]) < 5


def test_share_random_says_which_part_was_not_bred():
    controller = evolution_of(6, 2)
    state = controller.init(jax.random.key(0))
    info = jnp.array([-1, 0, 3, -1], jnp.int32)
    _, metrics = updater(controller)(
        state, numbered(range(4)), info, jnp.zeros(4, jnp.float32), jnp.ones(4, bool)
    )
    assert float(metrics["share_random"]) == 0.5


def test_the_default_tournament_is_the_released_one():
    # floor(sqrt(10)) = 3 of 10: the third worst wins only against the two below it.
    controller = controllers.regularized_evolution(Numbered(), 10)
    parents, info = proposer(controller)(jax.random.key(0), full(controller, -np.arange(10.0)))
    assert np.asarray(info).max() == 7
    assert np.asarray(parents)[:, 0].max() == 7


# ------------------------------------------------------------------------ constant, random


def test_constant_proposes_one_architecture_for_ever():
    space = Product({"edges": SubsetOf(6, 2), "ops": Repeat(OneOf(4), 3)})
    genotype = {"edges": np.array([1, 4], np.int32), "ops": np.array([0, 3, 3], np.int32)}
    controller = controllers.constant(space, genotype)
    state = controller.init(jax.random.key(0))
    for seed in range(3):
        proposals, info = proposer(controller, 4)(jax.random.key(seed), state)
        for name, value in genotype.items():
            assert np.asarray(proposals[name]).tolist() == [value.tolist()] * 4
        scores = jnp.arange(4, dtype=jnp.float32)
        others = jax.tree.map(jnp.zeros_like, proposals)
        state, metrics = controller.update(
            jax.random.key(0), state, others, info, scores, scores > 1
        )
        assert metrics == {}
    best, is_one = controller.best(state)
    assert is_one.tolist() == [True]
    assert jax.tree.map(lambda x: np.asarray(x)[0].tolist(), best) == jax.tree.map(
        lambda x: x.tolist(), genotype
    )


def test_constant_draws_its_architecture_when_none_is_given():
    space = SubsetOf(30, 5)
    controller = controllers.constant(space)
    drawn = [np.asarray(controller.init(jax.random.key(seed))) for seed in (0, 0, 1)]
    for genotype in drawn:
        space.validate(genotype)
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()


def test_random_proposes_uniformly_whatever_the_scores():
    controller = controllers.random(OneOf(7), num_best=2)
    state = controller.init(jax.random.key(0))
    before, _ = proposer(controller)(jax.random.key(1), state)
    state, _ = jax.jit(controller.update)(
        jax.random.key(0),
        state,
        jnp.arange(7, dtype=jnp.int32),
        (),
        jnp.array([0, 0, 0, 9, 0, 0, 0], jnp.float32),
        jnp.ones(7, bool),
    )
    after, _ = proposer(controller)(jax.random.key(1), state)
    np.testing.assert_array_equal(before, after)
    assert sigmas(np.bincount(np.asarray(before), minlength=7), [1 / 7] * 7) < 5


def test_random_offers_the_best_of_the_last_generation_that_brought_any():
    controller = controllers.random(Numbered(), num_best=4)
    state = controller.init(jax.random.key(0))
    assert controller.best(state)[1].tolist() == [False] * 4

    def offered():
        top, is_one = controller.best(state)
        return np.asarray(top)[:, 0][np.asarray(is_one)].tolist()

    # More candidates than places, failures with scores that would win.
    valid = [True, True, False, True, True, False, True]
    scores = [1.0, 5.0, 1e9, 3.0, -2.0, np.nan, 4.0]
    state, _ = tell(controller, state, range(7), scores, valid)
    assert offered() == [1, 6, 3, 0]
    # A generation in which all failed leaves them standing.
    state, _ = tell(controller, state, range(10, 17), [9.0] * 7, [False] * 7)
    assert offered() == [1, 6, 3, 0]
    # Fewer candidates than places: those of earlier generations belong to other weights.
    state, _ = tell(controller, state, [20, 21, 22], [0.0, 1e9, 2.0], [True, False, True])
    assert offered() == [22, 20]


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: evolution_of(8, 9),
            ValueError,
            "tournament_size must be in [2, 8], got 9.",
        ),
        (
            lambda: evolution_of(8, 1),
            ValueError,
            "tournament_size must be in [2, 8], got 1.",
        ),
        (
            lambda: evolution_of(8, 2.0),
            TypeError,
            "tournament_size must be an integer, got 2.0.",
        ),
        (
            lambda: evolution_of(1, None),
            ValueError,
            "population_size must be at least 2, got 1.",
        ),
        (
            lambda: evolution_of(8.0, None),
            TypeError,
            "population_size must be an integer, got 8.0.",
        ),
        (
            lambda: evolution_of(8, 2, 0),
            ValueError,
            "num_best must be at least 1, got 0.",
        ),
        (
            lambda: controllers.random(OneOf(2), 0),
            ValueError,
            "num_best must be at least 1, got 0.",
        ),
        (
            lambda: controllers.random(OneOf(2), True),
            TypeError,
            "num_best must be an integer, got True.",
        ),
        (
            lambda: controllers.constant(OneOf(2), np.array(2)),
            ValueError,
            "a choice must be in [0, 1], got 2.",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, error, message):
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == message
