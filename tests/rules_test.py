"""Rules of a population of learners: by counting, by geometry, and against transcriptions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esenas_jax import controllers, es_enas, policies, rules, strategies, tasks
from esenas_jax.rules.rule import params_of, with_params

M = 6
KEY = jax.random.key(0)


@functools.cache
def search():
    task = tasks.polynomial_regression(jax.random.key(1), degree=1, batch_size=8)
    policy = policies.edge_pruned(2, (3,), 1, num_edges=5)
    return es_enas(
        policy,
        task,
        strategies.es(4, 1, 0.1, 0.2, noise=strategies.shared_table(2**10)),
        controllers.regularized_evolution(policy.space, 9),
    )


@functools.cache
def moved(number=M):
    """Learners with other weights each, that were scored 0, 1, ... and then moved a little."""
    keys = jax.random.split(KEY, number)
    init = jax.jit(search().init)
    states = [init(key) for key in keys]
    shared = states[0].strategy.noise
    stacked = jax.tree.map(
        lambda *x: jnp.stack(x),
        *(s._replace(strategy=s.strategy._replace(noise=())) for s in states),
    )
    before = stacked._replace(strategy=stacked.strategy._replace(noise=shared))
    # What a learner is shows in every part of it.
    before = before._replace(controller=jax.tree.map(_marked, before.controller))
    step = 0.01 * jax.random.normal(jax.random.key(1), params_of(before).shape)
    after = with_params(before, params_of(before) + step)
    after = after._replace(generation=after.generation + 1)
    return rules.Moved(before, after, jnp.arange(number, dtype=jnp.float32))


def _marked(x):
    number = jnp.arange(x.shape[0]).reshape((-1,) + (1,) * (x.ndim - 1))
    return jnp.broadcast_to(number, x.shape).astype(x.dtype)


def scored(*scores):
    return moved(len(scores))._replace(scores=jnp.array(scores, jnp.float32))


@functools.cache
def applying(rule):
    return jax.jit(rule.apply)


def begun(rule, state, number):
    return jax.jit(rule.init, static_argnums=1)(state, number)


def slots(state):
    """Return whose controller each slot has; raise if parts of it are of different learners."""
    marks = [np.asarray(x).reshape(x.shape[0], -1) for x in jax.tree.leaves(state.controller)]
    marks = np.concatenate([m.astype(int) for m in marks if m.size], axis=1)
    assert (marks == marks[:, :1]).all()
    return marks[:, 0].tolist()


def test_the_worse_half_becomes_clones_of_the_best_whole_and_unscored_parts_alike():
    rule = rules.culling()
    state = scored(3.0, 0.0, 5.0, 1.0, 4.0, 2.0)
    memory, new, _ = rule.apply(KEY, rule.init(state.before, M), state)
    assert memory == ()
    whose = [0, 2, 2, 2, 4, 2]
    assert slots(new.after) == whose
    assert slots(new.before) == whose
    np.testing.assert_array_equal(params_of(new.after), params_of(state.after)[np.array(whose)])
    np.testing.assert_array_equal(new.scores, state.scores[np.array(whose)])
    assert new.after.strategy.noise is state.after.strategy.noise  # the table is nobody's own


def test_survivors_are_cloned_equally_often():
    rule = rules.culling(0.5, rules.clones_of_survivors)
    state = scored(0.0, 1.0, 2.0, 3.0)
    apply = jax.jit(jax.vmap(lambda key: rule.apply(key, (), state)[1].scores))
    n = 4000
    scores = np.asarray(apply(jax.random.split(KEY, n)))
    np.testing.assert_array_equal(scores[:, 2:], np.broadcast_to([2.0, 3.0], (n, 2)))
    share = (scores[:, :2] == 3.0).mean()
    assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(2 * n)


@pytest.mark.parametrize("newcomers", [rules.bred, rules.crossed])
def test_the_bred_have_weights_of_both_parents_and_the_rest_of_the_better(newcomers):
    rule = rules.culling(0.5, newcomers)
    state = scored(0.0, 1.0, 9.0, 7.0)  # slots 2 and 3 survive, 2 is better
    _, new, _ = applying(rule)(KEY, (), state)
    assert slots(new.after) == [2, 2, 2, 3]
    better, worse = np.asarray(params_of(state.after))[[2, 3]]
    for child in np.asarray(params_of(new.after))[:2]:
        if newcomers is rules.crossed:
            from_better = child == better
            assert (from_better | (child == worse)).all()
            assert from_better.any()
            assert not from_better.all()
        else:
            # Scores 9 and 7 have a standard deviation of 1.
            share = 1 / (1 + math.exp(-2.0))
            np.testing.assert_allclose(child, share * better + (1 - share) * worse, rtol=1e-5)
    np.testing.assert_array_equal(params_of(new.after)[2:], params_of(state.after)[2:])
    np.testing.assert_array_equal(new.scores, [9.0, 9.0, 9.0, 7.0])


@pytest.mark.parametrize(
    "newcomers",
    [rules.clones_of_the_best, rules.clones_of_survivors, rules.bred, rules.crossed],
)
def test_who_failed_is_culled_first_and_is_nobodys_parent(newcomers):
    """Though its weights may be no numbers."""
    state = scored(-np.inf, 1.0, -np.inf, -np.inf)
    broken = jnp.array([True, False, True, True])[:, None]
    weights = params_of(state.after)
    state = state._replace(after=with_params(state.after, jnp.where(broken, jnp.nan, weights)))
    rule = rules.culling(0.5, newcomers)
    apply = jax.jit(jax.vmap(lambda key: rule.apply(key, (), state)[1]))
    new = apply(jax.random.split(KEY, 50))
    assert (new.scores[:, 1:] == 1.0).all()
    # Slot 0 survives, since it is the first of those that failed; nothing comes of it.
    made = np.asarray(params_of(new.after))[:, 1:]
    np.testing.assert_allclose(made, np.broadcast_to(weights[1], made.shape), rtol=1e-6)


# --- annealing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("worsening", [-1.0, 0.0, 0.3, 1.0, 3.0])
def test_moves_are_kept_with_the_probability_of_metropolis(worsening):
    n, temperature = 20_000, 0.7
    kept = rules.metropolis(KEY, jnp.full(n, worsening, jnp.float32), jnp.float32(temperature))
    p = min(1.0, math.exp(-worsening / temperature))
    assert abs(np.mean(kept) - p) <= 5 * math.sqrt(p * (1 - p) / n)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=2), st.floats(0.0625, 4, width=32))
def test_the_worse_a_move_the_more_seldom_it_is_kept(worsenings, temperature):
    low, high = sorted(worsenings)
    kept = [
        rules.metropolis(KEY, jnp.full(500, w, jnp.float32), jnp.float32(temperature))
        for w in (low, high)
    ]
    assert not (np.asarray(kept[1]) & ~np.asarray(kept[0])).any()  # the same draws: never more


def test_nothing_worse_is_kept_at_zero_and_no_nan_ever():
    worsening = jnp.array([0.0, 1e-30, jnp.nan, jnp.inf, -jnp.inf])
    kept = rules.metropolis(KEY, worsening, jnp.float32(0.0))
    assert kept.tolist() == [True, False, False, False, True]


def test_a_learner_goes_back_to_the_weights_it_kept_and_its_controller_stays():
    rule = rules.annealing(temperature=1e-6)
    first = scored(1.0, 1.0, 1.0)
    memory, new, _ = applying(rule)(KEY, begun(rule, first.before, 3), first)
    np.testing.assert_array_equal(params_of(new.after), params_of(first.after))  # nothing to go to
    before = with_params(first.after, params_of(first.after) + 1.0)
    second = rules.Moved(
        before,
        with_params(before, params_of(before) + 1.0)._replace(
            controller=jax.tree.map(lambda x: x + jnp.ones((), x.dtype), before.controller)
        ),
        jnp.array([2.0, 0.5, -jnp.inf]),
    )
    memory, new, metrics = applying(rule)(jax.random.key(3), memory, second)
    expected = np.where(
        [[True], [False], [False]], params_of(second.after), params_of(first.before)
    )
    np.testing.assert_array_equal(params_of(new.after), expected)
    np.testing.assert_array_equal(new.after.generation, second.after.generation)
    jax.tree.map(np.testing.assert_array_equal, new.after.controller, second.after.controller)
    np.testing.assert_array_equal(new.scores, [2.0, 1.0, 1.0])
    np.testing.assert_array_equal(memory.scores, [2.0, 1.0, 1.0])
    np.testing.assert_allclose(metrics["kept"], 1 / 3, rtol=1e-6)


def test_scores_that_are_nothing_but_noise_do_not_freeze_a_learner():
    """Whoever stands where it was taken back to is measured again, and stands on that score."""
    rule, state = rules.annealing(temperature=0.1), moved(2)
    apply = applying(rule)
    memory, before, kept = begun(rule, state.before, 2), state.before, []
    rng = np.random.default_rng(0)
    for t in range(400):
        after = with_params(before, params_of(before) + 0.01)
        scores = jnp.asarray(rng.normal(size=2), jnp.float32)
        memory, new, metrics = apply(jax.random.key(t), memory, rules.Moved(before, after, scores))
        before = new.after
        kept.append(float(metrics["kept"]))
    # A rejection is followed by a measurement, which is kept: it is never stuck for long.
    assert np.mean(kept[200:]) > 0.4
    assert np.abs(np.asarray(memory.scores)).max() < 4


def test_every_learner_has_its_temperature_and_it_cools():
    n = 2000
    rule = rules.annealing([0.5, 2.0] * (n // 2), cooling=lambda t: jnp.where(t > 0, 0.5, 1.0))
    state = scored(*[1.0] * 2)
    tile = functools.partial(jax.tree.map, lambda x: jnp.tile(x, (n // 2,) + (1,) * (x.ndim - 1)))
    state = state._replace(
        before=tile(_without_table(state.before)), after=tile(_without_table(state.after))
    )._replace(scores=jnp.ones(n))
    memory, _, _ = applying(rule)(KEY, begun(rule, state.before, n), state)
    elsewhere = with_params(state.before, params_of(state.before) + 1.0)
    worse = state._replace(before=elsewhere, scores=jnp.zeros(n))
    _, new, _ = applying(rule)(jax.random.key(1), memory, worse)
    kept = np.asarray(new.scores).reshape(-1, 2) == 0.0
    for j, temperature in enumerate((0.25, 1.0)):
        p = math.exp(-1.0 / temperature)
        assert abs(kept[:, j].mean() - p) <= 5 * math.sqrt(p * (1 - p) / (n // 2))


def _without_table(state):
    return state._replace(strategy=state.strategy._replace(noise=()))


# --- swarm ----------------------------------------------------------------------------------------


def test_a_swarm_without_a_step_is_the_textbooks():
    """Against a NumPy transcription of Shi and Eberhart's, on a sum of squares."""
    w, c_own, c_best, rounds = 0.7, 1.4, 1.6, 12
    rule = rules.swarm(w, c_own, c_best, step=0.0)
    state = moved(5)
    memory, x = begun(rule, state.before, 5), np.asarray(params_of(state.before), np.float64)
    v, own, own_score = np.zeros_like(x), x.copy(), np.full(5, -np.inf)
    apply = applying(rule)
    for t in range(rounds):
        key = jax.random.key(t)
        score = -(x**2).sum(axis=1)
        now = with_params(state.before, jnp.asarray(x, jnp.float32))
        ignored = with_params(state.after, jnp.asarray(x + 100.0, jnp.float32))
        memory, made, _ = apply(
            key, memory, rules.Moved(now, ignored, jnp.asarray(score, jnp.float32))
        )
        for m in range(5):
            if score[m] > own_score[m]:
                own[m], own_score[m] = x[m], score[m]
        best = own[own_score.argmax()]
        r, r_best = (np.asarray(jax.random.uniform(k, x.shape)) for k in jax.random.split(key))
        v = w * v + c_own * r * (own - x) + c_best * r_best * (best - x)
        x = x + v
        np.testing.assert_allclose(params_of(made.after), x, rtol=1e-4, atol=1e-5)
    assert own_score.max() > -(np.asarray(params_of(state.before)) ** 2).sum(axis=1).min()


