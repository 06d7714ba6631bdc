"""Spaces against PyGlove itself: what is in them, how they mutate, and the way there and back."""

import collections
import dataclasses
import functools
import itertools
import json
import math
import random

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pyglove as pg
import pytest

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
from esenas_jax.spaces.pyglove import dumps, from_dna, from_pyglove, loads, to_dna, to_pyglove
from tests.spaces_test import compare, sigmas
from tests.support.compiling import jit_as_shipped
from tests.support.exact_chances import chances

FEW, MANY = 4_000, 20_000


def many(k, candidates, distinct, in_order):
    return pg.manyof(k, candidates, choices_distinct=distinct, choices_sorted=not in_order)


def make_templates():
    return {
        "set": pg.sublist_of(2, range(4), choices_sorted=True),
        "sequence": many(2, range(4), distinct=True, in_order=True),
        "multiset": many(3, range(3), distinct=False, in_order=False),
        "digits": many(2, range(3), distinct=False, in_order=True),
        "permutation": pg.permutate(range(3)),
        "one conditional": pg.oneof([0, pg.oneof(range(3)), pg.Dict(a=pg.oneof([1, 2]), b=0)]),
        "nested": pg.Dict(
            first=pg.oneof([pg.oneof([1, pg.oneof([2, 3])]), 5]),
            rest=pg.List([pg.oneof([True, False]), pg.oneof([True, False])]),
        ),
        "conditional set": many(
            2, [pg.oneof([0, 1]), 7, pg.sublist_of(2, range(3), choices_sorted=True)], True, False
        ),
        "conditional multiset": many(2, [pg.oneof([0, 1]), 7], distinct=False, in_order=False),
        "conditional sequence": pg.Dict(
            x=many(2, [pg.oneof([0, 1]), 7, 8], distinct=True, in_order=True), y=pg.oneof([1, 2])
        ),
        "conditional permutation": pg.permutate([pg.oneof([0, 1]), 7]),
    }


TEMPLATES = make_templates()
over_templates = pytest.mark.parametrize("name", TEMPLATES)
# A set, a multiset, a permutation, and choices that carry choices.
DISTINCT = (
    *("set", "multiset", "permutation"),
    *("nested", "conditional set", "conditional permutation"),
)


def over_draws(names):
    """Few draws of spaces that have code of their own, and many of all."""
    return pytest.mark.parametrize(
        ("name", "draws"),
        [
            *((name, FEW) for name in names if name in DISTINCT),
            *(pytest.param(name, MANY, marks=pytest.mark.slow) for name in names),
        ],
    )


@functools.cache
def translation(name):
    return from_pyglove(TEMPLATES[name])


@functools.cache
def all_dnas(name):
    return list(translation(name).spec.iter_dna())


def rows(genotypes):
    """Genotypes with a leading axis as rows of numbers."""
    return np.concatenate(
        [np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(genotypes)], axis=1, dtype=np.float64
    )


def frozen(genotype):
    """A genotype as something that can be counted."""
    return tuple(rows(jax.tree.map(lambda x: np.asarray(x)[None], genotype))[0].tolist())


def counted(numbers):
    """How often each row is there."""
    found, counts = np.unique(numbers, axis=0, return_counts=True)
    return collections.Counter(dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True)))


@functools.cache
def family(name, draws):
    """Draws, mutants, local mutants and children, compiled once a space."""
    space = translation(name).space

    def one(key, first, second):
        keys = jax.random.split(key, 4)
        return (
            space.sample(keys[0]),
            space.mutate(keys[1], first),
            space.mutate(keys[2], first, local=True),
            space.crossover(keys[3], first, second),
        )

    return jax.jit(
        lambda key, first, second: jax.vmap(one)(jax.random.split(key, draws), first, second)
    )


def several(genotype, draws):
    return jax.tree.map(lambda x: np.broadcast_to(x, (draws, *np.shape(x))), genotype)


@functools.cache
def drawn(name, draws):
    """Samples, their mutants, local mutants, and children with other samples."""
    make = family(name, draws)
    any_one = several(from_dna(translation(name).space, all_dnas(name)[0]), draws)
    first, *_ = make(jax.random.key(0), any_one, any_one)
    second, *_ = make(jax.random.key(1), any_one, any_one)
    _, *made = make(jax.random.key(2), first, second)
    return (first, second, *made)


# ------------------------------------------------------------------------------- the same space


