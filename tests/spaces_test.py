"""Search spaces: what they draw, how they mutate, what they refuse."""

import collections
import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pyglove as pg
import pytest

from esenas_jax.spaces import Conditional, OneOf, Product, Repeat, SubsetOf, same
from tests.reference import evolution
from tests.support.compiling import jit_as_shipped
from tests.support.exact_chances import chances

DRAWS = 8_000


def make_spaces():
    return {
        "one_of": OneOf(5),
        "one_of_single": OneOf(1),
        "subset": SubsetOf(6, 2),
        "subset_of_one": SubsetOf(4, 1),
        "subset_of_all": SubsetOf(3, 3),
        "repeat_one_of": Repeat(OneOf(3), 3),
        "repeat_nothing": Repeat(OneOf(3), 0),
        "repeat_subset": Repeat(SubsetOf(4, 2), 2),
        "repeat_subset_of_one": Repeat(SubsetOf(3, 1), 2),
        "repeat_repeat": Repeat(Repeat(OneOf(2), 2), 2),
        "repeat_product": Repeat(Product({"op": OneOf(2), "edges": SubsetOf(3, 2)}), 2),
        "product": Product({"edges": SubsetOf(4, 2), "ops": Repeat(OneOf(3), 2)}),
        "product_nested": Product(
            (OneOf(2), {"x": Repeat(OneOf(3), 0), "y": Product([SubsetOf(3, 2), SubsetOf(2, 1)])})
        ),
    }


SPACES = make_spaces()
over_spaces = pytest.mark.parametrize("name", SPACES)


def over_some_spaces(quick):
    """All spaces; those that are not quick are slow."""
    return pytest.mark.parametrize(
        "name", [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in SPACES]
    )


# Of each kind one, and the smallest; the others are made of the same.
SMALL = ("one_of", "one_of_single", "subset", "repeat_nothing")
DISTINCT = (*SMALL, "repeat_product", "product_nested")


# The same spaces once more, by hand: as a row of elementary choices. A point is a tuple with an int
# for every OneOf and a sorted tuple for every SubsetOf.


def elements(space):
    match space:
        case Repeat():
            return elements(space.space) * space.times
        case Product():
            return [element for leaf in space.leaves for element in elements(leaf)]
        case _:
            return [space]


def columns(space, genotypes):
    """Genotypes with a leading axis: for every elementary choice its values, on that axis."""
    match space:
        case OneOf():
            return [np.asarray(genotypes).tolist()]
        case SubsetOf():
            return [[tuple(items) for items in np.asarray(genotypes).tolist()]]
        case Repeat():
            copies = [jax.tree.map(lambda x, i=i: x[:, i], genotypes) for i in range(space.times)]
            return list(itertools.chain(*(columns(space.space, copy) for copy in copies)))
        case Product():
            pairs = zip(space.leaves, space.structure.flatten_up_to(genotypes), strict=True)
            return list(itertools.chain(*(columns(leaf, part) for leaf, part in pairs)))


def points(space, genotypes):
    """Genotypes with a leading axis, as a list of points."""
    genotypes = jax.tree.map(np.asarray, genotypes)
    if not elements(space):
        return [()] * len(jax.tree.leaves(genotypes)[0])
    return list(zip(*columns(space, genotypes), strict=True))


def point(space, genotype):
    return points(space, jax.tree.map(lambda x: np.asarray(x)[None], genotype))[0]


def all_points(space):
    return list(
        itertools.product(
            *(
                range(element.num_categories)
                if isinstance(element, OneOf)
                else itertools.combinations(range(element.num_items), element.num_chosen)
                for element in elements(space)
            )
        )
    )


def reference_mutation(space, rng, parent):
    """Redraws one node below the whole space, with the rules of tests/reference."""
    parts = elements(space)
    if not parts:
        return parent
    owners = [j for j, part in enumerate(parts) for _ in range(nodes(part))]
    j = owners[rng.integers(len(owners))]
    child = list(parent)
    if isinstance(parts[j], OneOf):
        child[j] = evolution.uniform_mutate_choices(rng, (parent[j],), parts[j].num_categories)[0]
    else:
        mutated = evolution.uniform_mutate_subset(rng, parent[j], parts[j].num_items)
        child[j] = tuple(sorted(mutated))
    return tuple(child)


def nodes(element):
    if isinstance(element, OneOf) or element.num_chosen == 1:
        return 1
    return element.num_chosen + 1