def test_a_swarm_without_pulls_is_the_learners_own_steps():
    rule, state = rules.swarm(0.0, 0.0, 0.0, step=1.0), moved()
    _, new, _ = applying(rule)(KEY, begun(rule, state.before, M), state)
    np.testing.assert_allclose(params_of(new.after), params_of(state.after), rtol=1e-6, atol=1e-7)


def test_who_overflows_stands_still():
    rule, state = rules.swarm(step=1.0), moved(3)
    far = params_of(state.after).at[1].set(3e38)
    state = state._replace(
        before=with_params(state.before, params_of(state.before).at[1].set(-3e38)),
        after=with_params(state.after, far),
    )
    memory, new, _ = applying(rule)(KEY, begun(rule, state.before, 3), state)
    np.testing.assert_array_equal(params_of(new.after)[1], params_of(state.before)[1])
    assert np.isfinite(params_of(new.after)).all()
    assert np.isfinite(memory.velocity).all()


def test_nobody_is_drawn_to_where_nothing_was_scored():
    rule, state = rules.swarm(inertia=0.0, step=0.0), moved(3)
    state = state._replace(scores=jnp.full(3, -jnp.inf))
    _, new, _ = applying(rule)(KEY, begun(rule, state.before, 3), state)
    np.testing.assert_array_equal(params_of(new.after), params_of(state.before))
    near = with_params(state.after, jnp.zeros_like(params_of(state.after)))
    _, new, _ = applying(rules.apart(1.0))(KEY, (), state._replace(after=near))
    np.testing.assert_array_equal(params_of(new.after), params_of(near))


