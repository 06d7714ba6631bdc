"""NSGA-II: its proposals, who survives, and the front that it offers."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import controllers, es_enas, objectives, policies, strategies, tasks
from esenas_jax.spaces import Conditional, FloatRange, OneOf, Product, Repeat, SubsetOf
from tests.controllers_test import DRAWS, FRESH, Numbered, numbered, proposer, replanner, sigmas
from tests.reference import nsga2 as reference


@dataclasses.dataclass(frozen=True)
class Crossing(Numbered):
    """A child has the first number of one parent and the second of the other."""

    def crossover(self, key, first, second):
        return jnp.stack([first[0], second[1]])


@functools.cache
def nsga2(size, num_incumbents=0, crossover_rate=0.0, num_best=16):
    return controllers.nsga2(
        Crossing(),
        size,
        crossover_rate=crossover_rate,
        num_incumbents=num_incumbents,
        num_best=num_best,
    )


@functools.cache
def started(controller):
    return jax.jit(controller.init)(jax.random.key(0))


@functools.cache
def updater(controller):
    return jax.jit(controller.update)


@functools.cache
def chooser(controller):
    return jax.jit(controller.best)


def tell(controller, state, numbers, scores, valid=None, info=None, key=9):
    """Feed candidates back; returns the new state and the metrics."""
    number = len(numbers)
    return updater(controller)(
        jax.random.key(key),
        state,
        numbered(numbers),
        jnp.asarray(np.full(number, -1) if info is None else info, jnp.int32),
        jnp.asarray(scores, jnp.float32),
        jnp.ones(number, bool) if valid is None else jnp.asarray(valid),
    )


def full(controller, scores):
    """A state whose members are numbered like their scores."""
    return tell(controller, started(controller), range(len(scores)), scores)[0]


def population(state):
    """{number: scores} of the members."""
    places = int(state.members)
    assert (np.asarray(state.scores)[places:] == -np.inf).all()
    first, second = np.asarray(state.genotypes)[:places].T
    assert (first == second).all()
    return dict(zip(first.tolist(), np.asarray(state.scores)[:places].tolist(), strict=True))


# ---------------------------------------------------------------------------- survival


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("per_generation", [3, 8, 20])
def test_the_population_is_that_of_the_reference(per_generation, ties):
    size, rng = 8, np.random.default_rng(per_generation)
    controller = nsga2(size)
    state, expected = started(controller), {}
    for generation in range(12):
        numbers = generation * per_generation + np.arange(per_generation)
        scores = rng.normal(size=(per_generation, 2)).astype(np.float32)
        scores = np.round(scores) if ties else scores
        valid = rng.random(per_generation) > (1.0 if generation == 4 else 0.3)
        told = np.where(valid[:, None], scores, rng.choice([1e9, np.nan, np.inf, -1e9]))
        state, metrics = tell(controller, state, numbers, told, valid)
        everyone = expected | {n: scores[i].tolist() for i, n in enumerate(numbers) if valid[i]}
        names = list(everyone)
        keys = dict(zip(names, ranked([everyone[n] for n in names]), strict=True))
        kept = reference.survivors([everyone[n] for n in names], size)
        found = population(state)
        # Both ends of a front have the same distance: which of them is last is a matter of luck;
        # of several with an end's value, which is the end.
        compared = slice(1 if ties else 2)
        assert sorted(keys[n][compared] for n in found) == sorted(
            keys[names[i]][compared] for i in kept
        )
        expected = {n: everyone[n] for n in found}
        assert found == expected
        fronts = reference.fast_non_dominated_sort(list(expected.values()))
        assert metrics["front_size"] == (len(fronts[0]) if fronts else 0)
        highest = max((s[0] for s in expected.values()), default=-np.inf)
        assert metrics["population_max"] == highest


def test_equals_survive_at_random():
    controller = nsga2(4)
    state = full(controller, [[1.0, 1.0]] * 4)
    scores, valid = jnp.ones((4, 2), jnp.float32), jnp.ones(4, bool)

    def kept(key):
        none = jnp.full(4, -1, jnp.int32)
        after, _ = controller.update(key, state, numbered([4, 5, 6, 7]), none, scores, valid)
        return after.genotypes[:, 0]

    found = jax.jit(jax.vmap(kept))(jax.random.split(jax.random.key(1), DRAWS))
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
    # Four of eight each time: the counts of a draw are negatively correlated, 1 - 4 / 8 as varied.
    assert sigmas(np.bincount(np.ravel(found), minlength=8), [1 / 8] * 8) < 5


def test_of_copies_one_is_ranked_and_the_rest_comes_last():
    controller = controllers.nsga2(OneOf(5), 4, num_incumbents=0)
    empty, update = started(controller), updater(controller)
    # An architecture three times with equal scores, its equal, and two that are dominated.
    numbers, none = jnp.array([0, 0, 0, 1, 2, 3], jnp.int32), jnp.full(6, -1, jnp.int32)
    scores = jnp.array([[2, 2], [2, 2], [2, 2], [2, 2], [1, 1], [0, 0]], jnp.float32)
    told = (numbers, none, scores, jnp.ones(6, bool))
    state, metrics = update(jax.random.key(1), empty, *told)
    assert sorted(state.genotypes.tolist()) == [0, 1, 2, 3]
    assert metrics["front_size"] == 2
    # With other scores it is one more estimate of its architecture, and stays.
    told = (numbers, none, scores.at[1].set(jnp.array([3.0, 1.0])), told[3])
    state, _ = update(jax.random.key(1), empty, *told)
    assert sorted(state.genotypes.tolist()) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "space",
    [
        pytest.param(Repeat(OneOf(2), 40), marks=pytest.mark.slow),
        SubsetOf(60, 8),
        Product({"gain": FloatRange(-1.0, 1.0), "kind": Conditional([None, FloatRange(0.0, 0.5)])}),
    ],
)
def test_copies_are_those_that_are_the_same_in_every_value(space):
    # Uniform ones and their copies, in any order, and all with the same scores.
    controller = controllers.nsga2(space, 600, num_incumbents=0)

    @jax.jit
    def ranked_together(key):
        once = space.sample(key, (300,))
        twice = jax.random.permutation(jax.random.key(1), jnp.arange(600, dtype=jnp.int32) % 300)
        genotypes = jax.tree.map(lambda x: x[twice], once)
        none, scores = jnp.full(600, -1, jnp.int32), jnp.ones((600, 2), jnp.float32)
        state, valid = controller.init(jax.random.key(2)), jnp.ones(600, bool)
        _, metrics = controller.update(jax.random.key(3), state, genotypes, none, scores, valid)
        return once, metrics

    once, metrics = ranked_together(jax.random.key(0))
    rows = np.concatenate(
        [np.asarray(x).reshape(300, -1).astype(np.float64) for x in jax.tree.leaves(once)], axis=1
    )
    assert metrics["front_size"] == len(np.unique(rows, axis=0))


# --------------------------------------------------------------------------- proposals


def test_proposals_are_random_until_the_population_is_full():
    controller = nsga2(4, num_incumbents=2)
    state = started(controller)
    assert not chooser(controller)(state)[1].any()
    for members in range(4):
        genotypes, info = proposer(controller, 20)(jax.random.key(members), state)
        assert (np.asarray(genotypes) == FRESH).all()
        assert (np.asarray(info) == -1).all()
        # A failure brings the end of the first phase no closer.
        state, _ = tell(controller, state, [members, 99], [[1, 2]] * 2, [True, False])
        assert int(state.members) == members + 1
    genotypes, _ = proposer(controller, 20)(jax.random.key(6), state)
    assert set(np.ravel(genotypes).tolist()) <= set(range(4))


def ranked(scores):
    """What members are compared by, the highest first: (-rank, crowding distance) of each."""
    key = {}
    for rank, front in enumerate(reference.fast_non_dominated_sort(scores)):
        distance = reference.crowding_distance_assignment([scores[i] for i in front])
        key |= {i: (-rank, d) for i, d in zip(front, distance, strict=True)}
    return [key[i] for i in range(len(scores))]


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.slow), 9])
def test_a_parent_wins_a_binary_tournament_by_rank_and_crowding(size):
    scores = np.random.default_rng(5).normal(size=(size, 2))
    keys = ranked(scores.tolist())
    # Of two different members the better wins, and of equals each as often.
    wins = [sum((a > b) + (a == b) / 2 for b in keys) - 1 / 2 for a in keys]
    expected = np.array(wins) / math.comb(size, 2)
    controller = nsga2(size)
    parents, info = replanner(controller)(jax.random.key(3), full(controller, scores))
    assert sigmas(np.bincount(np.asarray(parents)[:, 0], minlength=size), expected) < 5
    assert (np.asarray(info) == -1).all()


def test_both_parents_of_a_child_are_drawn_and_crossed_as_often_as_asked():
    controller = nsga2(9, crossover_rate=0.25)
    state = full(controller, np.random.default_rng(5).normal(size=(9, 2)))
    mother, father = np.asarray(replanner(controller)(jax.random.key(3), state)[0]).T
    chances = np.bincount(np.asarray(mother), minlength=9) / DRAWS
    # Crossed, and by two different winners.
    expected = 0.25 * (1 - np.sum(chances**2))
    deviation = math.sqrt(expected * (1 - expected) / DRAWS)
    assert abs(np.mean(mother != father) - expected) < 6 * deviation  # the chances are estimates


@pytest.mark.parametrize(
    ("local", "changed"), [pytest.param(False, 2 / 3, marks=pytest.mark.slow), (True, 1)]
)
def test_a_child_is_mutated_once(local, changed):
    # Parents differ everywhere; redrawing one of six choices of three changes it with chance 2/3.
    controller = controllers.nsga2(
        Repeat(OneOf(3), 6), 3, crossover_rate=0.0, num_incumbents=0, local=local
    )
    parents = jnp.stack([jnp.full(6, i, jnp.int32) for i in range(3)])
    state, _ = updater(controller)(
        jax.random.key(0),
        started(controller),
        parents,
        jnp.full(3, -1, jnp.int32),
        jnp.array([[2, 0], [1, 1], [0, 2]], jnp.float32),
        jnp.ones(3, bool),
    )
    children = np.asarray(proposer(controller)(jax.random.key(1), state)[0])
    distances = 6 - np.max([(children == i).sum(axis=1) for i in range(3)], axis=0)
    assert sigmas(np.bincount(distances, minlength=7), [1 - changed, changed, *[0] * 5]) < 5


# ------------------------------------------------------------------- evaluated once more


def test_members_run_again_each_a_different_one():
    controller = nsga2(6, num_incumbents=4)
    state = full(controller, np.random.default_rng(0).normal(size=(6, 2)))
    seen = set()
    for key in range(20):
        genotypes, info = proposer(controller, 10)(jax.random.key(key), state)
        info = np.asarray(info)
        assert (info[4:] == -1).all()
        assert len(set(info[:4].tolist())) == 4
        np.testing.assert_array_equal(genotypes[:4], state.genotypes[info[:4]])
        seen |= set(info[:4].tolist())
    assert seen == set(range(6))


def test_what_a_member_scores_again_replaces_what_it_had():
    controller = nsga2(4, num_incumbents=2)
    state = full(controller, [[9, 1], [5, 5], [1, 9], [0, 0]])
    place = {n: i for i, n in enumerate(np.asarray(state.genotypes)[:, 0].tolist())}
    # 0 was lucky; 1 runs twice, as both halves of a pair do that share an architecture.
    told = [[1, 1], [4, 6], [6, 8], [99, 99]]
    info, valid = [place[n] for n in (0, 1, 1, 2)], [True, True, True, False]
    after, metrics = tell(controller, state, [0, 1, 1, 2], told, valid, info)
    assert population(after) == {0: [1, 1], 1: [5, 7], 2: [1, 9], 3: [0, 0]}
    assert metrics["incumbents"] == 3


def test_a_member_is_scored_again_whatever_its_place():
    controller = nsga2(4, num_incumbents=4)
    state = full(controller, [[9, 1], [5, 5], [1, 9], [0, 0]])
    members = np.asarray(state.genotypes)[:, 0].tolist()
    told = [[10 + n, 20 - n] for n in members]
    after, metrics = tell(controller, state, members, told, info=range(4))
    assert population(after) == dict(zip(members, told, strict=True))
    assert metrics["incumbents"] == 4


def test_who_is_no_longer_in_the_place_comes_in_as_a_new_one():
    controller = nsga2(4, num_incumbents=2)
    state = full(controller, [[9, 1], [5, 5], [1, 9], [0, 0]])
    after, metrics = tell(controller, state, [7], [[6, 6]], info=[0])
    assert population(after) == {0: [9, 1], 7: [6, 6], 2: [1, 9], 1: [5, 5]}
    assert metrics["incumbents"] == 0


# --------------------------------------------------------------------------------- best


def front_of(controller, state):
    top, is_one = chooser(controller)(state)
    return np.asarray(top)[:, 0][np.asarray(is_one)].tolist()


def test_best_is_the_first_front_by_the_first_objective():
    controller = nsga2(7)
    scores = [[1, 5], [5, 1], [3, 3], [2, 3], [3, 3], [0, 6], [3, 2]]
    found = front_of(controller, full(controller, scores))
    assert found in ([1, 2, 4, 0, 5], [1, 4, 2, 0, 5])  # equals, but of other architectures


def test_of_a_large_front_those_with_the_most_room_are_offered():
    # Evenly spaced but for a crowd around 5: both ends, then the widest gaps.
    x = np.array([0.0, 2.0, 4.8, 4.9, 5.0, 5.1, 8.0, 10.0])
    controller = nsga2(8, num_best=4)
    state = full(controller, np.stack([x, -x], axis=1))
    # Room in units of the span: 2 has 0.48, 8 has 0.49, 5.1 has 0.3, 4.8 has 0.29.
    assert front_of(controller, state) == [7, 6, 1, 0]


# ------------------------------------------------------------------------------ learning


VALUES = jnp.array([9, 1, 7, 3, 12, 2, 5, 8, 4, 11, 6, 10], jnp.float32)


def evolve(controller, generations, candidates=40):
    """Maximise (value, -items) of a subset; returns the last state and all scores seen."""

    def score(genotype):
        chosen = genotype.astype(jnp.float32)
        return jnp.stack([chosen @ VALUES, -jnp.sum(chosen)])

    def step(state, key):
        k_plan, k_propose, k_update = jax.random.split(key, 3)
        plan, ids = controller.prepare(k_plan, state), jnp.arange(candidates, dtype=jnp.int32)
        keys = jax.random.split(k_propose, candidates)
        genotypes, info = jax.vmap(controller.propose, (0, None, 0))(keys, plan, ids)
        scores, valid = jax.vmap(score)(genotypes), jnp.ones(candidates, bool)
        state, _ = controller.update(k_update, state, genotypes, info, scores, valid)
        return state, scores

    keys = jax.random.split(jax.random.key(1), generations)
    return jax.jit(lambda: jax.lax.scan(step, controller.init(jax.random.key(0)), keys))()


@pytest.mark.parametrize("num_incumbents", [pytest.param(0, marks=pytest.mark.slow), None])
def test_it_finds_the_whole_front(num_incumbents):
    # The front of 4,096 subsets is the k most valuable items, for every k.
    best = np.concatenate([[0], np.cumsum(np.sort(np.asarray(VALUES))[::-1])])
    front = {(float(v), -float(k)) for k, v in enumerate(best)}
    controller = controllers.nsga2(Repeat(OneOf(2), 12), 40, num_incumbents=num_incumbents)
    state, seen = evolve(controller, 60)
    top, is_one = chooser(controller)(state)
    found = {
        (float(x @ np.asarray(VALUES)), -float(x.sum()))
        for x in np.asarray(top)[np.asarray(is_one)]
    }
    assert found == front
    assert int(is_one.sum()) == 13
    # Not by chance: 40 uniform draws, the first generation, hold few of them.
    assert len(front & set(map(tuple, np.asarray(seen[0]).tolist()))) < 4


@pytest.mark.parametrize(
    "space", [pytest.param(OneOf(1), marks=pytest.mark.slow), Product([SubsetOf(4, 4)])]
)
def test_a_space_of_one_architecture_has_a_front_of_one(space):
    controller = controllers.nsga2(space, 4)
    state = started(controller)
    for key in range(3):
        genotypes, info = proposer(controller, 5)(jax.random.key(key), state)
        scores = jnp.ones((5, 2), jnp.float32)
        state, _ = updater(controller)(
            jax.random.key(key), state, genotypes, info, scores, jnp.ones(5, bool)
        )
    top, is_one = jax.tree.map(np.asarray, chooser(controller)(state))
    assert is_one.sum() == 1
    space.validate(jax.tree.map(lambda x: x[is_one.argmax()], top))


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population_size": 1}, "population_size must be at least 2, got 1."),
        ({"num_objectives": 1}, "num_objectives must be at least 2, got 1."),
        ({"crossover_rate": 1.5}, "crossover_rate must be in [0, 1], got 1.5."),
        ({"num_incumbents": 9}, "num_incumbents must be in [0, 8], got 9."),
        ({"num_incumbents": -1}, "num_incumbents must be in [0, 8], got -1."),
        ({"num_best": 0}, "num_best must be at least 1, got 0."),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        controllers.nsga2(OneOf(2), **({"population_size": 8} | arguments))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("make", "objective", "wanted", "got"),
    [
        (lambda space: controllers.nsga2(space, 8), objectives.shifted_return(), 1, 2),
        (lambda space: controllers.nsga2(space, 8, 3), objectives.pareto(), 2, 3),
        (controllers.random, objectives.pareto(), 2, 1),
    ],
)
def test_a_controller_that_maximises_something_else_is_refused(make, objective, wanted, got):
    policy = policies.edge_pruned(3, (), 1, num_edges=2)
    message = (
        f"^the controller must maximise as many numbers as the objective gives it, {wanted}, got "
        rf"one that maximises {got}\.$"
    )
    with pytest.raises(ValueError, match=message):
        es_enas(
            policy,
            tasks.episodes(tasks.pendulum()),
            strategies.es(4, 2),
            make(policy.space),
            objective=objective,
        )
