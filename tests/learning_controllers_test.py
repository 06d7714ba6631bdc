"""Controllers that learn a distribution: what they move it by, and what moves nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from esenas_jax import controllers
from esenas_jax.controllers import as_genotype
from esenas_jax.controllers.factorised import counted
from esenas_jax.controllers.policy_gradient import Averages, Info
from esenas_jax.spaces import (
    Chosen,
    Conditional,
    OneOf,
    Product,
    Repeat,
    SubsetOf,
    permutation,
)
from tests.distributions_test import PARAMETERISATIONS, SPACES, drawn, made

SPACE = Product({"edges": SubsetOf(5, 2), "colours": Repeat(OneOf(3), 2)})
LEARNERS = {
    "reinforce": controllers.reinforce,
    "ppo": functools.partial(controllers.ppo, minibatch_size=5),
    "reinforce, autoregressive": lambda space: controllers.reinforce(
        space, controllers.autoregressive(16), learning_rate=0.02
    ),
    "cross_entropy": controllers.cross_entropy,
}
N = 12
# One row for each parameterisation.
EXPECTED = (("two of three, with choices", "factorised"), ("subset", "autoregressive"))


def worth(genotype):
    """A score of every architecture, by no rule that a distribution could exploit."""
    numbers = flat(genotype).astype(jnp.float32)
    return jnp.sin(
        jnp.sum((numbers + 1.0) * (1.0 + jnp.arange(numbers.size, dtype=jnp.float32)) ** 1.5)
    )


def flat(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


# ------------------------------------------------------------------------------- reinforce


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in EXPECTED else pytest.mark.slow)
        for name in ("subset", "colours", "conditional", "two of three, with choices")
        for kind in PARAMETERISATIONS
    ],
)
def test_the_expected_step_is_the_gradient_over_all_draws(name, kind):
    """Of the expected score over the scale, and of the entropy: 5 standard errors."""
    space, beta, scale, generations = SPACES[name], 0.3, 0.7, 600
    controller = controllers.reinforce(
        space, PARAMETERISATIONS[kind], 1.0, beta, optimizer=optax.sgd
    )
    distribution, params = made(name, kind)
    state = jax.jit(controller.init)(jax.random.key(0))._replace(
        params=params,
        averages=Averages(jnp.float32(0.4), jnp.float32(scale), jnp.ones((), bool)),
    )

    def enumerated(params):
        log_probs = jax.vmap(lambda draw: distribution.log_probs(params, draw).sum())(drawn(name))
        scores = jax.vmap(lambda draw: worth(as_genotype(space, draw)))(drawn(name))
        chances = jnp.exp(log_probs)
        # The generation's own mean of log p takes 1/N of the entropy's part.
        entropy = -jnp.sum(chances * log_probs) * (1 - 1 / N)
        return jnp.sum(chances * scores) / scale + beta * entropy

    def step(key):
        plan = controller.prepare(key, state)
        keys = jax.random.split(key, N)
        genotypes, info = jax.vmap(controller.propose, (0, None, 0))(keys, plan, jnp.arange(N))
        scores = jax.vmap(worth)(genotypes)
        new, _ = controller.update(key, state, genotypes, info, scores, jnp.ones(N, bool))
        return flat(new.params) - flat(params)

    steps = np.asarray(jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(1), generations)))
    expected = np.asarray(flat(jax.jit(jax.grad(enumerated))(params)))
    error = steps.std(axis=0) / np.sqrt(generations)
    assert np.abs(expected).max() > 0.01
    assert (np.abs(steps.mean(axis=0) - expected) < 5 * error + 1e-6).all()


def generation(controller, state, key, scores=None, valid=None):
    """One generation of N candidates; the new state, the proposals, and their infos."""
    plan = controller.prepare(key, state)
    keys = jax.random.split(key, N)
    genotypes, info = jax.vmap(controller.propose, (0, None, 0))(keys, plan, jnp.arange(N))
    scores = jax.vmap(worth)(genotypes) if scores is None else jnp.asarray(scores, jnp.float32)
    valid = jnp.ones(N, bool) if valid is None else jnp.asarray(valid)
    new, metrics = controller.update(key, state, genotypes, info, scores, valid)
    return new, genotypes, info, metrics


@functools.cache
def learner(name):
    """A controller of `SPACE`, its first state, and a generation of it, compiled."""
    controller = LEARNERS[name](SPACE)
    start = jax.jit(controller.init)(jax.random.key(0))
    return controller, start, jax.jit(functools.partial(generation, controller))


def test_the_baseline_is_the_moving_average_of_earlier_generations():
    controller = controllers.reinforce(SPACE, baseline_decay=0.75)
    update = jax.jit(functools.partial(generation, controller))
    ramp, valid = np.arange(N, dtype=float), np.ones(N, bool)
    start = jax.jit(controller.init)(jax.random.key(0))
    state, *_ = update(start, jax.random.key(1), ramp, valid)
    assert float(state.averages.mean) == ramp.mean()
    assert float(state.averages.std) == pytest.approx(ramp.std())
    valid = np.arange(N) >= 4
    state, *_ = update(state, jax.random.key(2), 3 * ramp, valid)
    assert float(state.averages.mean) == pytest.approx(0.75 * 5.5 + 0.25 * 3 * ramp[4:].mean())
    assert float(state.averages.std) == pytest.approx(0.75 * ramp.std() + 0.25 * 3 * ramp[4:].std())


@pytest.mark.parametrize("name", ["reinforce", "ppo"])
def test_one_absurd_score_does_not_silence_those_that_follow(name):
    controller = LEARNERS[name](OneOf(3))
    update = jax.jit(functools.partial(generation, controller))
    ramp = np.arange(N, dtype=float)
    state = update(jax.jit(controller.init)(jax.random.key(0)), jax.random.key(1), ramp)[0]
    state = update(state, jax.random.key(2), np.where(ramp == 3, -1e30, 0.0))[0]
    learnt = (state.params, state.optimizer, state.averages)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(learnt))
    new = update(state, jax.random.key(3), ramp)[0]
    assert float(jnp.abs(new.params - state.params).max()) > 1e-3


def test_entropy_alone_keeps_proposals_apart():
    kept, lost = (controllers.reinforce(OneOf(4), entropy_weight=weight) for weight in (2.0, 0.0))
    entropies = []
    for controller in (kept, lost):

        @jax.jit
        def update(state, key, controller=controller):
            plan, keys = controller.prepare(key, state), jax.random.split(key, N)
            proposals, _ = jax.vmap(controller.propose, (0, None, 0))(keys, plan, jnp.arange(N))
            return generation(controller, state, key, (proposals == 2).astype(jnp.float32))

        state = controller.init(jax.random.key(0))
        for t in range(40):
            state, *_, metrics = update(state, jax.random.key(t))
        entropies.append(float(metrics["entropy"]))
    assert entropies[0] > 0.5 > 0.2 > entropies[1]


# ------------------------------------------------------------------------------------- ppo


def test_the_first_step_of_ppo_is_that_of_reinforce_with_normalised_advantages():
    controller = controllers.ppo(
        SPACE, learning_rate=1.0, epochs=1, minibatch_size=99, optimizer=optax.sgd
    )
    state = jax.jit(controller.init)(jax.random.key(0))
    scores = np.random.default_rng(0).normal(size=N) * 30 + 5
    valid = np.arange(N) != 3
    new, _, info, _ = jax.jit(functools.partial(generation, controller))(
        state, jax.random.key(1), np.where(valid, scores, np.nan), valid
    )
    advantage = np.where(valid, (scores - scores[valid].mean()) / scores[valid].std(), 0)
    distribution = controllers.factorised(SPACE)

    def gain(params):
        log_probs = jax.vmap(lambda draw: distribution.log_probs(params, draw).sum())(info.draw)
        return jnp.sum(jnp.asarray(advantage, jnp.float32) * log_probs) / (N - 1)

    expected = flat(jax.jit(jax.grad(gain))(state.params))
    np.testing.assert_allclose(flat(new.params) - flat(state.params), expected, atol=1e-5)


@functools.cache
def clipping():
    """A controller that stops at ratios of 0.8 and 1.2, its first state, and its update."""
    controller = controllers.ppo(OneOf(3), epochs=1, clip=0.2, learning_rate=1.0)
    return jax.jit(controller.init)(jax.random.key(0)), jax.jit(controller.update)


@pytest.mark.parametrize(
    ("ratio", "better", "moves"),
    [(1.5, True, False), (1.5, False, True), (0.5, True, True), (0.5, False, False)],
)
def test_a_ratio_beyond_the_clip_moves_nothing_that_would_take_it_further(ratio, better, moves):
    state, update = clipping()
    # Option 0 has the score in question, the other two are there to compare with.
    draw = jnp.array([0, 1, 2], jnp.int32)
    now = jnp.log(jnp.full((3, 1), 1 / 3, jnp.float32))
    # The probability of the first has come to `ratio` times what it was; others far past the clip,
    # on the side where they no longer count.
    sign = 1.0 if better else -1.0
    others = jnp.log(jnp.array([0.1, 0.1] if better else [9.0, 9.0], jnp.float32))
    then = now - jnp.append(jnp.log(jnp.float32(ratio)), others)[:, None]
    scores = jnp.array([sign, -0.5 * sign, -0.5 * sign], jnp.float32)
    new, _ = update(jax.random.key(1), state, draw, Info(draw, then), scores, jnp.ones(3, bool))
    assert bool((new.params != state.params).any()) == moves


# --------------------------------------------------------------------------- cross-entropy


def test_probabilities_move_to_the_elites_frequencies_and_keep_a_floor():
    controller = controllers.cross_entropy(SPACE, 0.25, smoothing=0.4, floor=0.1)
    state = controller.init(jax.random.key(0))
    genotypes = {
        "edges": jnp.array([[0, 1], [0, 2], [3, 4], [1, 2], [2, 3], [0, 4], [2, 4], [1, 4]]),
        "colours": jnp.array([[0, 0], [1, 2], [0, 2], [0, 1], [2, 2], [1, 1], [2, 0], [2, 1]]),
    }
    genotypes = jax.tree.map(lambda x: x.astype(jnp.int32), genotypes)
    scores = jnp.array([1, 8, 99, 2, 7, 3, 0, 4], jnp.float32)
    valid = jnp.arange(8) != 2  # two of eight: candidates 1 and 4
    new, metrics = jax.jit(controller.update)(
        jax.random.key(1), state, genotypes, (), scores, valid
    )
    assert float(metrics["elite_mean"]) == 7.5
    colours, edges = (np.asarray(x) for x in new.probabilities)
    # Shares of sets that have an item: two of five at first, those of two elites then.
    np.testing.assert_allclose(edges, 0.6 * 2 / 5 + 0.4 * np.array([1, 0, 2, 1, 0]) / 2, atol=1e-6)
    first, second = 0.6 / 3 + 0.4 * np.array([[0, 0.5, 0.5], [0, 0, 1]])
    np.testing.assert_allclose(colours, [first, second], atol=1e-6)
    of_colours, of_edges = controller.prepare(jax.random.key(2), new)
    np.testing.assert_allclose(np.exp(of_colours), 0.9 * colours + 0.1 / 3, atol=1e-6)
    weights = -np.log(1 - (0.9 * edges + 0.1 * 2 / 5))
    np.testing.assert_allclose(np.exp(of_edges), weights, rtol=1e-5)


def test_items_are_drawn_about_as_often_as_elites_have_them():
    space = SubsetOf(60, 8)
    controller = controllers.cross_entropy(space, floor=0.0)
    state = controller.init(jax.random.key(0))
    # Half of the items in no set, the others in from a tenth to half of them.
    shares = np.where(np.arange(60) < 30, np.linspace(0.1, 0.5, 60)[::-1], 0.0)
    shares *= 8 / shares.sum()
    plan = controller.prepare(
        jax.random.key(1), state._replace(probabilities=jnp.asarray(shares, jnp.float32))
    )
    keys = jax.random.split(jax.random.key(2), 20_000)
    propose = jax.jit(jax.vmap(controller.propose, (0, None, None)))
    sets, _ = propose(keys, plan, jnp.int32(0))
    found = np.bincount(np.asarray(sets).ravel(), minlength=60) / 20_000
    np.testing.assert_allclose(found, shares, atol=0.02)
    # All that elites agree on is in nearly every proposal.
    plan = controller.prepare(
        jax.random.key(1),
        state._replace(probabilities=jnp.where(jnp.arange(60) < 8, 1.0, 0.0)),
    )
    sets, _ = propose(keys, plan, jnp.int32(0))
    assert (np.asarray(sets) == np.arange(8)).all()


def test_elites_tied_at_the_border_all_count():
    controller = controllers.cross_entropy(OneOf(4), 0.25, smoothing=1.0)
    state = controller.init(jax.random.key(0))
    new, _ = jax.jit(controller.update)(
        jax.random.key(1),
        state,
        jnp.arange(4, dtype=jnp.int32),
        (),
        jnp.array([5, 1, 5, 5], jnp.float32),
        jnp.ones(4, bool),
    )
    np.testing.assert_allclose(new.probabilities, [1 / 3, 0, 1 / 3, 1 / 3], atol=1e-6)


def test_what_no_elite_was_asked_stays_as_it_is():
    space = Conditional([None, OneOf(2)])
    controller = controllers.cross_entropy(space, 0.5, smoothing=1.0)
    state, update = controller.init(jax.random.key(0)), jax.jit(controller.update)
    genotypes = Chosen(jnp.array([0, 1], jnp.int32), ((), jnp.array([0, 1], jnp.int32)))

    def told(scores):
        return update(
            jax.random.key(1), state, genotypes, (), jnp.array(scores), jnp.ones(2, bool)
        )[0].probabilities

    choice, (_, carried) = told([1.0, 0.0])
    assert (choice.tolist(), carried.tolist()) == ([1, 0], [0.5, 0.5])
    choice, (_, carried) = told([0.0, 1.0])
    assert (choice.tolist(), carried.tolist()) == ([0, 1], [0, 1])


def test_options_of_a_set_with_choices_are_counted_where_they_are_chosen():
    space = Conditional([None, OneOf(2), OneOf(3)], SubsetOf(3, 2))
    genotype = Chosen(
        jnp.array([1, 2], jnp.int32),
        ((), jnp.array([1, 0], jnp.int32), jnp.array([0, 2], jnp.int32)),
    )
    choice, (_, second, third) = counted(space, genotype)
    assert choice.tolist() == [0, 1, 1]
    assert (second.tolist(), third.tolist()) == ([0, 1], [0, 0, 1])


# ------------------------------------------------------------------------------ all of them


def every_learner(quick):
    return pytest.mark.parametrize(
        "name", [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in LEARNERS]
    )


# The factorised distribution is in PPO, too.
DISTINCT = ("ppo", "reinforce, autoregressive", "cross_entropy")


@every_learner(("ppo", "cross_entropy"))
def test_failed_candidates_teach_nothing(name):
    controller, state, update = learner(name)
    valid = np.arange(N) % 3 != 0
    scores = np.arange(N, dtype=float)
    new, proposals, *_ = zip(
        *(
            update(state, jax.random.key(1), np.where(valid, scores, poison), valid)
            for poison in (0.0, 1e9, np.nan, np.inf)
        ),
        strict=True,
    )
    for other in new[1:]:
        for a, b in zip(jax.tree.leaves(new[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)
    top, is_one = controller.best(new[0])
    order = [i for i in np.argsort(-scores) if valid[i]][:7]
    assert is_one.tolist() == [True] * 8
    for a, b in zip(jax.tree.leaves(top), jax.tree.leaves(proposals[0]), strict=True):
        np.testing.assert_array_equal(a[1:], np.asarray(b)[np.array(order)])


@every_learner(DISTINCT)
@pytest.mark.parametrize("valid", [np.ones(N, bool), np.arange(N) == 4, np.zeros(N, bool)])
def test_a_generation_of_equal_scores_changes_no_proposal(name, valid):
    controller, start, update = learner(name)
    different = np.random.default_rng(0).normal(size=N)
    state = update(start, jax.random.key(1), different, np.ones(N, bool))[0]
    new = update(state, jax.random.key(2), np.full(N, 3.0), valid)[0]
    before, after = (controller.prepare(jax.random.key(3), s) for s in (state, new))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)


@every_learner(("cross_entropy",))
def test_a_space_with_one_architecture_is_no_trouble(name):
    space = Product([OneOf(1), SubsetOf(2, 2)])
    controller = LEARNERS[name](space)
    update = jax.jit(functools.partial(generation, controller))
    start = jax.jit(controller.init)(jax.random.key(0))
    state, genotypes, *_ = update(start, jax.random.key(1), np.arange(N))
    assert np.asarray(genotypes[0]).tolist() == [0] * N
    assert np.asarray(genotypes[1]).tolist() == [[0, 1]] * N
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@every_learner(("ppo", "cross_entropy"))
def test_it_finds_what_pays(name):
    controller = LEARNERS[name](SPACE)
    wanted = {"edges": jnp.array([1, 3], jnp.int32), "colours": jnp.array([2, 0], jnp.int32)}

    def score(genotype):
        return sum(
            jnp.sum(jnp.isin(genotype[k], wanted[k]) if k == "edges" else genotype[k] == wanted[k])
            for k in wanted
        ).astype(jnp.float32)

    def step(state, key):
        plan = controller.prepare(key, state)
        genotypes, info = jax.vmap(controller.propose, (0, None, 0))(
            jax.random.split(key, 32), plan, jnp.arange(32)
        )
        scores = jax.vmap(score)(genotypes)
        return controller.update(key, state, genotypes, info, scores, jnp.ones(32, bool))[
            0
        ], scores.mean()

    keys = jax.random.split(jax.random.key(1), 60)
    state, means = jax.jit(lambda: jax.lax.scan(step, controller.init(keys[0]), keys))()
    # Uniform proposals score 2 * 2 / 5 + 2 / 3 = 1.47 of 4.
    assert means[0] < 2.2
    assert means[-1] > 2.8
    top, _ = controller.best(state)
    assert jax.tree.map(lambda x: x[0].tolist(), top) == jax.tree.map(lambda x: x.tolist(), wanted)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: controllers.reinforce(SPACE, learning_rate=0.0),
            "learning_rate must be a positive finite number, got 0.0.",
        ),
        (
            lambda: controllers.reinforce(SPACE, entropy_weight=-1.0),
            "entropy_weight must be finite and at least 0, got -1.0.",
        ),
        (
            lambda: controllers.reinforce(SPACE, baseline_decay=1.0),
            "baseline_decay must be below 1, got 1.0.",
        ),
        (
            lambda: controllers.ppo(SPACE, optimizer=optax.adam(0.1)),
            (
                "optimizer must be a function of the learning rate, optax.adam say and not "
                "optax.adam(0.1), got a GradientTransformationExtraArgs."
            ),
        ),
        (lambda: controllers.ppo(SPACE, epochs=0), "epochs must be at least 1, got 0."),
        (
            lambda: controllers.ppo(SPACE, minibatch_size=0),
            "minibatch_size must be at least 1, got 0.",
        ),
        (
            lambda: controllers.ppo(SPACE, clip=0.0),
            "clip must be a positive finite number, got 0.0.",
        ),
        (lambda: controllers.autoregressive(0), "units must be at least 1, got 0."),
        (lambda: controllers.autoregressive(groups=(2, 0)), "groups must be at least 1, got 0."),
        (
            lambda: controllers.cross_entropy(SPACE, 0.0),
            "elite_share must be in (0, 1], got 0.0.",
        ),
        (
            lambda: controllers.cross_entropy(Repeat(permutation(3), 2)),
            (
                "cross_entropy can handle no sets whose order matters, got a permutation of 3: "
                "random, hill_climbing, regularized_evolution, nsga2, reinforce and ppo can."
            ),
        ),
        (
            lambda: controllers.autoregressive(groups=(2, 2))(Repeat(OneOf(3), 5)),
            "groups must have as many decisions as a repeated choice, [5], got 4.",
        ),
        (
            lambda: controllers.cross_entropy(SPACE, smoothing=1.5),
            "smoothing must be in (0, 1], got 1.5.",
        ),
        (
            lambda: controllers.cross_entropy(SPACE, floor=-0.1),
            "floor must be in [0, 1], got -0.1.",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, message):
    with pytest.raises((TypeError, ValueError)) as raised:
        make()
    assert str(raised.value) == message