# Compiled once a space.


@functools.cache
def sampler(name):
    return jax.jit(lambda key: SPACES[name].sample(key, (DRAWS,)))


@functools.cache
def mutator(name):
    mutate = jax.vmap(SPACES[name].mutate)
    return jax.jit(lambda key, parents: mutate(jax.random.split(key, DRAWS), parents))


@functools.cache
def crosser(name):
    cross = jax.vmap(SPACES[name].crossover)
    return jax.jit(lambda key, a, b: cross(jax.random.split(key, DRAWS), a, b))


@functools.cache
def samples(name, seed=0):
    return sampler(name)(jax.random.key(seed))


def sigmas(statistic, freedom):
    """How many standard deviations a chi-square is too large (Wilson and Hilferty, 1931)."""
    if freedom == 0:
        return 0.0  # one cell holds everything
    scale = 2.0 / (9.0 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1.0 - scale)) / math.sqrt(scale)


def disagreement(ours, theirs):
    """Of two counters: how many standard deviations they are too far apart."""
    assert set(ours) == set(theirs)
    a = np.array([ours[cell] for cell in theirs], float)
    b = np.array([theirs[cell] for cell in theirs], float)
    ratio = math.sqrt(a.sum() / b.sum())
    return sigmas(np.sum((a / ratio - b * ratio) ** 2 / (a + b)), len(a) - 1)


def compare(ours, likely):
    """Assert that counts fit probabilities."""
    assert sum(likely.values()) == pytest.approx(1)
    assert set(ours) <= set(likely)
    expected = {cell: p * sum(ours.values()) for cell, p in likely.items()}
    assert min(expected.values()) > 5  # for the chi-square
    statistic = sum((ours[cell] - e) ** 2 / e for cell, e in expected.items())
    assert sigmas(statistic, len(expected) - 1) < 5


def structure(genotype):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), genotype)


# ---------------------------------------------------------------------------------- sample


@over_spaces
def test_sampling_is_uniform_over_the_whole_space(name):
    space = SPACES[name]
    cells = all_points(space)
    counts = collections.Counter(points(space, samples(name)))
    assert set(counts) == set(cells)
    expected = DRAWS / len(cells)
    statistic = sum((counts[cell] - expected) ** 2 / expected for cell in cells)
    assert sigmas(statistic, len(cells) - 1) < 5


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("k", [20, 50])  # item by item, and as the largest of 60 numbers
def test_small_and_large_parts_of_many_items_are_uniform(k, ordered):
    n = 60
    sets = np.asarray(SubsetOf(n, k, ordered=ordered).sample(jax.random.key(5), (DRAWS,)))
    assert sets.shape == (DRAWS, k)
    has = np.zeros((DRAWS, n))
    np.put_along_axis(has, sets, 1.0, axis=1)
    assert (has.sum(axis=1) == k).all()
    assert ordered or (np.diff(sets, axis=1) > 0).all()
    together = has.T @ has / DRAWS  # how often two items are in one set
    likely = np.where(np.eye(n), k / n, k * (k - 1) / (n * (n - 1)))
    assert (np.abs(together - likely) < 5 * np.sqrt(likely * (1 - likely) / DRAWS)).all()
    if ordered:
        places = np.stack([np.bincount(place, minlength=n) for place in sets.T]) / DRAWS
        assert (np.abs(places - 1 / n) < 5 * math.sqrt(1 / n / DRAWS)).all()


@over_some_spaces(SMALL)
def test_genotypes_are_valid_of_one_type_and_the_same_bits_under_vmap(name):
    space = SPACES[name]
    # Two programs are compared: one pair of them is compiled as a user's is.
    jit = jit_as_shipped if name == "one_of" else jax.jit

    def family(key):
        keys = jax.random.split(key, 4)
        first, second = space.sample(keys[0]), space.sample(keys[1])
        return first, space.mutate(keys[2], first), space.crossover(keys[3], first, second)

    alone = jit(family)(jax.random.key(3))
    for genotype in alone:
        space.validate(genotype)
        assert point(space, genotype) in set(all_points(space))
        assert structure(genotype) == structure(alone[0])
        assert all(x.dtype == jnp.int32 and not x.weak_type for x in jax.tree.leaves(genotype))
    keys = jnp.stack([jax.random.key(2), jax.random.key(3)])
    together = jit(jax.vmap(family))(keys)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[1]), alone, together)