# --- tabu -----------------------------------------------------------------------------------------


def visit(rule, memory, state, places, scores=0.0):
    """Let every slot be at places [P], one after the other."""
    number = state.scores.size
    for place in places:
        here = with_params(state.before, jnp.broadcast_to(place, params_of(state.before).shape))
        score = jnp.full(number, scores, jnp.float32)
        memory, _, _ = applying(rule)(KEY, memory, rules.Moved(here, here, score))
    return memory


def test_moves_leave_a_basin_that_the_ring_covers():
    """Every place of a line through the middle is taken: a move that ends there gets out."""
    radius, state = 0.5, moved()
    size = params_of(state.before).shape[1]
    rule = rules.tabu(radius, ring_size=9)
    line = np.zeros((9, size), np.float32)
    line[:, 0] = np.linspace(-2, 2, 9)
    memory = visit(rule, begun(rule, state.before, M), state, jnp.asarray(line), scores=5.0)
    ends = np.zeros((M, size), np.float32)
    ends[:, 0] = np.linspace(-1.9, 1.9, M)
    ends[:, 1] = 0.01
    ends[-1] = line[3]  # exactly on a place
    inside = state._replace(after=with_params(state.after, jnp.asarray(ends)), scores=jnp.zeros(M))
    _, new, metrics = applying(rule)(jax.random.key(1), memory, inside)
    distance = np.linalg.norm(np.asarray(params_of(new.after))[:, None] - line[None], axis=2)
    assert (distance >= radius * (1 - 1e-5)).all()
    assert metrics["tabu"] == 1.0


