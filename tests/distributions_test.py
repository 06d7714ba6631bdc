"""Distributions over small spaces, against everything that can be drawn from them."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import controllers
from esenas_jax.controllers import as_genotype
from esenas_jax.spaces import (
    Chosen,
    Conditional,
    FloatRange,
    OneOf,
    Product,
    Repeat,
    SubsetOf,
    permutation,
)

SPACES = {
    "one": OneOf(3),
    "subset": SubsetOf(5, 3),
    "subset, all": SubsetOf(3, 3),
    "subset of four": SubsetOf(5, 4),
    "subset in order": SubsetOf(4, 2, ordered=True),
    "permutation": permutation(3),
    "multiset": SubsetOf(3, 2, distinct=False),
    "sequence": SubsetOf(3, 2, distinct=False, ordered=True),
    "colours": Repeat(OneOf(3), 3),
    "subsets": Repeat(SubsetOf(3, 2), 2),
    "side by side": Product({"edges": SubsetOf(3, 1), "op": OneOf(2)}),
    "conditional": Conditional([None, OneOf(3), Product({"a": OneOf(2), "b": SubsetOf(3, 2)})]),
    "two of three, with choices": Conditional([None, OneOf(2), SubsetOf(3, 2)], SubsetOf(3, 2)),
    "twice one, with choices": Conditional([OneOf(2), None], SubsetOf(2, 2, distinct=False)),
    "nested": Conditional([None, Conditional([OneOf(2), None])]),
}
PARAMETERISATIONS = {
    "factorised": controllers.factorised,
    "autoregressive": controllers.autoregressive(5),
}
# Those with code of their own: the others are made of the same parts, or their borders.
DISTINCT = ("subset", "multiset", "colours", "conditional", "two of three, with choices")


def every_distribution(distinct):
    """Pair every space with every distribution; spaces outside `distinct` are slow."""
    return pytest.mark.parametrize(
        ("space", "kind"),
        [
            pytest.param(space, kind, marks=[] if space in distinct else pytest.mark.slow)
            for space in SPACES
            for kind in PARAMETERISATIONS
        ],
    )


def all_draws(space):
    """Every draw, as nested Python values with sets in all their orders."""
    match space:
        case OneOf():
            return [np.int32(i) for i in range(space.num_categories)]
        case SubsetOf(distinct=True):
            orders = itertools.permutations(range(space.num_items), space.num_chosen)
        case SubsetOf():
            orders = itertools.product(range(space.num_items), repeat=space.num_chosen)
        case Repeat():
            copies = itertools.product(all_draws(space.space), repeat=space.times)
            return [jax.tree.map(lambda *x: np.stack(x), *some) for some in copies]
        case Product():
            parts = itertools.product(*map(all_draws, space.leaves))
            return [space.structure.unflatten(some) for some in parts]
        case Conditional():
            return list(conditional_draws(space))
    return [np.array(order, np.int32) for order in orders]


def conditional_draws(space):
    empty = [
        ()
        if option is None
        else jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), all_draws(option)[0])
        for option in space.options
    ]
    for index in all_draws(space.choice):
        places = np.atleast_1d(index)
        ways = [[None] if space.options[j] is None else all_draws(space.options[j]) for j in places]
        for way in itertools.product(*ways):
            inner = [
                jax.tree.map(lambda *x: np.stack(x), *[
                    mine if chosen == j and mine is not None else nothing
                    for chosen, mine in zip(places, way, strict=True)
                ])
                for j, nothing in enumerate(empty)
            ]  # fmt: skip
            if isinstance(space.choice, OneOf):
                inner = jax.tree.map(lambda x: x[0], inner)
            yield Chosen(index, tuple(inner))


@functools.cache
def drawn(name):
    """Every draw of a space, stacked."""
    return jax.tree.map(lambda *x: np.stack(x), *all_draws(SPACES[name]))


@functools.cache
def made(name, kind):
    """A distribution, and parameters that are far from uniform."""
    distribution = PARAMETERISATIONS[kind](SPACES[name])
    leaves, structure = jax.tree.flatten(jax.jit(distribution.init)(jax.random.key(0)))
    rng = np.random.default_rng(1)
    return distribution, structure.unflatten(
        [
            jnp.asarray(x + rng.normal(scale=0.8, size=x.shape), x.dtype)
            for x in map(np.asarray, leaves)
        ]
    )


@functools.cache
def log_probs(name, kind):
    """Parameters -> the log probabilities of every draw's decisions, compiled."""
    distribution, _ = made(name, kind)
    return jax.jit(
        lambda params: jax.vmap(functools.partial(distribution.log_probs, params))(drawn(name))
    )


@functools.cache
def probabilities(name, kind):
    """The probability of every draw, float64."""
    found = log_probs(name, kind)(made(name, kind)[1])
    return np.exp(np.asarray(found, np.float64).sum(axis=1))


@functools.cache
def genotypes(name):
    """The genotypes of every draw, stacked."""
    make = jax.vmap(functools.partial(as_genotype, SPACES[name]))
    return jax.tree.map(np.asarray, jax.jit(make)(drawn(name)))