@over_templates
def test_the_arrays_are_exactly_pygloves_architectures(name):
    made = translation(name)
    everything = {frozen(made.from_dna(dna)): dna for dna in all_dnas(name)}
    assert len(everything) == len(all_dnas(name)) == made.spec.space_size
    assert math.exp(made.space.log_cardinality) == pytest.approx(made.spec.space_size)
    # Of all arrays with entries from one below the smallest choice to one above the largest,
    # `validate` accepts those and no others.
    like = made.from_dna(all_dnas(name)[0])
    leaves, structure = jax.tree.flatten(like)
    size = sum(np.size(x) for x in leaves)
    values = range(-1, 5) if size <= 5 else range(3)
    accepted = set()
    for flat in itertools.product(values, repeat=size):
        parts = np.split(np.array(flat, np.int32), np.cumsum([np.size(x) for x in leaves])[:-1])
        genotype = structure.unflatten(
            [part.reshape(np.shape(x)) for part, x in zip(parts, leaves, strict=True)]
        )
        try:
            made.space.validate(genotype)
        except ValueError:
            continue
        accepted.add(frozen(genotype))
    assert accepted == set(everything)


@over_draws(TEMPLATES)
def test_every_draw_mutant_and_child_is_one_of_them(name, draws):
    made = translation(name)
    everything = {frozen(made.from_dna(dna)) for dna in all_dnas(name)}
    for genotypes in drawn(name, draws):
        assert all(x.dtype in (jnp.int32, jnp.float32) for x in jax.tree.leaves(genotypes))
        assert set(counted(rows(genotypes))) <= everything
    assert set(counted(rows(drawn(name, draws)[0]))) == everything


@over_draws(["multiset", "nested", "conditional set", "conditional multiset"])
def test_draws_are_distributed_as_pygloves(name, draws):
    made = translation(name)
    likely = chances(
        lambda rng: frozen(made.from_dna(pg.random_dna(made.spec, rng, attach_spec=False)))
    )
    compare(counted(rows(drawn(name, draws)[0])), likely)


@over_templates
def test_what_is_active_is_what_pyglove_asks(name):
    made = translation(name)
    stacked = jax.tree.map(lambda *x: np.stack(x), *(made.from_dna(dna) for dna in all_dnas(name)))
    together = jax.tree.leaves(jax.jit(made.space.active)(stacked))
    for i, dna in enumerate(all_dnas(name)):
        genotype = made.from_dna(dna)
        active = made.space.active(genotype)
        assert jax.tree.structure(active) == jax.tree.structure(genotype)
        assert sum(np.sum(x) for x in jax.tree.leaves(active)) == len(dna.to_numbers())
        for x, on, row in zip(*map(jax.tree.leaves, (genotype, active)), together, strict=True):
            assert isinstance(on, np.ndarray | np.bool_)
            assert not np.any(x[~on])
            np.testing.assert_array_equal(on, row[i])


# ------------------------------------------------------------------------------------- mutation


@over_draws(TEMPLATES)
def test_mutants_are_distributed_as_pygloves(name, draws):
    made = translation(name)
    # Architectures that have as much below their choices as there is, and as little.
    most = max(all_dnas(name), key=lambda dna: len(dna.to_numbers()))
    least = min(reversed(all_dnas(name)), key=lambda dna: len(dna.to_numbers()))
    for parent in (most, least):
        genotype = several(made.from_dna(parent), draws)
        _, mutants, _, _ = family(name, draws)(jax.random.key(10), genotype, genotype)
        compare(counted(rows(mutants)), chances(pygloves_mutant(made, parent)))


@functools.cache
def with_numbers():
    """A space of numbers and choices that carry them, and its mutants of a parent."""
    carried = pg.Dict(scale=pg.floatv(-1.0, 3.0), kind=pg.oneof([0, 1]))
    gate = pg.oneof([0, pg.floatv(0.0, 2.0), carried])
    made = from_pyglove(pg.Dict(rate=pg.floatv(0.0, 2.0), gate=gate))
    return made, jax.jit(jax.vmap(made.space.mutate, in_axes=(0, None)))


@pytest.mark.parametrize(
    "parent",
    [
        pytest.param(pg.DNA([0.25, 0]), marks=pytest.mark.slow),
        pytest.param(pg.DNA([0.25, (1, 0.5)]), marks=pytest.mark.slow),
        pg.DNA([0.25, (2, [0.5, 1])]),
    ],
)
def test_numbers_are_mutated_as_pygloves(parent):
    made, mutants = with_numbers()
    start = made.from_dna(parent)

    def bucket(genotype):
        """Numbers as the unit they fall into, or as kept."""
        pairs = zip(genotype, frozen(start), strict=True)
        return tuple("kept" if x == old else math.floor(x) for x, old in pairs)

    mutate = pygloves_mutant(made, parent)
    keys = jax.random.split(jax.random.key(3), MANY)
    ours = collections.Counter(map(bucket, rows(mutants(keys, start)).tolist()))
    compare(ours, chances(lambda rng: bucket(mutate(rng))))