@over_spaces
def test_shape_is_put_before_every_array(name):
    space = SPACES[name]
    one = jax.eval_shape(space.sample, jax.random.key(0))
    many = jax.eval_shape(lambda key: space.sample(key, (4, 2)), jax.random.key(0))
    assert jax.tree.map(lambda x: (4, 2, *x.shape), one) == jax.tree.map(lambda x: x.shape, many)


# ---------------------------------------------------------------------------------- mutate


@over_spaces
def test_decisions_are_pyglove_nodes(name):
    space = SPACES[name]
    genotype = jax.tree.map(lambda x: x[0], samples(name))
    assert space.decisions(genotype) == sum(nodes(element) for element in elements(space))


@over_some_spaces(DISTINCT)
def test_mutants_are_distributed_as_in_the_reference(name):
    space = SPACES[name]
    rng = np.random.default_rng(1)
    # Two parents: where they lie among their neighbours must not matter.
    for i in range(2):
        parent = jax.tree.map(lambda x, i=i: x[i], samples(name, seed=10))
        parents = jax.tree.map(lambda x: jnp.broadcast_to(x, (DRAWS, *x.shape)), parent)
        mutants = mutator(name)(jax.random.key(20 + i), parents)
        ours = collections.Counter(points(space, mutants))
        start = point(space, parent)
        theirs = collections.Counter(
            reference_mutation(space, rng, start) for _ in range(DRAWS // 2)
        )
        # A cell that either side sees only by luck is no disagreement.
        rare = [cell for cell in ours | theirs if ours[cell] + theirs[cell] < 12]
        assert set(rare) <= set(all_points(space))
        for cell in rare:
            del ours[cell], theirs[cell]
        assert disagreement(ours, theirs) < 5


@pytest.mark.parametrize("local", [False, True])
def test_the_only_architecture_of_a_space_has_itself_for_a_mutant(local):
    for space in (OneOf(1), SubsetOf(3, 3), Repeat(OneOf(1), 2), Product([OneOf(1), OneOf(1)])):
        only = jax.jit(space.sample)(jax.random.key(0))
        mutant = jax.jit(functools.partial(space.mutate, local=local))(jax.random.key(1), only)
        space.validate(mutant)
        assert same(only, mutant)


def test_a_swapped_item_is_any_absent_one_for_any_parent():
    # Exact: with k = 2 of n = 6 a mutant that shares one item was swapped (2/3 of the time, over
    # 8 neighbours) or redrawn (1/3, over 15 sets); the parent comes back only when redrawn.
    space = SPACES["subset"]
    parents = samples("subset")
    mutants = points(space, mutator("subset")(jax.random.key(2), parents))
    pairs = [(set(a[0]), set(b[0])) for a, b in zip(points(space, parents), mutants, strict=True)]
    shared = collections.Counter(len(a & b) for a, b in pairs)
    probabilities = {2: 1 / 45, 1: 2 / 3 + 8 / 45, 0: 6 / 45}
    for size, p in probabilities.items():
        assert abs(shared[size] - DRAWS * p) < 5 * math.sqrt(DRAWS * p * (1 - p))
    came = collections.Counter(item for a, b in pairs if len(a & b) == 1 for item in b - a)
    total = sum(came.values())
    for item in range(6):
        assert abs(came[item] - total / 6) < 5 * math.sqrt(total / 6)


def test_mutants_are_distributed_as_in_pyglove_itself():
    space = Product({"edges": SubsetOf(6, 2), "ops": Repeat(OneOf(3), 2)})
    theirs_space = pg.Dict(
        edges=pg.sublist_of(2, candidates=range(6), choices_sorted=False, choices_distinct=True),
        ops=pg.List([pg.oneof(range(3)) for _ in range(2)]),
    )
    dna = pg.DNA.from_numbers([1, 4, 0, 2], pg.dna_spec(theirs_space))
    uniform = pg.evolution.mutators.Uniform()

    def theirs(rng):
        uniform._random = rng
        a, b, *ops = uniform.mutate(dna).to_numbers()
        return (tuple(sorted((a, b))), *ops)

    genotype = {"edges": jnp.array([1, 4], jnp.int32), "ops": jnp.array([0, 2], jnp.int32)}
    keys = jax.random.split(jax.random.key(0), 20_000)
    mutants = jax.jit(jax.vmap(space.mutate, in_axes=(0, None)))(keys, genotype)
    compare(collections.Counter(points(space, mutants)), chances(theirs))


@pytest.mark.parametrize(
    ("space", "only"),
    [
        (OneOf(1), np.int32(0)),
        (SubsetOf(1, 1), np.int32([0])),
        (SubsetOf(3, 3), np.int32([0, 1, 2])),
        (SubsetOf(1, 2, distinct=False), np.int32([0, 0])),
        (Repeat(OneOf(1), 2), np.int32([0, 0])),
        (Product([OneOf(1), SubsetOf(1, 1)]), [np.int32(0), np.int32([0])]),
    ],
)
def test_what_has_no_other_value_stays_under_local_mutation(space, only):
    only = jax.tree.map(jnp.asarray, only)
    mutant = space.mutate(jax.random.key(0), only, local=True)
    jax.tree.map(np.testing.assert_array_equal, mutant, only)


# ------------------------------------------------------------------------------- crossover


@over_some_spaces(DISTINCT)
def test_a_child_keeps_what_its_parents_share_and_invents_nothing(name):
    space = SPACES[name]
    first, second = samples(name, seed=0), samples(name, seed=1)
    children = crosser(name)(jax.random.key(4), first, second)
    triples = [points(space, genotypes) for genotypes in (first, second, children)]
    for a, b, child in itertools.islice(zip(*triples, strict=True), 2000):
        for element, x, y, z in zip(elements(space), a, b, child, strict=True):
            if isinstance(element, OneOf):
                assert z in (x, y)
            else:
                assert len(z) == len(set(z)) == element.num_chosen
                assert set(x) & set(y) <= set(z) <= set(x) | set(y)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("one_of", 1, 3),
        ("subset", [0, 3], [1, 5]),
        ("subset_of_one", [0], [2]),
        ("repeat_one_of", [0, 0, 0], [1, 2, 1]),
        ("repeat_subset", [[0, 1], [0, 3]], [[2, 3], [1, 2]]),
    ],
)
def test_both_parents_contribute_equally_and_copies_cross_independently(name, first, second):
    space = SPACES[name]
    first, second = (jnp.asarray(parent, jnp.int32) for parent in (first, second))
    several = [jnp.broadcast_to(x, (DRAWS, *x.shape)) for x in (first, second)]
    children = points(space, crosser(name)(jax.random.key(6), *several))
    one, other = point(space, np.asarray(first)), point(space, np.asarray(second))
    # By how much of each copy comes from the first parent.
    taken = [
        tuple(
            len(set(x) & set(z)) if isinstance(x, tuple) else int(x == z)
            for x, z in zip(one, child, strict=True)
        )
        for child in children
    ]
    sizes = [len(x) if isinstance(x, tuple) else 1 for x in one]
    # k of the 2k items on offer survive: the number of the first parent's is hypergeometric.
    weights = [
        {j: math.comb(k, j) * math.comb(k, k - j) / math.comb(2 * k, k) for j in range(k + 1)}
        for k in sizes
    ]
    counts = collections.Counter(taken)
    cells = list(itertools.product(*(range(k + 1) for k in sizes)))
    expected = [DRAWS * math.prod(w[j] for w, j in zip(weights, c, strict=True)) for c in cells]
    statistic = sum((counts[c] - e) ** 2 / e for c, e in zip(cells, expected, strict=True))
    assert one != other
    assert sigmas(statistic, len(cells) - 1) < 5