def test_a_free_move_and_one_that_aspires_are_left_alone():
    radius, state = 0.5, moved(3)
    size = params_of(state.before).shape[1]
    rule = rules.tabu(radius, ring_size=4)
    memory = visit(rule, begun(rule, state.before, 3), state, jnp.zeros((1, size)), scores=1.0)
    ends = jnp.zeros((3, size)).at[:, 0].set(jnp.array([2.0, 0.1, 0.1]))
    now = state._replace(after=with_params(state.after, ends), scores=jnp.array([0.0, 0.0, 2.0]))
    _, new, metrics = applying(rule)(KEY, memory, now)
    np.testing.assert_array_equal(params_of(new.after)[np.array([0, 2])], ends[np.array([0, 2])])
    assert np.linalg.norm(params_of(new.after)[1]) >= radius
    np.testing.assert_allclose(metrics["tabu"], 1 / 3, rtol=1e-6)


def test_the_ring_forgets_the_oldest_place():
    state = moved(2)
    size = params_of(state.before).shape[1]
    rule = rules.tabu(0.5, ring_size=2)
    places = jnp.zeros((3, size)).at[:, 0].set(jnp.array([0.0, 5.0, 10.0]))
    memory = visit(rule, begun(rule, state.before, 2), state, places)
    ends = jnp.zeros((2, size)).at[:, 0].set(jnp.array([0.1, 5.1]))
    now = state._replace(after=with_params(state.after, ends), scores=jnp.full(2, -1.0))
    _, new, _ = applying(rule)(KEY, memory, now)
    pushed = (np.asarray(params_of(new.after)) != np.asarray(ends)).any(axis=1)
    assert pushed.tolist() == [False, True]