def pygloves_mutant(made, parent):
    """A random generator -> what PyGlove makes of a parent."""
    parent.use_spec(made.spec)
    uniform = pg.evolution.mutators.Uniform()

    def mutant(rng):
        uniform._random = rng
        return frozen(made.from_dna(uniform.mutate(parent)))

    return mutant


def local_steps(name, draws):
    """Pairs of a sample and its local mutant, each once."""
    first, _, _, local, _ = drawn(name, draws)
    pairs = counted(np.concatenate([rows(first), rows(local)], axis=1))
    half = len(next(iter(pairs))) // 2
    return [(pair[:half], pair[half:]) for pair in pairs]


@over_draws(TEMPLATES)
def test_a_local_mutation_always_changes_something_and_little(name, draws):
    pairs = local_steps(name, draws)
    assert all(a != b for a, b in pairs)
    if not any(isinstance(x, Conditional) for x in parts_of(translation(name).space)):
        # One item of one set is another, or two of a permutation have changed places.
        for a, b in pairs:
            gone = sum((collections.Counter(a) - collections.Counter(b)).values())
            places = sum(x != y for x, y in zip(a, b, strict=True))
            assert gone == 1 or (gone == 0 and places == 2)


@over_draws(TEMPLATES)
def test_local_mutations_reach_everything(name, draws):
    following = collections.defaultdict(set)
    for a, b in local_steps(name, draws):
        following[a].add(b)
    reached, new = set(), {frozen(translation(name).from_dna(all_dnas(name)[0]))}
    while new:
        reached |= new
        new = set().union(*(following[a] for a in new)) - reached
    assert reached == {frozen(translation(name).from_dna(dna)) for dna in all_dnas(name)}


def parts_of(space):
    yield space
    match space:
        case Product():
            yield from itertools.chain(*map(parts_of, space.leaves))
        case Repeat():
            yield from parts_of(space.space)
        case Conditional():
            yield from itertools.chain(*(parts_of(o) for o in space.options if o is not None))


def test_a_number_moves_within_its_range_and_never_stays():
    few = FloatRange(1.0, float(np.nextafter(np.float32(1), np.float32(2))))  # two float32
    tiny = float(np.finfo(np.float32).tiny)  # what is smaller, a device takes for 0
    smallest = [(5e-324, 1.0), (-1.0, -1e-40), (0.0, tiny), (-tiny, tiny), (tiny, 2 * tiny)]
    ranges = [FloatRange(-2.0, 3.0), few, *(FloatRange(*r) for r in smallest), FloatRange(0.1, 0.7)]
    keys = jax.random.split(jax.random.key(0), MANY)

    def moves(key):
        starts = [space.sample(key) for space in ranges]
        pairs = list(zip(ranges, starts, strict=True))
        return [(x, space.mutate(key, x, local=True), space.mutate(key, x)) for space, x in pairs]

    made = jit_as_shipped(jax.vmap(moves))(keys)
    for space, (start, local, redrawn) in zip(ranges, made, strict=True):
        for x in map(np.asarray, (start, local, redrawn)):
            assert x.dtype == np.float32
            assert float(x.min()) >= space.low
            assert float(x.max()) <= space.high
            assert np.isfinite(x).all()
        assert (np.asarray(local) != np.asarray(start)).all()
    # Uniform, and moved by a tenth of the range, 0.06, less what the reflections take.
    start, local = (np.asarray(x, np.float64) for x in (start, local))
    counts, _ = np.histogram(start, 20, (0.1, 0.7))
    assert sigmas(np.sum((counts - MANY / 20) ** 2 / (MANY / 20)), 19) < 5
    assert 0.045 < np.std(local - start) < 0.055
    assert FloatRange(2.0, 2.0).decisions(2.0, local=True) == 0


# ------------------------------------------------------------------------------------ crossover


@over_draws(TEMPLATES)
def test_children_keep_what_their_parents_share_and_invent_nothing(name, draws):
    first, second, _, _, children = drawn(name, draws)
    same = several(jax.tree.map(lambda x: np.asarray(x)[0], first), draws)
    *_, of_the_same = family(name, draws)(jax.random.key(5), same, same)
    assert set(counted(rows(of_the_same))) == set(counted(rows(same)))
    space = translation(name).space
    trees = list(zip(*(unstacked(space, x, 300) for x in (first, second, children)), strict=True))
    for a, b, child in trees:
        inherits(space, a, b, child)
    assert any(frozen(c) not in (frozen(a), frozen(b)) for a, b, c in trees) or name in (
        "permutation", "conditional permutation", "digits", "multiset", "one conditional",
        "conditional multiset",
    )  # fmt: skip