# -------------------------------------------------------------------------------- validate


@pytest.mark.parametrize(
    ("space", "genotype", "message"),
    [
        (OneOf(3), np.array(3), r"a choice must be in \[0, 2\], got 3"),
        (OneOf(3), np.array(-1), r"a choice must be in \[0, 2\], got -1"),
        (OneOf(3), np.array(1.0), "integers of shape .* got float64"),
        (OneOf(3), np.array([1]), r"shape \(\), got .* shape \(1,\)"),
        (SubsetOf(4, 2), np.array([0, 4]), r"an item must be in \[0, 3\], got 4"),
        (SubsetOf(4, 2), np.array([-1, 2]), r"an item must be in \[0, 3\], got -1"),
        (SubsetOf(4, 2), np.array([2, 2]), r"distinct and ascending, got \[2, 2\]"),
        (SubsetOf(4, 2), np.array([2, 1]), r"distinct and ascending, got \[2, 1\]"),
        (SubsetOf(4, 2), np.array([0, 1, 2]), r"shape \(2,\), got .* shape \(3,\)"),
        (SubsetOf(4, 2), np.array([True, False]), "must be integers .* got bool"),
        (Repeat(OneOf(3), 2), np.array([0, 1, 2]), r"2 copies on its first axis, got \[\(3,\)\]"),
        (Repeat(OneOf(3), 2), np.array(0), r"2 copies on its first axis, got \[\(\)\]"),
        (Repeat(OneOf(3), 2), np.array([0, 7]), r"copy 1: a choice must be in \[0, 2\], got 7"),
        (Repeat(SubsetOf(4, 2), 2), np.array([[0, 1], [3, 3]]), "copy 1: items must be distinct"),
        (SPACES["product"], {"edges": np.array([0, 1])}, "structure of its spaces"),
        (SPACES["product"], (np.array([0, 1]), np.array([0, 0])), "structure of its spaces"),
        (
            SPACES["product"],
            collections.OrderedDict(edges=np.array([0, 1]), ops=np.array([0, 0])),
            r"must have the structure .*\{'edges': \*, 'ops': \*\}.*, got .*OrderedDict.*\.$",
        ),
        (
            SPACES["product"],
            {"edges": np.array([0, 1]), "ops": np.array([0, 3])},
            r"^ops: copy 1: a choice must be in \[0, 2\], got 3",
        ),
        (
            SPACES["product_nested"],
            (np.array(0), {"x": np.zeros(0, int), "y": [np.array([0, 3]), np.array([0])]}),
            r"^1.y: 0: an item must be in \[0, 2\], got 3",
        ),
    ],
)
def test_validate_names_what_is_wrong(space, genotype, message):
    with pytest.raises(ValueError, match=message):
        space.validate(genotype)


