"""Better than the released update: what is claimed of perturbations that are unused, and of
baselines by architecture."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import Population, controllers, es_enas, policies, strategies, tasks
from esenas_jax.spaces import Conditional, FloatRange, OneOf, Product, Repeat, SubsetOf
from esenas_jax.strategies import Noise, Unused

P = 4
D = 2**P
SIGMA = 0.3
# Which parameters the architectures of the two halves use, in every pair; the last by neither.
USES = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)


def all_signs() -> Noise:
    """Direction d is the d-th of all vectors of signs: a sum over directions is an expectation."""

    def sample(key, kept, direction, size):
        del key, kept
        return 2.0 * ((direction >> jnp.arange(size)) & 1).astype(jnp.float32) - 1.0

    return Noise(lambda size: (), sample)


def scores(theta, halves):
    """What all candidates score: no linear function, of the parameters that each uses alone."""
    signs = np.array(list(itertools.product([-1, 1], repeat=P)))[:, ::-1]  # [D, P]
    found = []
    for g, h in itertools.product(signs, range(halves)):
        x = np.where(USES[h], theta + SIGMA * (-1) ** h * g, 0.0)
        found.append(np.sin(3 * x.sum()) + x.prod() + (x**2 * [1, 2, 3, 4]).sum() + 5 * h)
    return jnp.asarray(found, jnp.float32)


def moved(make, unused, theta, fitness, valid=None):
    strategy = make(unused=unused)
    total = Population(chunk=4).total(strategy.num_directions)
    halves = strategy.num_perturbed // D
    uses = jnp.asarray(USES)
    valid = jnp.ones(fitness.size, bool) if valid is None else valid
    state = strategy.init(jnp.asarray(theta, jnp.float32))
    update = jax.jit(
        lambda f, v: (
            strategy.update(jax.random.key(0), state, f, v, total, lambda i: uses[i % halves])[
                0
            ].params
        )
    )
    return np.asarray(update(fitness, valid), np.float64) - np.asarray(theta, np.float32)


make_es = functools.partial(
    strategies.es, D, 0, SIGMA, 1.0, shaping=strategies.raw, noise=all_signs()
)
make_ranked = functools.partial(strategies.es, D, 0, SIGMA, 1.0, noise=all_signs())
make_ars = functools.partial(strategies.ars, D, 0, SIGMA, 1.0, noise=all_signs())
make_forward = functools.partial(
    strategies.es, D, 1, SIGMA, 1.0, shaping=strategies.raw, noise=all_signs(), antithetic=False
)
THETA = np.array([0.3, -0.5, 0.2, 0.7])


@pytest.mark.parametrize("make", [make_es, make_ranked, make_ars], ids=["raw", "z_score", "ars"])
def test_what_both_halves_use_moves_as_released_and_what_neither_does_rests(make):
    fitness = scores(THETA, 2)
    kept, zero = (moved(make, unused, THETA, fitness) for unused in (Unused.KEPT, Unused.ZERO))
    assert abs(kept[0]) > 0.01
    assert zero[0] == pytest.approx(kept[0], abs=2e-5)
    assert zero[3] == 0


def test_a_half_that_uses_a_parameter_counts_by_itself():
    """By hand: each half's score less the mean of all other directions' scores."""
    values = np.array(scores(THETA, 2), float).reshape(D, 2)
    others = (values.sum() - values.sum(axis=1)) / (2 * D - 2)
    signs = np.array(list(itertools.product([-1, 1], repeat=P)))[:, ::-1]
    weights = (values - others[:, None]) * [1, -1]
    expected = (weights @ USES * signs).sum(axis=0) / (2 * D * SIGMA)
    zero = moved(make_es, Unused.ZERO, THETA, scores(THETA, 2))
    np.testing.assert_allclose(zero, expected, atol=2e-5)


def test_forward_differences_too():
    fitness = jnp.append(scores(THETA, 1), 1.5)
    kept, zero = (
        moved(make_forward, unused, THETA, fitness) for unused in (Unused.KEPT, Unused.ZERO)
    )
    assert np.abs(kept[:2]).min() > 0.01
    np.testing.assert_allclose(zero, kept, atol=2e-5)
    assert zero[2] == zero[3] == 0


def test_a_mean_over_users_is_longer_by_one_over_their_share():
    fitness = scores(THETA, 2)
    zero, shared = (
        moved(make_es, unused, THETA, fitness) for unused in (Unused.ZERO, Unused.SHARED)
    )
    np.testing.assert_allclose(shared, zero * [1, 2, 2, 1], atol=2e-5)


def test_failed_directions_have_no_users():
    fitness = np.array(scores(THETA, 2))
    fitness[6] = np.nan
    valid = jnp.asarray(np.isfinite(fitness))
    told = jnp.asarray(np.where(np.isfinite(fitness), fitness, 1e9), jnp.float32)
    zero, shared = (
        moved(make_es, unused, THETA, told, valid) for unused in (Unused.ZERO, Unused.SHARED)
    )
    assert np.abs(zero).max() < 100
    np.testing.assert_allclose(shared, zero * [1, 2, 2, 1], atol=2e-5)


def test_less_noise_reaches_what_is_used_by_few():
    """Over random directions the released update has the larger variance where few use it."""
    strategy = {
        unused: strategies.es(8, 0, SIGMA, 1.0, unused=unused)
        for unused in (Unused.KEPT, Unused.ZERO)
    }
    space = SubsetOf(30, 3)
    total = Population().total(8)

    def step(unused, key):
        k_noise, k_space = jax.random.split(key)
        sets = space.sample(k_space, (16,))
        uses = jnp.zeros((16, 30), bool).at[jnp.arange(16)[:, None], sets].set(True)
        s = strategy[unused]
        state = s.init(jnp.zeros(30, jnp.float32))
        theta = jax.vmap(lambda i: s.candidate(k_noise, state, i))(jnp.arange(16))
        fitness = jnp.sum(jnp.where(uses, theta, 0.0), axis=1)
        new = s.update(k_noise, state, fitness, jnp.ones(16, bool), total, lambda i: uses[i])[0]
        return new.params

    keys = jax.random.split(jax.random.key(0), 400)
    both = jax.jit(jax.vmap(lambda key: [step(unused, key) for unused in strategy]))
    kept, zero = (np.asarray(x, np.float64) for x in both(keys))
    difference = (kept - zero).mean(axis=0)
    assert (np.abs(difference) < 5 * (kept - zero).std(axis=0) / 20).all()
    assert zero.mean() > 0  # the score grows with every weight that is used
    assert kept.var(axis=0).mean() > 3 * zero.var(axis=0).mean()


def test_an_unknown_way_with_the_unused_is_refused():
    with pytest.raises(
        ValueError, match=r"^unused must be one of kept, zero, shared, got 'some'\.$"
    ):
        strategies.es(unused="some")


# ----------------------------------------------------------------- baselines by architecture

SPACE = Product([SubsetOf(6, 2), Repeat(OneOf(3), 2)])


@pytest.mark.parametrize("rate", [1.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_no_rate_makes_it_unstable_where_few_architectures_carry_much(rate):
    space = Conditional([None, Repeat(OneOf(3), 100)])
    expectation = controllers.additive_expectation(space, rate)

    def learn(state, key):
        genotypes = space.sample(key, (40,))
        scores = jax.random.normal(key, (40,)) + 5.0 * genotypes.index.astype(jnp.float32)
        # One in five carries it, about.
        valid = (genotypes.index == 0) | (jnp.arange(40) < 8)
        return expectation.update(state, genotypes, scores, valid), jnp.abs(state.worth).max()

    keys = jax.random.split(jax.random.key(0), 200)
    _, largest = jax.jit(lambda s: jax.lax.scan(learn, s, keys))(expectation.init())
    assert largest.max() < 10


def test_an_additive_score_is_learnt():
    expectation = controllers.additive_expectation(SPACE, 0.5)
    rng = np.random.default_rng(0)
    edges, colours = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (6, (2, 3)))

    def score(genotype):
        return 7.0 + jnp.sum(edges[genotype[0]]) + jnp.sum(colours[jnp.arange(2), genotype[1]])

    def learn(state, key):
        genotypes = SPACE.sample(key, (60,))
        found = jax.vmap(score)(genotypes)
        error = found - expectation.foretell(state, genotypes)
        return expectation.update(state, genotypes, found, jnp.ones(60, bool)), error

    @jax.jit
    def learnt():
        keys = jax.random.split(jax.random.key(0), 150)
        others = SPACE.sample(jax.random.key(1), (200,))
        return *jax.lax.scan(learn, expectation.init(), keys), jnp.std(jax.vmap(score)(others))

    state, errors, spread = jax.device_get(learnt())
    # What is left is the generation's mean, by which each differs from the next.
    assert np.std(errors[-20:] - errors[-20:].mean(axis=1, keepdims=True)) < 0.1 * spread
    assert np.isfinite(state.worth).all()


def test_failures_teach_the_expectation_nothing():
    expectation = controllers.additive_expectation(SPACE, 0.5)
    genotypes = jax.jit(SPACE.sample, static_argnums=1)(jax.random.key(0), (9,))
    valid = jnp.arange(9) % 2 == 0

    @jax.jit
    def learnt(poison):
        scores = jnp.where(valid, jnp.arange(9, dtype=jnp.float32), poison)
        return expectation.update(expectation.init(), genotypes, scores, valid)

    states = [learnt(poison) for poison in (0.0, 1e9, jnp.nan)]
    for state in states[1:]:
        np.testing.assert_array_equal(state.worth, states[0].worth)
        assert float(state.mean) == float(states[0].mean) == 4.0


def search(**options):
    task = tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=32)
    policy = policies.edge_pruned(
        task.obs_size, (4,), task.action_size, num_edges=5, output_activation=policies.identity
    )
    return es_enas(
        policy,
        task,
        strategies.es(8, 4, 0.1, 0.05),
        controllers.regularized_evolution(policy.space, 8),
        **options,
    )


def test_the_strategy_alone_sees_scores_less_what_was_expected():
    key = jax.random.key(3)
    plain, with_baseline = search(), search(baseline_rate=0.5)
    steps = [jax.jit(s.step) for s in (plain, with_baseline)]
    first = jax.jit(with_baseline.init)(key)
    assert jax.eval_shape(plain.init, key).expectation == ()
    states = [first._replace(expectation=()), first]
    after = [step(key, state)[0] for step, state in zip(steps, states, strict=True)]
    # Nothing is expected yet.
    np.testing.assert_array_equal(after[0].strategy.params, after[1].strategy.params)
    assert after[0].expectation == ()
    assert float(jnp.abs(after[1].expectation.worth).max()) > 0
    again = [step(key, state)[0] for step, state in zip(steps, after, strict=True)]
    assert bool((again[0].strategy.params != again[1].strategy.params).any())
    # The same evaluations, in two programs that may round differently.
    for a, b in zip(*(jax.tree.leaves(s.controller) for s in again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_space_with_numbers_from_a_range_has_no_baseline():
    with pytest.raises(ValueError, match=r"^baseline_rate must be None .* got \[0, 1\]\.$"):
        controllers.additive_expectation(FloatRange(0.0, 1.0), 0.5)


# ------------------------------------------------------- what they do to the estimated gradient

ITEMS, CHOSEN, PAIRS, DRAWS = 12, 3, 2, 4000
EFFECTS = 2.0 * np.random.default_rng(3).normal(size=ITEMS).astype(np.float32)


@functools.cache
def estimates(unused=Unused.KEPT, baseline=False, shared=False):
    """Many estimates of one gradient [DRAWS, ITEMS]: architectures have effects of their own."""
    keys = jax.random.split(jax.random.key(5), DRAWS)
    return np.asarray(estimating(unused)(keys, baseline, shared), np.float64)


@functools.cache
def estimating(unused):
    space = SubsetOf(ITEMS, CHOSEN)
    strategy = strategies.es(PAIRS, 0, SIGMA, 1.0, shaping=strategies.raw, unused=unused)
    total = Population().total(PAIRS)
    theta = jnp.linspace(-1, 1, ITEMS, dtype=jnp.float32)

    def estimate(key, baseline, shared):
        k_noise, k_space = jax.random.split(key)
        sets = space.sample(k_space, (2 * PAIRS,))
        sets = jnp.where(shared, jnp.repeat(sets[::2], 2, axis=0), sets)
        uses = jax.vmap(lambda one: jnp.zeros(ITEMS, bool).at[one].set(True))(sets)
        state = strategy.init(theta)
        weights = jax.vmap(lambda i: strategy.candidate(k_noise, state, i))(jnp.arange(2 * PAIRS))
        expected = jnp.sum(jnp.where(uses, EFFECTS, 0.0), axis=1)
        fitness = jnp.sum(jnp.where(uses, jnp.sin(3.0 * weights), 0.0), axis=1) + expected
        fitness = jnp.where(baseline, fitness - expected, fitness)
        valid = jnp.ones(2 * PAIRS, bool)
        new, _ = strategy.update(k_noise, state, fitness, valid, total, lambda i: uses[i])
        return new.params - theta

    return jax.jit(jax.vmap(estimate, in_axes=(0, None, None)))


@pytest.mark.parametrize(
    "options",
    [
        {"unused": Unused.ZERO},
        {"baseline": True},
        {"shared": True},
        {"unused": Unused.ZERO, "shared": True},
    ],
    ids=["unused left out", "baseline", "pairs share", "both of them"],
)
def test_the_estimate_keeps_its_mean_and_loses_variance(options):
    """Of the released one, within 5 standard errors, with two directions a generation."""
    released, better = estimates(), estimates(**options)
    # By hand: E[sin(3 x) g] over x = theta + sigma g, and a quarter of the architectures use it.
    theta = np.linspace(-1, 1, ITEMS)
    exact = CHOSEN / ITEMS * 3 * np.cos(3 * theta) * np.exp(-0.5 * (3 * SIGMA) ** 2)
    for found in (released, better):
        error = found.std(axis=0) / np.sqrt(DRAWS)
        assert (np.abs(found.mean(axis=0) - exact) < 5 * error).all()
    assert better.var(axis=0).sum() < 0.7 * released.var(axis=0).sum()
    assert np.abs(exact).max() > 5 * error.max()


def test_a_rate_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"^baseline_rate must be in \(0, 1\], got 1\.5\.$"):
        search(baseline_rate=1.5)