def unstacked(space, genotypes, number):
    host = jax.tree.map(np.asarray, genotypes)
    return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(number)]


def inherits(space, first, second, child):
    """Assert that what is in a child is in a parent, and what is in both is in it."""
    match space:
        case OneOf() | FloatRange():
            assert child in (first, second)
        case SubsetOf():
            a, b, c = (collections.Counter(np.asarray(x).tolist()) for x in (first, second, child))
            if space.distinct or not space.ordered:
                assert a & b <= c <= a | b
            if space.ordered:
                agree = first == second
                assert (child[agree] == first[agree]).all()
                if not space.distinct:
                    assert ((child == first) | (child == second)).all()
        case Repeat():
            for i in range(space.times):
                inherits(
                    space.space,
                    *(jax.tree.map(lambda x, i=i: x[i], g) for g in (first, second, child)),
                )
        case Product():
            parts = (space.structure.flatten_up_to(g) for g in (first, second, child))
            for leaf, a, b, c in zip(space.leaves, *parts, strict=True):
                inherits(leaf, a, b, c)
        case Conditional():
            inherits(space.choice, first.index, second.index, child.index)
            for j, option in enumerate(space.options):
                if option is None:
                    continue
                carried = [
                    [
                        jax.tree.map(
                            lambda x, i=i: np.atleast_1d(x)[i] if one else x[i], g.inner[j]
                        )
                        for i in np.flatnonzero(np.atleast_1d(g.index) == j)
                    ]
                    if not (one := np.ndim(g.index) == 0)
                    else ([g.inner[j]] if g.index == j else [])
                    for g in (first, second, child)
                ]
                a, b, c = carried
                if len(a) == len(b) == len(c) == 1:
                    inherits(option, a[0], b[0], c[0])
                elif len(c) == 1 and len(a) + len(b) == 1:
                    assert frozen(c[0]) == frozen((a or b)[0])


# --------------------------------------------------------------------------- there and back again


def float32s(low, high):
    return st.floats(low, high, width=32, allow_subnormal=False)


@st.composite
def templates(draw, depth=3):
    """Any nesting of PyGlove's decisions, containers and constants."""
    kinds = ["float", "one", "many", "permutation"]
    kinds += ["one", "many", "dict", "list"] * (depth > 1)
    kind = draw(st.sampled_from(kinds))
    if kind == "float":
        low, high = sorted((draw(float32s(-100, 100)), draw(float32s(-100, 100))))
        return pg.floatv(low, high)
    inner = st.integers(0, 9)
    if depth > 1:  # most options carry choices of their own
        inner = st.integers(0, 2).flatmap(
            lambda k, constant=inner: templates(depth - 1) if k else constant
        )
    if kind in ("dict", "list"):
        items = draw(st.lists(inner, min_size=1, max_size=3))
        if kind == "list":
            return pg.List(items)
        return pg.Dict({f"{name}": x for name, x in zip("zax", items, strict=False)})
    candidates = draw(st.lists(inner, min_size=1, max_size=4))
    if kind == "one":
        return pg.oneof(candidates)
    if kind == "permutation":
        return pg.permutate(candidates)
    distinct = draw(st.booleans())
    k = draw(st.integers(1, len(candidates) if distinct else 4))
    return many(k, candidates, distinct, draw(st.booleans()))


def rounded(dna):
    """The same DNA with floats that float32 has."""
    if isinstance(dna.value, float):
        dna.rebind(value=float(np.float32(dna.value)), skip_notification=True)
    for child in dna.children:
        rounded(child)
    return dna


def nodes_of(dna):
    return [dna, *itertools.chain(*map(nodes_of, dna.children))]