def test_distance_can_be_of_what_networks_do():
    """Weights that do nothing do not get a learner away."""
    state = moved(2)
    size = params_of(state.before).shape[1]
    rule = rules.tabu(0.5, ring_size=3, behaviour=lambda params: params[:2])
    memory = visit(rule, begun(rule, state.before, 2), state, jnp.zeros((1, size)))
    assert memory.behaviour.shape == (2, 3, 2)
    ends = jnp.zeros((2, size)).at[0, 2].set(9.0).at[1, 0].set(9.0).at[:, 1].set(0.1)
    now = state._replace(after=with_params(state.after, ends), scores=jnp.full(2, -1.0))
    _, new, _ = applying(rule)(KEY, memory, now)
    pushed = (np.asarray(params_of(new.after)) != np.asarray(ends)).any(axis=1)
    assert pushed.tolist() == [True, False]


def test_learners_stay_apart_from_the_best():
    state = scored(1.0, 3.0, 2.0, 0.0)
    y = np.array(params_of(state.after))
    y[0] = y[1]  # a clone of the best
    y[2] = y[1] + 0.01
    y[3] = y[1] + 100.0
    state = state._replace(after=with_params(state.after, jnp.asarray(y)))
    rule = rules.apart(0.5)
    _, new, metrics = applying(rule)(KEY, (), state)
    made = np.asarray(params_of(new.after))
    distance = np.linalg.norm(made - y[1], axis=1)
    np.testing.assert_allclose(distance[[0, 1, 2]], [0.5, 0.0, 0.5], rtol=1e-4)
    np.testing.assert_array_equal(made[[1, 3]], y[[1, 3]])
    np.testing.assert_allclose(metrics["near_the_best"], 0.5, rtol=1e-6)


def test_each_of_several_rules_has_a_key_of_its_own():
    """Two of a kind would throw the same dice."""

    def apply(key, memory, moved):
        return jax.random.key_data(key), moved, {}

    one = rules.Rule(lambda learners, number: (), apply, least=1)
    memory, *_ = rules.compose(one, one).apply(KEY, ((), ()), moved())
    keys = np.stack([*memory, jax.random.key_data(KEY)])
    assert len(np.unique(keys, axis=0)) == 3


def test_rules_follow_each_other_and_believe_the_ones_before():
    """Culling after annealing goes by the scores of the weights that learners are back at."""
    rule = rules.compose(rules.annealing(1e-6), rules.culling())
    first = scored(5.0, 1.0)
    memory, _, _ = applying(rule)(KEY, begun(rule, first.before, 2), first)
    elsewhere = with_params(first.before, params_of(first.before) + 1.0)
    # Slot 0 fell below slot 1, and goes back.
    second = first._replace(before=elsewhere, scores=jnp.array([0.0, 2.0]))
    _, new, metrics = applying(rule)(KEY, memory, second)
    assert slots(new.after) == [0, 0]
    np.testing.assert_array_equal(new.scores, [5.0, 5.0])
    assert set(metrics) == {"kept"}
    assert rule.least == 2