def rows(tree):
    """Trees with a leading axis as tuples of numbers."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    flat = np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)
    return [tuple(row) for row in flat.tolist()]


@every_distribution(("multiset", "colours", "two of three, with choices"))
def test_probabilities_of_all_draws_sum_to_one(space, kind):
    chances = probabilities(space, kind)
    assert (chances > 0).all()
    assert chances.sum() == pytest.approx(1, abs=1e-5)


@every_distribution(("subset", "two of three, with choices"))
def test_draws_are_as_frequent_as_their_probabilities_say(space, kind):
    number = 20_000
    distribution, params = made(space, kind)
    keys = jax.random.split(jax.random.key(2), number)

    @jax.jit
    @jax.vmap
    def draw(key):
        sample, found = distribution.sample(key, params)
        return sample, found, distribution.log_probs(params, sample)

    samples, found, again = draw(keys)
    np.testing.assert_allclose(found, again, rtol=1e-5, atol=1e-5)
    place = {row: i for i, row in enumerate(rows(drawn(space)))}
    counts = np.bincount([place[row] for row in rows(samples)], minlength=len(place))
    chances = probabilities(space, kind)
    error = np.sqrt(number * chances * (1 - chances))
    assert (np.abs(counts - number * chances) < 5 * np.maximum(error, 1)).all()


@every_distribution(("multiset", "colours", "two of three, with choices"))
def test_draws_become_genotypes_of_the_space_and_all_of_them(space, kind):
    distribution, params = made(space, kind)
    different = set(rows(genotypes(space)))
    if space != "twice one, with choices":  # whose cardinality counts unordered pairs of both
        assert len(different) == pytest.approx(math.exp(SPACES[space].log_cardinality))
    for i in range(0, len(probabilities(space, kind)), 7):
        SPACES[space].validate(jax.tree.map(lambda x, i=i: np.asarray(x[i]), genotypes(space)))
    mode = jax.jit(lambda params: as_genotype(SPACES[space], distribution.mode(params)))(params)
    SPACES[space].validate(jax.tree.map(np.asarray, mode))


@pytest.mark.parametrize("space", ["subset", "subset, all", "subset of four"])
def test_a_sets_probability_is_the_sum_over_its_orders(space):
    # Plackett-Luce by hand: each item in proportion among those that are left.
    logits = np.asarray(made(space, "factorised")[1], np.float64)
    weight = np.exp(logits)
    by_set = dict.fromkeys(itertools.combinations(range(logits.size), SPACES[space].num_chosen), 0)
    for items in by_set:
        for order in itertools.permutations(items):
            left = weight.sum() - np.cumsum([0, *weight[list(order)]])[:-1]
            by_set[items] += np.prod(weight[list(order)] / left)
    found = dict.fromkeys(by_set, 0.0)
    for draw, chance in zip(rows(drawn(space)), probabilities(space, "factorised"), strict=True):
        found[tuple(sorted(draw))] += chance
    assert found == pytest.approx(by_set, rel=1e-4)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
@pytest.mark.parametrize(
    "space",
    [
        *("colours", "conditional"),
        *(pytest.param(space, marks=pytest.mark.slow) for space in ("one", "permutation")),
    ],
)
def test_the_first_draws_are_uniform_or_nearly_so(space, kind):
    params = jax.jit(made(space, kind)[0].init)(jax.random.key(0))
    first = np.asarray(log_probs(space, kind)(params), np.float64)
    mean = first.mean(axis=0)
    if kind == "factorised" and space != "conditional":  # where every decision is asked of all
        np.testing.assert_allclose(first, np.broadcast_to(mean, first.shape), atol=1e-5)
    chances = np.exp(first.sum(axis=1))
    assert chances.max() / chances.min() < (20 if space == "conditional" else 2)


def test_decisions_of_a_group_do_not_depend_on_each_other_and_those_after_do():
    distribution = controllers.autoregressive(5, groups=(2, 1))(Repeat(OneOf(3), 3))
    params = jax.tree.map(
        lambda x: x + jax.random.normal(jax.random.key(x.size), x.shape),
        jax.jit(distribution.init)(jax.random.key(0)),
    )
    chances = jax.jit(functools.partial(distribution.log_probs, params))
    first = chances(jnp.array([0, 1, 2], jnp.int32))
    other = chances(jnp.array([2, 1, 2], jnp.int32))
    assert first[0] != other[0]
    assert first[1] == other[1]
    assert first[2] != other[2]


def test_numbers_from_a_range_are_refused_by_name():
    space = Product({"rate": FloatRange(0.0, 1.0), "op": OneOf(2)})
    for make in (controllers.reinforce, controllers.ppo, controllers.cross_entropy):
        with pytest.raises(ValueError, match=r"got \[0, 1\]: random, .* handle every space\.$"):
            make(space)
    with pytest.raises(ValueError, match=r"^An autoregressive distribution can handle choices"):
        controllers.reinforce(space, controllers.autoregressive())