def drawn_by_hand(space, rng):
    """A genotype, drawn without JAX."""
    match space:
        case OneOf():
            return np.int32(rng.integers(space.num_categories))
        case FloatRange():
            return np.clip(np.float32(rng.uniform(space.low, space.high)), *space.bounds)
        case SubsetOf():
            items = rng.choice(space.num_items, space.num_chosen, replace=not space.distinct)
            return (items if space.ordered else np.sort(items)).astype(np.int32)
        case Repeat():
            copies = [drawn_by_hand(space.space, rng) for _ in range(space.times)]
            if not copies:
                return np.zeros(0, np.int32)
            return jax.tree.map(lambda *x: np.stack(x), *copies)
        case Product():
            return space.structure.unflatten([drawn_by_hand(leaf, rng) for leaf in space.leaves])
        case Conditional():
            index = drawn_by_hand(space.choice, rng)
            inner = []
            for j, option in enumerate(space.options):
                copies = [
                    jax.tree.map(lambda x, on=chosen == j: x * on, drawn_by_hand(option, rng))
                    for chosen in (np.atleast_1d(index) if option is not None else ())
                ]
                stack = (lambda *x: np.stack(x)) if np.ndim(index) else (lambda x: x)
                inner.append(jax.tree.map(stack, *copies) if copies else ())
            as_typed = jax.tree.map(np.asarray, tuple(inner))
            return Chosen(index, as_typed)


def over_random_templates(number):
    settings = hypothesis.settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        phases=(hypothesis.Phase.generate,),  # a smaller example of a failure takes minutes to find
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    given = hypothesis.given(templates(), st.integers(0, 2**32 - 1))
    return lambda test: settings(given(test))


@over_random_templates(10)
def test_any_space_goes_there_and_back(template, seed):
    goes_there_and_back(template, seed, 3, most_decisions=24)  # the time grows with them


@pytest.mark.slow
@over_random_templates(200)
def test_any_of_many_spaces_goes_there_and_back(template, seed):
    goes_there_and_back(template, seed, 50, most_decisions=math.inf)


def goes_there_and_back(template, seed, number, most_decisions):
    made = from_pyglove(template)
    rng = random.Random(seed)
    hypothesis.assume(not made.spec.is_constant and len(made.spec) <= most_decisions)
    for i in range(number):
        dna = rounded(pg.random_dna(made.spec, rng, attach_spec=False))
        genotype = made.from_dna(dna)
        made.space.validate(genotype)
        again = to_dna(made.space, genotype)
        assert again == dna
        made.spec.validate(again)
        if i < 10:
            agree_on_a_wrong_one(made, dna, rng)
        if i < 3:
            by_hand = drawn_by_hand(made.space, np.random.default_rng(rng.randrange(2**32)))
            made.space.validate(by_hand)
            for again in (
                made.from_dna(made.to_dna(by_hand)),
                loads(made.space, dumps(made.space, by_hand)),
            ):
                jax.tree.map(np.testing.assert_array_equal, again, by_hand)
    # PyGlove's own form of our form is the same space again.
    native = to_pyglove(made.space)
    native.validate(to_dna(made.space, genotype))
    assert native.space_size == made.spec.space_size
    assert str(from_pyglove(native).space.log_cardinality) == str(made.space.log_cardinality)


def agree_on_a_wrong_one(made, dna, rng):
    """Change one value of a DNA: both accept it, or neither does."""
    changed = dna.clone(deep=True)
    node = rng.choice([node for node in nodes_of(changed) if node.value is not None])
    wrong = rng.choice([-1, 0, 1, 2, 5, 0.5, -0.5, 1e9])
    node.rebind(value=wrong, skip_notification=True)
    if rng.random() < 0.2:
        node.children.append(pg.DNA(0))
    accepted = {}
    for who, check in (("pyglove", made.spec.validate), ("us", made.from_dna)):
        try:
            check(changed)
            accepted[who] = True
        except (ValueError, TypeError):
            accepted[who] = False
    # Choices below 0 pass PyGlove's check, see `from_dna`.
    expected = accepted["pyglove"] and wrong != -1
    assert accepted["us"] == expected, (changed, made.spec)


# ------------------------------------------------------------------------------------- sentences


