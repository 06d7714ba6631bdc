"""ES and ARS: against the released updates in float64, and what failures and ties may do."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from esenas_jax import strategies
from esenas_jax.population import Population
from esenas_jax.strategies.finite_differences import Drawn
from tests.reference import ars as ars_reference
from tests.reference import es as es_reference

P, D, X = 7, 6, 3
SIGMA, STEP = 0.05, 0.3
EPS = float(np.finfo(np.float32).eps)
SHAPINGS = {
    "z_score": strategies.z_score,
    "centered_ranks": strategies.centered_ranks,
    "raw": strategies.raw,
}
RANKINGS = {"difference": strategies.largest_difference, "max": strategies.best_half}


@functools.cache
def noise_of(seed):
    """What the strategy adds along direction d, made by hand from the public noise source."""
    key = jax.random.key(seed)
    make = jax.vmap(lambda d: strategies.gaussian().sample(key, (), d, P))
    return np.asarray(make(jnp.arange(D, dtype=jnp.int32)), np.float64)


@functools.cache
def updater(strategy, chunk=4):
    """(key, theta, scores, valid) -> new theta, compiled."""
    total = Population(chunk=chunk).total(strategy.num_directions)

    def update(key, theta, scores, valid):
        return strategy.update(key, strategy.init(theta), scores, valid, total)[0].params

    return jax.jit(update)


def thetas(seed=0):
    return np.random.default_rng(100 + seed).normal(size=P).astype(np.float32)


def moved(strategy, seed, scores, valid=None, chunk=4):
    """How the parameters move, float64."""
    theta = thetas(seed)
    scores = jnp.asarray(scores, jnp.float32)
    valid = jnp.ones(scores.size, bool) if valid is None else jnp.asarray(valid)
    new = updater(strategy, chunk)(jax.random.key(seed), jnp.asarray(theta), scores, valid)
    return np.asarray(new, np.float64) - theta


def tolerance(noise, scores, gain):
    """A bound on float32's error in a step of gain * sum_d (shaped difference)_d * noise_d.

    A score's error relative to the spread of all of them is EPS * |score| / spread, a shaped score
    is a few spreads at most, and D + 4 roundings follow; the sum is then added to theta, whose last
    digit is EPS * |theta|.
    """
    scores = np.asarray(scores, np.float64)
    relative = EPS * (8 + len(noise) + np.abs(scores).max() / scores.std())
    return gain * relative * 4 * np.abs(noise).sum(axis=0).max() + 8 * EPS


def draw_scores(rng, size):
    """Scores around -40, in float32, so that both precisions see the same numbers."""
    return (rng.normal(size=size) * 10 - 40).astype(np.float32)


# ------------------------------------------------------------------------------------- es


class TiedError(Exception):
    """The reference keeps one of the directions that are tied at the border, the strategy all."""


def es_expected(
    noise,
    plus,
    minus,
    exact,
    *,
    elites,
    shaping="z_score",
    ranking="difference",
    shape_exact=True,
    double=True,
):
    """The released step, from theta = 0."""
    plus, minus, exact = (None if x is None else np.asarray(x, float) for x in (plus, minus, exact))
    pooled = (
        np.array([exact.mean()]) if exact.size and (shape_exact or minus is None) else exact[:0]
    )
    if shaping == "centered_ranks":
        halves = plus if minus is None else np.concatenate([plus, minus])
        ranks = es_reference.centered_ranks(np.concatenate([halves, pooled]))
        plus = ranks[: plus.size]
        minus = None if minus is None else ranks[plus.size : 2 * plus.size]
        pooled = ranks[halves.size :]
    if ranking == "difference" and minus is not None:
        border = np.sort(np.abs(plus - minus))[::-1]
    else:
        border = np.sort(plus if minus is None else np.maximum(plus, minus))[::-1]
    if elites < len(plus) and border[elites - 1] - border[elites] < 1e-9:
        raise TiedError
    return es_reference.es_update(
        np.zeros(P),
        noise,
        plus,
        minus,
        pooled,
        noise_std=SIGMA,
        step_size=STEP,
        estimator="forward_fd" if minus is None else "antithetic",
        num_top_directions=elites,
        ranking=ranking,
        normalize=shaping == "z_score",
        double_when_fewer=double,
    )


def es_case(antithetic, elites, shaping, ranking, *, exact=X, shape_exact=True, double=True):
    return {
        "antithetic": antithetic,
        "elites": elites,
        "shaping": shaping,
        "ranking": ranking,
        "exact": exact,
        "shape_exact": shape_exact,
        "double": double,
    }


ES_CASES = [
    *(es_case(*row) for row in itertools.product((True, False), (D, 2), SHAPINGS, RANKINGS)),
    *(
        es_case(True, elites, shaping, "difference", **quirk)
        for elites, shaping, quirk in (
            (D, "z_score", {"shape_exact": False}),
            (D, "centered_ranks", {"shape_exact": False}),
            (D, "z_score", {"double": False}),
            (2, "z_score", {"double": False}),
            (D - 1, "raw", {"double": False}),
            (D - 1, "raw", {}),
            (D, "z_score", {"exact": 0}),
            (2, "centered_ranks", {"exact": 0}),
        )
    ),
    # Forward differences have the exact mean in the shaping whatever is said, and no doubling.
    es_case(False, 2, "z_score", "difference", shape_exact=False),
    es_case(False, 2, "raw", "difference", double=False),
]


def case_id(case):
    return "-".join(f"{name}={value}" for name, value in case.items())


@functools.cache
def _es(antithetic, elites, shaping, ranking, exact, shape_exact, double):
    return strategies.es(
        D,
        exact,
        SIGMA,
        STEP,
        num_elites=elites,
        antithetic=antithetic,
        shaping=SHAPINGS[shaping],
        ranking=RANKINGS[ranking],
        shape_exact=shape_exact,
        double_when_truncated=double,
    )


def es_options(case):
    names = ("elites", "shaping", "ranking", "shape_exact", "double")
    return {name: case[name] for name in names}


def distinct(case, rng):
    """Scores whose truncation is not a tie, the first that come."""
    while True:
        scores = draw_scores(rng, (2 if case["antithetic"] else 1) * D + case["exact"])
        try:
            return scores, es_halves(case, scores)
        except TiedError:
            continue


def es_halves(case, scores):
    halves = 2 if case["antithetic"] else 1
    perturbed = scores[: halves * D].reshape(D, halves)
    parts = perturbed[:, 0], perturbed[:, 1] if halves == 2 else None, scores[halves * D :]
    es_expected(np.zeros((D, P)), *parts, **es_options(case))
    return parts


def covered(case) -> bool:
    """Whether another case has the same ranking with another shaping."""
    return case["ranking"] == "max" and case["shaping"] != "z_score"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if covered(case) else [], id=case_id(case))
        for case in ES_CASES
    ],
)
def test_es_steps_as_released(case):
    strategy = _es(**case)
    for seed in range(3):
        scores, parts = distinct(case, np.random.default_rng(seed))
        noise = noise_of(seed)
        step = moved(strategy, seed, scores)
        expected = es_expected(noise, *parts, **es_options(case))
        # Raw scores are some 40 large, shaped ones some 2: that is the last factor.
        gain = STEP / SIGMA / case["elites"] * (40 if case["shaping"] == "raw" else 1)
        np.testing.assert_allclose(step, expected, rtol=0, atol=tolerance(noise, scores, gain))
        assert np.abs(expected).max() > 100 * tolerance(noise, scores, gain)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("shaping", SHAPINGS)
@pytest.mark.parametrize("elites", [D, 2])
def test_es_goes_on_without_failed_candidates_as_if_they_had_never_been(
    antithetic, shaping, elites
):
    case = es_case(antithetic, elites, shaping, "difference")
    strategy = _es(**case)
    halves = 2 if antithetic else 1
    for seed in range(3):
        rng = np.random.default_rng(50 + seed)
        alive = np.array([0, 2, 3, 5])
        while True:
            scores = draw_scores(rng, halves * D + X)
            perturbed = scores[: halves * D].reshape(D, halves)
            minus = perturbed[alive, 1] if antithetic else None
            exact = scores[halves * D + 1 :]
            # All the survivors are kept when all were to be kept, and then nothing is doubled.
            options = es_options(case) | {"elites": min(elites, len(alive))}
            try:
                expected = es_expected(
                    noise_of(seed)[alive], perturbed[alive, 0], minus, exact, **options
                )
                break
            except TiedError:
                continue
        # One half of direction 1 fails, direction 4 in another way, and the first exact one.
        valid = np.ones(scores.size, bool)
        dead = {1: np.nan, 4: 1e9} if seed else {1: np.inf, 4: -np.inf}
        for direction, value in dead.items():
            scores[direction * halves + (direction == 1) * (halves - 1)] = value
            valid[direction * halves + (direction == 1) * (halves - 1)] = False
        scores[halves * D] = 1e30
        valid[halves * D] = False
        step = moved(strategy, seed, scores, valid)
        gain = STEP / SIGMA / options["elites"] * (40 if shaping == "raw" else 1)
        limit = tolerance(noise_of(seed), scores[valid], gain)
        np.testing.assert_allclose(step, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_a_generation_in_which_nothing_is_valid_moves_nothing(antithetic, shaping):
    strategy = _es(**es_case(antithetic, D, shaping, "difference"))
    scores = np.full(strategy.num_candidates, np.nan)
    assert not moved(strategy, 0, scores, np.zeros(scores.size, bool)).any()


def test_forward_differences_without_a_valid_exact_evaluation_move_nothing():
    for shaping in SHAPINGS:
        strategy = _es(**es_case(False, D, shaping, "difference"))
        scores = draw_scores(np.random.default_rng(0), D + X)
        valid = np.arange(D + X) < D
        assert not moved(strategy, 0, scores, valid).any()


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_equal_scores_move_nothing_in_es(antithetic, shaping):
    # Values and numbers of exact evaluations whose float32 mean need not be the value.
    for exact in (3, 10):
        case = es_case(antithetic, D, shaping, "difference", exact=exact)
        strategy = _es(**case)
        for value in (0.1, -3.3, 1e6 / 3, 0.0):
            assert not moved(strategy, 0, np.full(strategy.num_candidates, value)).any(), value


def test_all_directions_tied_at_the_border_are_kept():
    # |v+ - v-| is 4, 2, 2, 2, 0, 0 and the two largest are asked for: four are kept.
    plus = np.array([4, 1, 0, 3, 5, 6], float)
    minus = np.array([0, 3, 2, 1, 5, 6], float)
    scores = np.concatenate([np.stack([plus, minus], axis=1).ravel(), np.zeros(X)])
    strategy = _es(**es_case(True, 2, "raw", "difference"))
    kept = slice(0, 4)
    weights = (plus - minus)[kept] / (4 * SIGMA)  # doubled: fewer than all were asked for
    expected = STEP * weights @ noise_of(0)[kept]
    np.testing.assert_allclose(
        moved(strategy, 0, scores), expected, rtol=0, atol=tolerance(noise_of(0), scores, 40 * STEP)
    )


# ------------------------------------------------------------------------------------- ars


@functools.cache
def _ars(elites=D, exact=X):
    return strategies.ars(D, exact, SIGMA, STEP, num_elites=elites)


def ars_scores(plus, minus, exact=X):
    pairs = np.stack([plus, minus], axis=1).ravel()
    return np.concatenate([pairs, np.full(exact, 1e4)])  # far away: it must not matter


@pytest.mark.parametrize("elites", [1, 3, D])
def test_ars_steps_as_in_its_code(elites):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        plus, minus = draw_scores(rng, D), draw_scores(rng, D)
        noise = noise_of(seed)
        expected = ars_reference.ars_update(
            np.zeros(P), noise, plus, minus, num_elites=elites, step_size=STEP
        )
        step = moved(_ars(elites), seed, ars_scores(plus, minus))
        # The spread is that of the kept scores, at worst of one pair.
        top = np.argsort(np.maximum(plus, minus))[-elites:]
        kept = np.concatenate([plus[top], minus[top]])
        np.testing.assert_allclose(
            step, expected, rtol=0, atol=tolerance(noise, kept, STEP / elites)
        )


def test_ars_keeps_all_directions_tied_at_the_border():
    rng = np.random.default_rng(0)
    plus, minus = rng.integers(0, 3, (2, D)).astype(float)
    best = np.sort(np.maximum(plus, minus))[::-1]
    assert best[1] == best[2]
    expected = ars_reference.ars_update(
        np.zeros(P), noise_of(0), plus, minus, num_elites=2, step_size=STEP
    )
    step = moved(_ars(2), 0, ars_scores(plus, minus))
    limit = tolerance(noise_of(0), np.concatenate([plus, minus]), STEP)
    np.testing.assert_allclose(step, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("elites", [3, D])
def test_ars_goes_on_without_failed_candidates_as_if_they_had_never_been(elites):
    alive = np.array([0, 2, 3, 5])
    for seed, poison in enumerate((np.nan, np.inf, 1e9)):
        rng = np.random.default_rng(seed)
        plus, minus = draw_scores(rng, D), draw_scores(rng, D)
        noise = noise_of(seed)
        expected = ars_reference.ars_update(
            np.zeros(P), noise[alive], plus[alive], minus[alive], num_elites=elites, step_size=STEP
        )
        scores = ars_scores(plus, minus)
        valid = np.ones(scores.size, bool)
        for i in (2, 9):  # the plus half of direction 1, the minus half of direction 4
            scores[i], valid[i] = poison, False
        step = moved(_ars(elites), seed, scores, valid)
        limit = tolerance(noise, plus, 2 * STEP / min(elites, len(alive)))
        np.testing.assert_allclose(step, expected, rtol=0, atol=limit)
    nothing = moved(_ars(elites), 0, np.full(2 * D + X, np.nan), np.zeros(2 * D + X, bool))
    assert not nothing.any()


@pytest.mark.parametrize("elites", [3, D])
def test_equal_scores_move_nothing_in_ars(elites):
    for value in (0.1, -3.3, 1e6 / 3, 0.0):
        assert not moved(_ars(elites), 0, np.full(2 * D + X, value)).any()


def test_ars_does_not_learn_from_exact_evaluations():
    scores = ars_scores(*draw_scores(np.random.default_rng(0), (2, D)))
    others = scores.copy()
    others[2 * D :] = [-5.0, 3.0, 8.0]
    some_failed = np.arange(2 * D + X) != 2 * D
    first = moved(_ars(), 0, scores)
    np.testing.assert_array_equal(first, moved(_ars(), 0, others))
    np.testing.assert_array_equal(first, moved(_ars(), 0, scores, some_failed))
    assert first.any()


# --------------------------------------------------------------------------------- shaping


@pytest.mark.parametrize("seed", range(4))
def test_shapings_of_valid_entries_are_the_reference_and_zero_elsewhere(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, 12).astype(np.float32)  # with ties
    valid = rng.random(12) < 0.7
    assert len(set(values[valid])) < valid.sum()
    poisoned = jnp.asarray(np.where(valid, values, [np.nan, np.inf, -np.inf, 1e30] * 3), "float32")
    wanted = values[valid].astype(float)
    expected = {
        strategies.z_score: (wanted - wanted.mean()) / wanted.std(),
        strategies.centered_ranks: es_reference.centered_ranks(wanted),
        strategies.raw: wanted,
    }
    for shaping, inside in expected.items():
        shaped = np.asarray(shaping(poisoned, jnp.asarray(valid)))
        np.testing.assert_allclose(shaped[valid], inside, rtol=16 * EPS, atol=16 * EPS)
        assert (shaped[~valid] == 0).all()


@pytest.mark.parametrize("number", [0, 1, 5])
def test_shaping_a_plateau_gives_exactly_zero(number):
    valid = jnp.arange(5) < number
    for shaping in (strategies.z_score, strategies.centered_ranks):
        shaped = shaping(jnp.where(valid, jnp.float32(0.1), jnp.nan), valid)
        assert shaped.tolist() == [0.0] * 5


# ------------------------------------------------------------------------------ candidates


@pytest.mark.parametrize("antithetic", [True, False])
def test_candidates_are_the_parameters_plus_and_minus_their_noise_or_exact(antithetic):
    strategy = _es(**es_case(antithetic, D, "raw", "max"))
    halves = 2 if antithetic else 1
    assert strategy.num_perturbed == halves * D
    assert strategy.num_candidates == halves * D + X
    theta = thetas()
    state = strategy.init(jnp.asarray(theta))
    ids = jnp.arange(strategy.num_candidates, dtype=jnp.int32)
    make = jax.jit(jax.vmap(lambda i: strategy.candidate(jax.random.key(3), state, i)))
    candidates = np.asarray(make(ids))
    pairs = np.asarray(jax.vmap(strategy.pair)(ids)).tolist()
    for i in range(strategy.num_perturbed):
        sign = -1 if antithetic and i % 2 else 1
        expected = theta + sign * SIGMA * noise_of(3)[i // halves]
        np.testing.assert_allclose(candidates[i], expected, rtol=2 * EPS, atol=2 * EPS)
        assert pairs.count(pairs[i]) == halves
        assert pairs[i] == pairs[i // halves * halves]
    np.testing.assert_array_equal(candidates[strategy.num_perturbed :], [theta] * X)
    assert len(set(pairs)) == D + X


@functools.cache
def each_candidate(antithetic):
    """Return a strategy, a state, and the parameters of every candidate, made one by one."""
    strategy = strategies.es(D, X, SIGMA, STEP, antithetic=antithetic)
    state, one = strategy.init(jnp.asarray(thetas())), jax.jit(strategy.candidate)
    ids = range(2 * D + X)  # some are beyond the last
    made = [np.asarray(one(jax.random.key(3), state, jnp.int32(i))) for i in ids]
    return strategy, state, np.stack(made)


@pytest.mark.parametrize(
    "ids",
    [
        [0, 1, 2, 3, 4, 5],
        [4, 5, 12, 13],
        [1, 2, 3, 4],
        [0, 1, 2, 4],
        [3],
        [0, 1, 2],
        [[0, 1], [4, 5]],
        [[4, 5], [12, 13]],
        [[12, 13], [14, 14]],
    ],
    ids=[
        "some",
        "some and exact",
        "cut pairs",
        "one pair cut",
        "one",
        "odd",
        "pairs",
        "pairs and exact",
        "padding",
    ],
)
@pytest.mark.parametrize("antithetic", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_several_candidates_are_each_of_them_to_rounding(antithetic, ids):
    strategy, state, each = each_candidate(antithetic)
    several = jax.jit(strategy.candidates)(jax.random.key(3), state, jnp.array(ids, jnp.int32))
    # Another program may contract the product and the sum to one rounding.
    np.testing.assert_allclose(several, each[np.array(ids)], rtol=2 * EPS, atol=EPS * SIGMA)


@pytest.mark.parametrize("antithetic", [True, False])
def test_noise_that_is_drawn_ahead_is_the_noise_that_would_be_drawn(antithetic):
    strategy, state, each = each_candidate(antithetic)
    prepared = jax.jit(strategy.prepare, static_argnums=2)(jax.random.key(3), state, 4 * D * P)
    assert prepared.noise.block.shape == (D, P)
    np.testing.assert_array_equal(prepared.params, state.params)
    ids = jnp.arange(len(each), dtype=jnp.int32)  # exact ones too, and some beyond the last
    several = jax.jit(strategy.candidates)(jax.random.key(4), prepared, ids)  # its key is not used
    np.testing.assert_allclose(several, each, rtol=2 * EPS, atol=EPS * SIGMA)

    @jax.jit
    def after(key, source):
        fitness = jnp.arange(strategy.num_candidates, dtype=jnp.float32)
        total = Population(chunk=4).total(D)
        return strategy.update(key, state, fitness, fitness >= 0, total, None, source)[0]

    by_itself, from_drawn = after(jax.random.key(3), state), after(jax.random.key(4), prepared)
    assert jax.tree.structure(from_drawn) == jax.tree.structure(by_itself)
    np.testing.assert_allclose(from_drawn.params, by_itself.params, rtol=1e-6)
    assert not np.array_equal(by_itself.params, state.params)


def test_noise_is_drawn_ahead_where_that_is_costly_and_a_block_fits():
    def is_drawn(noise, most_bytes):
        strategy = strategies.es(8, 1, noise=noise)
        made = jax.eval_shape(
            lambda params: strategy.prepare(jax.random.key(0), strategy.init(params), most_bytes),
            jax.ShapeDtypeStruct((1000,), jnp.float32),
        )
        return isinstance(made.noise, Drawn)

    assert is_drawn(strategies.gaussian(), 4 * 8 * 1000)
    assert not is_drawn(strategies.gaussian(), 4 * 8 * 1000 - 1)
    assert not is_drawn(strategies.gaussian(), 0)
    for cheap in (strategies.shared_table(), strategies.rademacher(), strategies.hadamard()):
        assert not is_drawn(cheap, 4 * 8 * 1000)


def test_noise_is_standard_normal_and_its_own_in_every_direction():
    many = jax.jit(jax.vmap(lambda d: strategies.gaussian().sample(jax.random.key(1), (), d, 40)))
    noise = np.asarray(many(jnp.arange(500, dtype=jnp.int32)), np.float64)
    n = noise.size
    assert abs(noise.mean()) < 5 / np.sqrt(n)
    assert abs((noise**2).mean() - 1) < 5 * np.sqrt(2 / n)
    # Neighbouring directions, and neighbouring entries, are uncorrelated.
    for a, b in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:])):
        assert abs((a * b).mean()) < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("strategy", [_ars(), _es(**ES_CASES[0])])
def test_hyperparameters_are_read_from_the_state(strategy):
    scores = jnp.asarray(draw_scores(np.random.default_rng(0), 2 * D + X))
    valid = jnp.ones(scores.size, bool)
    total = Population().total(D)
    factory = strategies.ars if strategy is _ars() else strategies.es
    other = factory(D, X, 2 * SIGMA, 3 * STEP)
    theta, key = jnp.asarray(thetas()), jax.random.key(0)
    state = strategy.init(theta)
    hyper = state.hyper._replace(noise_std=jnp.float32(2 * SIGMA), step_size=jnp.float32(3 * STEP))
    changed, wanted = state._replace(hyper=hyper), other.init(theta)
    np.testing.assert_array_equal(
        strategy.candidate(key, changed, jnp.int32(3)), other.candidate(key, wanted, jnp.int32(3))
    )
    new, old = (
        s.update(key, state_, scores, valid, total)[0].params
        for s, state_ in ((strategy, changed), (other, wanted))
    )
    np.testing.assert_array_equal(new, old)


# -------------------------------------------------------------------- total and optimisers


@pytest.mark.parametrize("chunk", [1, 2, 4, D, 64])
def test_total_counts_every_direction_once_whatever_the_chunk(chunk):
    total = Population(chunk=chunk).total(D)
    weights = 2.0 ** np.arange(D)
    ones, weighted = jax.jit(
        lambda: total(lambda d: (jax.nn.one_hot(d, D), jnp.asarray(weights, jnp.float32)[d]))
    )()
    assert ones.tolist() == [1.0] * D
    assert float(weighted) == weights.sum()


@pytest.mark.parametrize("strategy", [_ars(), _es(**ES_CASES[0])])
def test_the_chunk_of_the_total_changes_a_step_only_by_rounding(strategy):
    scores = draw_scores(np.random.default_rng(0), 2 * D + X)
    steps = [moved(strategy, 0, scores, chunk=chunk) for chunk in (1, 4, D, 64)]
    # Only the order of D additions differs.
    limit = 2 * D * EPS * np.abs(steps[0]).max() * D + 2 * EPS * np.abs(thetas()).max()
    for step in steps[1:]:
        np.testing.assert_allclose(step, steps[0], rtol=0, atol=limit)


OPTIMIZERS = {
    "adam": optax.adam,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "weight_decay": functools.partial(optax.adamw, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("relaxed_promotion")
def test_any_optax_optimiser_takes_the_steps_it_takes_by_hand(name):
    strategy = strategies.es(D, X, SIGMA, STEP, optimizer=OPTIMIZERS[name])
    total = Population().total(D)
    update = jax.jit(lambda key, state, f: strategy.update(key, state, f, f == f, total))
    state = strategy.init(jnp.asarray(thetas()))
    by_hand = OPTIMIZERS[name](STEP)
    params = jnp.asarray(thetas())
    optimizer_state = by_hand.init(params)
    for seed in range(3):
        scores = draw_scores(np.random.default_rng(seed), 2 * D + X)
        pairs = scores[: 2 * D].reshape(D, 2)
        ascent = es_reference.es_update(
            np.zeros(P),
            noise_of(seed),
            pairs[:, 0],
            pairs[:, 1],
            scores[2 * D :],
            noise_std=SIGMA,
            step_size=1.0,
        )
        before = params
        step, optimizer_state = by_hand.update(
            jnp.asarray(-ascent, jnp.float32), optimizer_state, params
        )
        params = optax.apply_updates(params, step)
        state, metrics = update(jax.random.key(seed), state, jnp.asarray(scores))
        # Steps are at most some STEP * ascent long, of which float32 keeps 1 in 10^5 here.
        np.testing.assert_allclose(state.params, params, rtol=1e-4, atol=1e-4)
        assert np.abs(np.asarray(params - before)).max() > 0.02
        np.testing.assert_allclose(metrics["update_norm"], jnp.linalg.norm(step), rtol=1e-4)


def test_fitness_is_maximised():
    # Scores that grow with the first parameter push it up, in both strategies.
    for strategy in (_ars(), _es(**ES_CASES[0])):
        theta = jnp.asarray(thetas())
        state = strategy.init(theta)
        ids = jnp.arange(strategy.num_candidates, dtype=jnp.int32)
        key = jax.random.key(0)
        candidates = jax.vmap(lambda i, s=strategy: s.candidate(key, state, i))(ids)  # noqa: B023
        assert moved(strategy, 0, candidates[:, 0])[0] > 0.1


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("factory", [strategies.es, strategies.ars])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"noise_std": 0.0}, ValueError, "noise_std must be a positive finite number, got 0.0."),
        ({"noise_std": -1}, ValueError, "noise_std must be a positive finite number, got -1."),
        ({"noise_std": float("nan")}, ValueError, "noise_std must be finite, got nan."),
        ({"noise_std": float("inf")}, ValueError, "noise_std must be finite, got inf."),
        ({"noise_std": "0.1"}, TypeError, "noise_std must be a number, got '0.1'."),
        ({"noise_std": True}, TypeError, "noise_std must be a number, got True."),
        ({"step_size": 0.0}, ValueError, "step_size must be a positive finite number, got 0.0."),
        ({"step_size": float("nan")}, ValueError, "step_size must be finite, got nan."),
        ({"num_directions": 0}, ValueError, "num_directions must be at least 1, got 0."),
        ({"num_directions": 8.0}, TypeError, "num_directions must be an integer, got 8.0."),
        ({"num_exact": -1}, ValueError, "num_exact must be at least 0, got -1."),
        (
            {"num_directions": 8, "num_elites": 9},
            ValueError,
            "num_elites must be in [1, 8], got 9.",
        ),
        (
            {"num_directions": 8, "num_elites": 0},
            ValueError,
            "num_elites must be in [1, 8], got 0.",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(factory, arguments, error, message):
    with pytest.raises(error) as raised:
        factory(**arguments)
    assert str(raised.value) == message


def test_numbers_of_numpy_are_numbers():
    state = strategies.es(np.int64(8), np.int32(1), noise_std=np.float32(0.25)).init(jnp.zeros(3))
    assert state.hyper.noise_std == 0.25


def test_forward_differences_without_exact_evaluations_are_refused():
    with pytest.raises(ValueError, match="num_exact must be at least 1, got 0"):
        strategies.es(D, 0, antithetic=False)


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (
            optax.adam(0.1),
            "optimizer must be a function of the step size, optax.adam say and not optax.adam(",
        ),
        (
            optax.polyak_sgd,
            "optimizer must be a function from a step size to an optax optimiz",
        ),
        (lambda: optax.sgd(0.1), "optimizer must be a function from a step size to an optax opti"),
    ],
)
def test_an_optimizer_that_cannot_be_used_is_refused_before_it_is_used(optimizer, sentence):
    for make in (strategies.es, strategies.ars):
        with pytest.raises(TypeError) as raised:
            jax.eval_shape(make(4, 1, optimizer=optimizer).init, jnp.zeros(3))
        assert str(raised.value).startswith(sentence)


def test_an_optimizer_may_know_how_many_parameters_there_are():
    each = jnp.arange(3.0)
    slower = optax.stateless(lambda updates, params: updates * each)
    made = strategies.ars(4, 1, optimizer=lambda rate: optax.chain(slower, optax.adam(rate)))
    assert made.init(jnp.zeros(3)).params.shape == (3,)