# ---------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: OneOf(0), ValueError, "num_categories must be at least 1, got 0."),
        (lambda: OneOf(2.0), TypeError, "num_categories must be an integer, got 2.0."),
        (lambda: OneOf(True), TypeError, "num_categories must be an integer, got True."),
        (lambda: SubsetOf(0, 1), ValueError, "num_items must be at least 1, got 0."),
        (lambda: SubsetOf(3, 4), ValueError, "num_chosen must be in [1, 3], got 4."),
        (lambda: SubsetOf(3, 0), ValueError, "num_chosen must be in [1, 3], got 0."),
        (lambda: SubsetOf(3, None), TypeError, "num_chosen must be an integer, got None."),
        (lambda: Repeat(OneOf(2), -1), ValueError, "times must be at least 0, got -1."),
        (lambda: Repeat(OneOf(2), "2"), TypeError, "times must be an integer, got '2'."),
        (lambda: Product({}), TypeError, "a Product must be made of at least one space, got {}."),
        (lambda: Product({"a": 3}), TypeError, "a Product must be made of spaces, got 3."),
    ],
)
def test_bad_construction_is_refused_in_one_sentence(make, error, message):
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == message


@over_spaces
def test_spaces_are_frozen_and_hashable_by_value(name):
    space = SPACES[name]
    again = make_spaces()[name]
    assert again == space
    assert hash(again) == hash(space)
    assert sum(space == other for other in SPACES.values()) == 1
    field = dataclasses.fields(space)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(space, field, getattr(space, field))


def test_a_child_of_two_orders_has_places_of_the_first_and_the_order_of_the_second():
    space, first, second = SubsetOf(6, 6, ordered=True), np.arange(6), np.arange(6)[::-1]
    cross = jax.jit(jax.vmap(lambda key: space.crossover(key, jnp.array(first), jnp.array(second))))
    children = np.asarray(cross(jax.random.split(jax.random.key(0), 400)))
    assert (np.sort(children, axis=1) == first).all()
    kept = children == first
    assert 0.5 < kept.mean() < 0.8  # half of the places, and what comes back to its place by chance
    for child, places in zip(children, kept, strict=True):
        assert (np.diff(child[~places]) < 0).all()


@pytest.mark.parametrize(("times", "nodes"), [(1, 2), (2, 6)])
def test_a_set_that_is_all_that_an_option_carries_has_no_node_of_its_own(times, nodes):
    option = Conditional([Repeat(SubsetOf(3, 2), times), None]).options[0]
    assert option is not None
    assert option.decisions(np.zeros((times, 2), np.int32)) == nodes