@dataclasses.dataclass
class Plain:
    value: object


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: from_dna(OneOf(3), pg.DNA(3)),
            r"^a choice must be an integer in \[0, 2\], got DNA\(3\)\.$",
        ),
        (lambda: from_dna(OneOf(3), pg.DNA(-1)), r"in \[0, 2\], got DNA\(-1\)"),
        (lambda: from_dna(OneOf(3), pg.DNA([0, 1])), r"in \[0, 2\], got DNA\(\[0, 1\]\)"),
        (
            lambda: from_dna(Product({"a": OneOf(2), "b": OneOf(2)}), pg.DNA([0, 1, 1])),
            "the DNA of this space must have 2 decisions",
        ),
        (
            lambda: from_dna(Product({"a": OneOf(2), "b": OneOf(2)}), pg.DNA([0, 7])),
            r"^b: a choice must be an integer in \[0, 1\], got DNA\(7\)",
        ),
        (lambda: from_dna(SubsetOf(5, 2), pg.DNA([3])), "2 items must be chosen"),
        (lambda: from_dna(SubsetOf(5, 2), pg.DNA([3, 3])), "distinct and ascending"),
        (lambda: from_dna(FloatRange(0, 1), pg.DNA(2.0)), r"must be a float in \[0, 1\]"),
        (lambda: from_dna(FloatRange(0, 1), pg.DNA(1)), r"must be a float in \[0, 1\]"),
        (
            lambda: from_dna(Conditional([None, OneOf(3)]), pg.DNA(1, [pg.DNA(4)])),
            r"^option 1: a choice must be an integer in \[0, 2\]",
        ),
        (
            lambda: from_dna(Product({"a": Conditional([OneOf(3)])}), pg.DNA(0, [pg.DNA(4)])),
            r"^a: option 0: a choice must be an integer in \[0, 2\]",
        ),
        (lambda: to_dna(OneOf(3), np.int32(5)), r"a choice must be in \[0, 2\], got 5"),
        (
            lambda: loads(OneOf(3), "[1]"),
            r"^the JSON must be that of a pg.DNA, got '\[1\]': its type is list",
        ),
        (lambda: loads(OneOf(3), "{1"), r"^the JSON must be that of a pg.DNA, got '{1': "),
        (lambda: loads(OneOf(3), ""), r"^the JSON must be that of a pg.DNA, got '': "),
        (
            lambda: loads(OneOf(3), '{"_type": "nowhere.Thing"}'),
            "^the JSON must be that of a pg.DNA, got .*Thing",
        ),
        (
            lambda: from_pyglove(pg.Dict(lr=pg.floatv(0.0, math.inf))),
            r"^at 'lr': high must be in \[0, 3.40282e\+38\], got inf\.$",
        ),
        (
            lambda: from_pyglove(pg.Dict(x=pg.oneof([0, pg.Dict(lr=pg.floatv(0.0, 1e200))]))),
            r"^at 'x\[=1/2\]\.lr': high must be in \[0, 3.40282e\+38\], got 1e\+200\.$",
        ),
        (
            lambda: from_pyglove(pg.floatv(-math.inf, 0.0)),
            r"^low must be in \[-3.40282e\+38, 3.40282e\+38\], got -inf\.$",
        ),
        (
            lambda: from_pyglove(pg.geno.space([pg.geno.custom(location=pg.KeyPath("hash"))])),
            "a CustomDecisionPoint cannot be compiled, at 'hash'",
        ),
        (
            lambda: from_pyglove(to_pyglove(OneOf(2))).materialize(np.int32(0)),
            "materialize needs the template",
        ),
        (
            lambda: from_pyglove(pg.Dict(x=(pg.oneof([1, 2]), 3))),
            r"^the choice at 'x\[0\]' is in a tuple, which PyGlove does not look into",
        ),
        (
            lambda: from_pyglove(pg.Dict(x=pg.oneof([0, Plain([pg.oneof([1, 2])])]))),
            r"^the choice at 'x\.candidates\[1\]\.value\[0\]' is in a Plain, which PyGlove",
        ),
        (lambda: from_pyglove(pg.Dict(x=1)), "^a template must have a choice in it .*, got {x=1}"),
        (lambda: from_pyglove(lambda: 3), "^a template must have a choice in it"),
        (lambda: FloatRange(0.0, 1.0, "log"), r"^low must be positive where the scale is log, got"),
        (lambda: FloatRange(1.0, 2.0, "exp"), "^scale must be one of linear, log, rlog, got 'exp'"),
        (lambda: FloatRange(1.0, 0.0), r"high must be in \[1, 3.40282e\+38\], got 0.0"),
        (lambda: FloatRange(0.0, 1e-40), "a range must hold a float32 and, unless .* a width in"),
        (lambda: FloatRange(1e-40, 1e-39), "a range must hold a float32"),
        (lambda: FloatRange(1.2e-38, 1.3e-38), r"a width in \[1.17549e-38, 3.40282e\+38\], got"),
        (lambda: FloatRange(0.1, 0.1), "a range must hold a float32"),
        (lambda: FloatRange(-3e38, 3e38), "a range must hold a float32"),
        (lambda: Conditional([None, OneOf(2)], OneOf(3)), "among the 2 options, got 1 of 3"),
        (
            lambda: Conditional([None, OneOf(2)]).validate(Chosen(np.int32(0), ((), np.int32(1)))),
            "option 1: what it carries must be 0 where it is not chosen",
        ),
        (
            lambda: Conditional([None, OneOf(2)]).validate(Chosen(np.int32(1), ((), np.int32(2)))),
            r"option 1: a choice must be in \[0, 1\], got 2",
        ),
        (lambda: Conditional([None, OneOf(2)]).validate(np.int32(1)), "must be Chosen"),
        (
            lambda: Conditional([None, SubsetOf(4, 2)]).validate(Chosen(0, ((), np.zeros(3, int)))),
            r"option 1: what it carries must be int32\[2\], got int32\[3\]\.$",
        ),
        (
            lambda: Conditional([None, OneOf(2)]).validate(Chosen(0, ((), 0.0))),
            r"option 1: what it carries must be int32\[\], got float64\[\]\.$",
        ),
        (
            lambda: Conditional([None, Product({"a": OneOf(2)})]).validate(Chosen(0, ((), {}))),
            r"option 1: what it carries must be {'a': 'int32\[\]'}, got {}\.$",
        ),
        (
            lambda: Conditional([None, OneOf(2)], SubsetOf(2, 2, distinct=False)).validate(
                Chosen(np.array([0, 0]), ((), np.int32(0)))
            ),
            r"option 1: what it carries must be int32\[2\], got int32\[\]\.$",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conditional([None, 3]), "an option must be a space or None, got 3"),
        (lambda: Conditional([None], Repeat(OneOf(2), 2)), "must be OneOf or SubsetOf, got Repeat"),
    ],
)
def test_a_conditional_is_made_of_spaces(make, message):
    with pytest.raises(TypeError, match=message):
        make()


# ------------------------------------------------------------------------- what it is like to use


def test_a_space_says_what_it_is():
    cell = pg.Dict(
        edges=pg.sublist_of(6, range(30), choices_sorted=True),
        ops=pg.List([pg.oneof(["tanh", "relu", "sin"]) for _ in range(8)]),
        pooling=pg.oneof([None, pg.Dict(kind=pg.oneof(["max", "mean"]), width=pg.oneof([2, 3]))]),
        rate=pg.floatv(0.0, 0.5),
    )
    made = from_pyglove(cell)
    assert str(made.space) == (
        "{edges: 6 of 30, ops: 8 x (1 of 3), pooling: 1 of 2 (1: {kind: 1 of 2, width: 1 of 2}), "
        "rate: [0, 0.5]}"
    )
    genotype = jax.jit(made.space.sample)(jax.random.key(0))
    assert list(genotype) == ["edges", "ops", "pooling", "rate"]
    found = made.materialize(genotype)
    assert found.ops == [["tanh", "relu", "sin"][i] for i in genotype["ops"].tolist()]
    assert found.edges == genotype["edges"].tolist()
    assert (found.pooling is None) == (int(genotype["pooling"].index) == 0)
    assert str(permutation(5)) == "a permutation of 5"
    assert str(SubsetOf(9, 2, distinct=False, ordered=True)) == "2 of 9 in order with repetition"


def test_only_the_entries_of_a_list_become_one_array_and_every_name_stays():
    def two():
        return pg.oneof([0, 1])

    def names(template):
        return from_pyglove(template).space.names

    def real():
        return pg.floatv(0.0, 1.0)

    assert names(pg.Dict(a=two(), a1=two(), a2=two())) == ("a", "a1", "a2")
    assert names(pg.Dict(x0=two(), x=pg.List([two(), two()]))) == ("x0", "x")
    mixed = [two(), two(), real(), 3, real(), two()]
    assert names(pg.Dict(x=pg.List(mixed), y=two())) == ("x[0:2]", "x[2:5]", "x[5]", "y")
    assert names(pg.List(mixed)) == ("[0:2]", "[2:5]", "[5]")
    by_hand = pg.geno.space([pg.geno.floatv(0.0, 1.0), *[pg.geno.oneof([pg.geno.constant()])] * 2])
    assert len(names(by_hand)) == 2


def test_a_large_native_space_is_written_without_pyglove_specifications():
    space = Product({"colours": Repeat(OneOf(17), 736), "edges": SubsetOf(736, 64)})
    genotype = drawn_by_hand(space, np.random.default_rng(0))
    again = loads(space, dumps(space, genotype))
    jax.tree.map(np.testing.assert_array_equal, again, genotype)
    assert space.log_cardinality == pytest.approx(736 * math.log(17) + math.log(math.comb(736, 64)))


def test_templates_of_every_kind_are_taken():
    for template in (
        {"a": {"b": [pg.oneof([10, 20])]}},
        pg.template(pg.Dict(a=pg.Dict(b=[pg.oneof([10, 20])]))),
    ):
        made = from_pyglove(template)
        assert made.space.names == ("a.b[0]",)
        assert made.materialize(from_dna(made.space, pg.DNA(1))) == {"a": {"b": [20]}}
    made = from_pyglove([pg.oneof([10, 20]), 7])
    assert made.materialize(made.from_dna(pg.DNA(1))) == [20, 7]

    def traced():
        return pg.oneof([10, 20]) + pg.floatv(0.0, 1.0)

    context = pg.hyper.trace(traced)
    made = from_pyglove(context)
    genotype = made.from_dna(pg.DNA([1, 0.5]))
    with context.apply(made.to_dna(genotype)):
        assert traced() == 20.5
    with pytest.raises(ValueError, match=r"context\.apply"):
        made.materialize(genotype)


SCALED = {
    "log": lambda u: 0.01 * 1e4**u,
    "rlog": lambda u: 100.01 - 0.01 * 1e4 ** (1 - u),
    "linear": lambda u: 0.01 + u * 99.99,
}


@pytest.mark.parametrize("scale", SCALED)
def test_numbers_are_drawn_and_moved_along_the_scale(scale):
    """A share u of the range is what PyGlove's documentation of `floatv` maps to u."""
    space = FloatRange(0.01, 100.0, scale)
    key = jax.random.key(0)
    np.testing.assert_allclose(
        space.sample(key, (1000,)),
        SCALED[scale](jax.random.uniform(key, (1000,))),
        rtol=2e-5,
        atol=5e-5,
    )
    keys = jax.random.split(key, 2000)
    start = np.float32(SCALED[scale](0.5))
    moved = np.asarray(jax.vmap(lambda k: space.mutate(k, start, True))(keys))
    shares = np.interp(moved, SCALED[scale](np.linspace(0, 1, 100_001)), np.linspace(0, 1, 100_001))
    # A normal tenth of the scale: mean and standard deviation within four standard errors.
    assert abs(shares.mean() - 0.5) < 4 * 0.1 / 2000**0.5
    assert abs(shares.std() - 0.1) < 4 * 0.1 / 4000**0.5
    spec = pg.floatv(0.01, 100.0, scale=None if scale == "linear" else scale)
    assert from_pyglove(pg.Dict(x=spec)).space.leaves == (space,)
    assert to_pyglove(space).scale == (None if scale == "linear" else scale)


COMPACT = '{"_type": "pyglove.core.geno.base.DNA", "format": "compact", "value": %s}'


@pytest.mark.parametrize(
    "text",
    [
        COMPACT % '{"_type": "opaque_object", "value": "gASVIAAAAAAAAACMBXBvc2l4lIw="}',
        COMPACT % '[0, {"_type": "builtins.print"}]',
        COMPACT % '"os.system"',
        COMPACT % "true",
        COMPACT % '1, "spec": {}',
        '{"_type": "pyglove.core.geno.base.DNA", "value": {"_type": "function", "name": "exit"}}',
        '{"_type": "pyglove.core.geno.base.DNA", "value": 1, "children": [{"_type": "x.Y"}]}',
        "[" * 100_000,
    ],
)
def test_a_file_of_an_architecture_is_read_without_pyglove(text, monkeypatch):
    """PyGlove 0.4.5 imports what a text names, and unpickles what it holds."""

    def never(*arguments, **options):
        raise AssertionError("PyGlove reads it")

    for name in ("from_json", "from_json_str"):
        monkeypatch.setattr(pg, name, never)
    with pytest.raises(ValueError, match=r"^the JSON must be that of a pg\.DNA, got "):
        loads(OneOf(3), text)


def test_pygloves_own_json_of_a_dna_is_read_with_and_without_metadata():
    made = from_pyglove(
        pg.Dict(a=pg.oneof([1, pg.oneof([2, 3])]), b=pg.floatv(0.0, 1.0), c=pg.manyof(2, [1, 2, 3]))
    )
    rng = random.Random(0)
    for _ in range(20):
        dna = pg.random_dna(made.spec, rng)
        expected = made.from_dna(dna)
        dna.set_metadata("reward", 3.0, cloneable=True)
        for text in (pg.to_json_str(dna), json.dumps(dna.to_json(compact=False))):
            jax.tree.map(np.testing.assert_array_equal, loads(made.space, text), expected)


def test_what_is_no_dna_is_refused():
    with pytest.raises(TypeError, match=r"^dna must be a pg\.DNA, got None\.$"):
        from_dna(OneOf(3), None)
