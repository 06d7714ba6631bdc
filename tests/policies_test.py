"""Policies: against the released forward pass, and what pruned and unused parameters can do."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import policies
from esenas_jax.spaces import OneOf
from tests.reference import policies as reference
from tests.support.compiling import jit_as_shipped

SIZES = {"linear": (3, (), 2), "one_hidden": (4, (5,), 2), "two_hidden": (3, (4, 3), 2)}


def independent(obs_size, hidden, action_size, **options):
    """Three edges in each layer."""
    num_edges = [3] * (1 + np.size(hidden))
    return policies.independent_edges(obs_size, hidden, action_size, num_edges, **options)


def largest(obs_size, hidden, action_size, **options):
    """The four largest of the weights 1, -2, 3, -4, ..."""
    size = policies.dense(obs_size, hidden, action_size).num_params
    trained = np.arange(1, size + 1) * (-1.0) ** np.arange(size)
    return policies.magnitude_pruned(obs_size, hidden, action_size, 4, trained, **options)


KINDS = {
    "dense": policies.dense,
    "edge_pruned": functools.partial(policies.edge_pruned, num_edges=4),
    "independent_edges": independent,
    "residual_edges": functools.partial(policies.residual_edges, num_edges=5),
    "boolean_mask": policies.boolean_mask,
    "op_edges": functools.partial(policies.op_edges, num_edges=5),
    "partitioned": functools.partial(policies.partitioned, num_partitions=3),
    "partitioned, per layer": functools.partial(
        policies.partitioned, num_partitions=2, per_layer=True
    ),
    "random_mask": functools.partial(policies.random_mask, num_edges=4, mask_seed=3),
    "magnitude_pruned": largest,
    "toeplitz": policies.toeplitz,
    "circulant": policies.circulant,
}
PRUNED = ("edge_pruned", "independent_edges", "residual_edges", "boolean_mask", "op_edges")
SLIP = {"all_tanh": False, "slip": True}
EPS = float(np.finfo(np.float32).eps)
BATCH = 16
# Those with a forward pass of their own in all combinations, what is made of them in three.
WHOLE = ("dense", "edge_pruned", "residual_edges", "op_edges", "partitioned")
CASES = [
    (kind, sizes, slip)
    for kind in KINDS
    for sizes in SIZES
    for slip in SLIP
    if kind in WHOLE or slip == ("slip" if sizes == "two_hidden" else "all_tanh")
]

over_kinds = pytest.mark.parametrize("kind", KINDS)
over_slip = pytest.mark.parametrize("slip", SLIP)
over_networks = pytest.mark.parametrize(
    ("sizes", "slip"),
    [
        pytest.param(*row, marks=[] if row == ("two_hidden", "slip") else pytest.mark.slow)
        for row in itertools.product(SIZES, SLIP)
    ],
)


def quick(case):
    """Whether a case has code that no other quick one has."""
    kind, sizes, slip = case
    if (sizes, slip) == ("two_hidden", "slip"):
        return True
    kinds = {"one_hidden": WHOLE, "linear": ("dense", "residual_edges")}
    return slip == "all_tanh" and kind in kinds.get(sizes, ())


def over(cases):
    return pytest.mark.parametrize(
        ("kind", "sizes", "slip"),
        [pytest.param(*c, marks=[] if quick(c) else pytest.mark.slow) for c in cases],
    )


over_cases = over(CASES)


@functools.cache
def make(kind, sizes, slip):
    return KINDS[kind](*SIZES[sizes], linear_first_hidden=SLIP[slip])


@functools.cache
def acts(policy, jit=jax.jit):
    """params [B, P], genotypes [B], observations [T, O] -> actions [B, T, A], compiled."""

    def one(params, genotype, observations):
        network = policy.bind(params, genotype)
        return jax.vmap(policy.apply, in_axes=(None, 0))(network, observations)

    return jit(jax.vmap(one, in_axes=(0, 0, None)))


@functools.cache
def draw(policy):
    """A batch of parameters in [-1, 1], genotypes, and observations in [-1, 1]."""

    @jax.jit
    def drawn(key):
        k_params, k_genotype, k_obs = jax.random.split(key, 3)
        params = jax.random.uniform(k_params, (BATCH, policy.num_params), jnp.float32, -1.0, 1.0)
        observations = jax.random.uniform(k_obs, (5, policy.obs_size), jnp.float32, -1.0, 1.0)
        return params, policy.space.sample(k_genotype, (BATCH,)), observations

    return drawn(jax.random.key(0))


def flat(sizes):
    obs_size, hidden, action_size = SIZES[sizes]
    return [obs_size, *hidden, action_size]


def graph(kind, sizes, params, genotype):
    """The edges that there are, the weight of each, and what follows the weights: in float64.

    Edges are pairs of nodes; `genotype` is of NumPy arrays.
    """
    layer_sizes = flat(sizes)
    params = np.asarray(params, np.float64)
    edges = reference.aggregate_edges(layer_sizes)
    if kind in ("residual_edges", "op_edges"):
        edges = reference.residual_edges(layer_sizes)
    every = range(len(edges))
    counts = [a * b for a, b in itertools.pairwise(layer_sizes)]
    if kind == "dense":
        kept = every
    elif kind == "independent_edges":
        kept = [sum(counts[:k]) + i for k, part in enumerate(genotype) for i in part]
    elif kind == "boolean_mask":
        kept = [i for i in every if genotype[i] == 1]
    elif kind == "op_edges":
        kept = genotype["edges"]
    else:
        kept = genotype
    if kind in (*PRUNED, "dense"):
        return [edges[i] for i in kept], params[list(kept)], params[len(edges) :]
    if kind == "partitioned":
        colours, number = genotype, 3
    elif kind == "partitioned, per layer":
        layer = np.repeat(np.arange(len(counts)), counts)
        colours, number = 2 * layer + genotype, 2 * len(counts)
    elif kind == "toeplitz":
        number = sum(a + b - 1 for a, b in itertools.pairwise(layer_sizes))
        return edges, reference.toeplitz_weights(params[:number], layer_sizes), params[number:]
    elif kind == "circulant":
        number = sum(map(max, layer_sizes[:-1], layer_sizes[1:]))
        return edges, reference.circulant_weights(params[:number], layer_sizes), params[number:]
    else:
        kept = masks(kind, sizes)
        return [edges[i] for i in kept], params[: len(kept)], params[len(kept) :]
    return edges, params[:number][colours], params[number:]


def masks(kind, sizes):
    """The edges of a fixed mask."""
    if kind == "magnitude_pruned":
        total = make("dense", sizes, "all_tanh").max_edges
        return range(total - 4, total)
    policy = make(kind, sizes, "all_tanh")
    numbers = np.arange(1.0, 1.0 + policy.num_params, dtype=np.float32)
    network = jax.jit(lambda params: policy.bind(params, None))(numbers)
    weights = np.concatenate([np.ravel(w) for w in policy.matrices(network)])
    assert weights[weights != 0].tolist() == [1.0, 2.0, 3.0, 4.0]  # in the order of the edges
    return np.flatnonzero(weights)


def expected_action(kind, sizes, slip, params, genotype, obs):
    layer_sizes = flat(sizes)
    edges, weights, rest = graph(kind, sizes, params, genotype)
    num_inputs, num_nodes = layer_sizes[0], sum(layer_sizes)
    matrix, biases = np.full((num_nodes, num_nodes), 99.0), np.full(num_nodes, 99.0)
    biases[num_inputs : num_nodes - layer_sizes[-1]] = rest  # inputs and outputs have none
    for edge, weight in zip(edges, weights, strict=True):
        matrix[edge] = weight
    operations = [policies.OPERATIONS[k] for k in genotype["ops"]] if kind == "op_edges" else None
    with np.errstate(over="ignore"):  # of exp
        return reference.edge_policy_action(
            matrix,
            biases,
            edges,
            layer_sizes,
            obs,
            linear_first_hidden=SLIP[slip],
            operations=operations,
        )


def rounding(sizes, residual=False):
    """A bound on float32's error in an action, for weights and observations in [-1, 1].

    A unit sums n products (and a bias), each of at most `size`: n + 1 roundings of at most n * size
    each, and two more in tanh; an error in its inputs is passed on at most n times as large.
    """
    error, size, before = 0.0, 1.0, 0
    for units in flat(sizes)[:-1]:
        n = before + units
        total = n * size + 1.0
        error = n * error + (n + 3) * EPS * total
        size = total  # 1 but for the slip's linear unit
        before = n if residual else 0
    return error


def conditioned(act, params, obs):
    """A bound on float32's error where operations amplify it: what a few roundings do to an action.

    Args:
        act: parameters, observation -> action, in float64.
        params: of the policy.
        obs: one observation.
    """
    rng, exact = np.random.default_rng(0), act(params, obs)
    moved = [
        act(*(x * (1 + 8 * EPS * rng.uniform(-1, 1, x.shape)) for x in (params, obs)))
        for _ in range(6)
    ]
    return 8 * EPS + 8 * np.max(np.abs(np.array(moved) - exact))


@over_cases
def test_actions_are_those_of_the_float64_transcription(kind, sizes, slip):
    policy = make(kind, sizes, slip)
    params, genotypes, observations = draw(policy)
    actions = np.asarray(acts(policy)(params, genotypes, observations), np.float64)
    assert actions.shape == (BATCH, 5, 2)
    params, observations = np.asarray(params, np.float64), np.asarray(observations, np.float64)
    for i in range(BATCH):
        genotype = jax.tree.map(lambda x, i=i: np.asarray(x)[i], genotypes)

        def act(params, obs, genotype=genotype):
            return expected_action(kind, sizes, slip, params, genotype, obs)

        for t, obs in enumerate(observations):
            bound = rounding(sizes, kind == "residual_edges")
            if kind == "op_edges":
                bound = conditioned(act, params[i], obs)
            np.testing.assert_allclose(actions[i, t], act(params[i], obs), rtol=0, atol=bound)


@pytest.mark.parametrize(
    "kind",
    [
        *("dense", "residual_edges"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("edge_pruned", "partitioned")),
    ],
)
def test_the_slip_changes_a_network_only_through_its_first_hidden_unit(kind):
    params, genotypes, observations = draw(make(kind, "one_hidden", "slip"))
    right, slipped = (
        np.asarray(acts(make(kind, "one_hidden", slip))(params, genotypes, observations))
        for slip in SLIP
    )
    assert not np.array_equal(right, slipped)
    jit = jit_as_shipped if kind == "dense" else jax.jit  # bits of two programs are compared
    linear = [make(kind, "linear", slip) for slip in SLIP]
    linear = [acts(policy, jit)(*draw(policy)) for policy in linear]
    np.testing.assert_array_equal(*linear)


def test_activations_are_the_ones_given():
    policy = policies.dense(
        2, (2,), 1, hidden_activation=jax.nn.relu, output_activation=policies.identity
    )
    # Hidden units relu(1 * 2 + 0.5) and relu(-1 * 3 + 1); output 10 * 2.5 - 100 * 0.
    params = jnp.array([1.0, 0.0, 0.0, -1.0, 10.0, -100.0, 0.5, 1.0], jnp.float32)
    network = policy.bind(params, policy.space.sample(jax.random.key(0)))
    assert policy.apply(network, jnp.array([2.0, 3.0], jnp.float32)).tolist() == [25.0]


# ------------------------------------------------------------------------------- contract 6


@pytest.mark.parametrize("poison", [1e6, np.nan, np.inf])
@over([c for c in CASES if c[0] in PRUNED])
def test_weights_of_pruned_edges_cannot_matter(kind, sizes, slip, poison):
    policy = make(kind, sizes, slip)
    act = acts(policy)
    params, genotypes, observations = draw(policy)
    kept = {
        "independent_edges": lambda g: np.concatenate(
            [np.asarray(part) + start for part, start in zip(g, starts(sizes), strict=True)],
            axis=1,
        ),
        "op_edges": lambda g: np.asarray(g["edges"]),
    }.get(kind, np.asarray)(genotypes)
    if kind == "boolean_mask":
        chosen = kept == 1
    else:
        chosen = np.zeros((BATCH, policy.max_edges), bool)
        np.put_along_axis(chosen, kept, True, axis=1)
    poisoned = np.array(params)
    poisoned[:, : policy.max_edges][~chosen] = poison
    np.testing.assert_array_equal(
        act(jnp.asarray(poisoned), genotypes, observations), act(params, genotypes, observations)
    )
    assert (~chosen).any()
    # Uncompiled too: XLA may turn a product with a mask into a selection.
    first = jax.tree.map(lambda x: x[0], genotypes)
    clean, bound = (policy.bind(jnp.asarray(p[0]), first) for p in (params, poisoned))
    jax.tree.map(np.testing.assert_array_equal, bound, clean)


def starts(sizes):
    """The first edge of each layer."""
    counts = [a * b for a, b in zip(flat(sizes)[:-1], flat(sizes)[1:], strict=True)]
    return np.cumsum([0, *counts[:-1]])


@over_networks
def test_keeping_every_edge_is_the_dense_policy(sizes, slip):
    dense = make("dense", sizes, slip)
    whole = policies.edge_pruned(
        *SIZES[sizes], num_edges=dense.max_edges, linear_first_hidden=SLIP[slip]
    )
    params, genotypes, observations = draw(whole)
    np.testing.assert_array_equal(
        acts(whole, jit_as_shipped)(params, genotypes, observations),
        acts(dense, jit_as_shipped)(
            params, dense.space.sample(jax.random.key(0), (BATCH,)), observations
        ),
    )


@over_networks
def test_a_colour_for_every_edge_is_the_dense_policy(sizes, slip):
    dense = make("dense", sizes, slip)
    num_edges = dense.max_edges
    coloured = policies.partitioned(
        *SIZES[sizes], num_partitions=num_edges, linear_first_hidden=SLIP[slip]
    )
    assert coloured.num_params == dense.num_params
    params, _, observations = draw(dense)
    rng = np.random.default_rng(0)
    colours = np.stack([rng.permutation(num_edges) for _ in range(BATCH)])
    # Edge e has the weight that dense keeps at colours[e].
    unshared = np.array(params)
    unshared[:, :num_edges] = np.take_along_axis(unshared[:, :num_edges], colours, axis=1)
    np.testing.assert_array_equal(
        acts(coloured, jit_as_shipped)(params, jnp.asarray(colours, jnp.int32), observations),
        acts(dense, jit_as_shipped)(
            jnp.asarray(unshared), dense.space.sample(jax.random.key(0), (BATCH,)), observations
        ),
    )


def nothing(policy):
    """Genotypes [B] of a policy that has only one."""
    return policy.space.sample(jax.random.key(0), (BATCH,))


def same(policy, genotypes, other, other_genotypes, params=None, other_params=None):
    """Both act alike, but for the order of their sums."""
    drawn, _, observations = draw(policy)
    params = drawn if params is None else params
    other_params = params if other_params is None else other_params
    np.testing.assert_allclose(
        acts(policy)(params, genotypes, observations),
        acts(other)(other_params, other_genotypes, observations),
        rtol=0,
        atol=2e-6,
    )


def test_a_mask_with_every_edge_is_the_dense_policy():
    dense, mask = make("dense", "two_hidden", "slip"), make("boolean_mask", "two_hidden", "slip")
    ones = jnp.ones((BATCH, mask.max_edges), jnp.int32)
    same(mask, ones, dense, nothing(dense))
    layers = policies.independent_edges(*SIZES["one_hidden"], num_edges=(20, 10))
    dense = make("dense", "one_hidden", "all_tanh")
    same(layers, layers.space.sample(jax.random.key(0), (BATCH,)), dense, nothing(dense))


def test_the_same_number_of_edges_in_a_layer_is_the_same_draw_anywhere():
    anywhere = make("edge_pruned", "one_hidden", "all_tanh")
    genotypes = np.asarray(draw(anywhere)[1])
    split = np.sum(genotypes < 20, axis=1)  # 4-5-2: edges 0 .. 19 lead into the hidden units
    kept = int(np.bincount(split[(split > 0) & (split < 4)]).argmax())
    alike = genotypes[split == kept]
    alike = np.resize(alike, (BATCH, 4))
    layered = policies.independent_edges(*SIZES["one_hidden"], num_edges=(kept, 4 - kept))
    parts = (jnp.asarray(alike[:, :kept]), jnp.asarray(alike[:, kept:] - 20))
    layered.space.validate(jax.tree.map(lambda x: x[0], parts))
    same(layered, parts, anywhere, jnp.asarray(alike))


def test_residual_edges_without_skips_are_pruned_edges():
    layer_sizes = flat("two_hidden")
    consecutive = reference.aggregate_edges(layer_sizes)
    every = reference.residual_edges(layer_sizes)
    place = np.array([every.index(edge) for edge in consecutive])
    pruned = policies.edge_pruned(*SIZES["two_hidden"], num_edges=5)
    residual = make("residual_edges", "two_hidden", "all_tanh")
    genotypes = pruned.space.sample(jax.random.key(0), (BATCH,))
    params = np.asarray(draw(residual)[0])
    total = len(every)
    theirs = np.concatenate([params[:, place], params[:, total:]], axis=1)
    skipping = jnp.asarray(np.sort(place[np.asarray(genotypes)], axis=1), jnp.int32)
    same(residual, skipping, pruned, genotypes, jnp.asarray(params), jnp.asarray(theirs))


@over_slip
def test_op_edges_with_tanh_everywhere_are_residual_edges(slip):
    ops, residual = (make(kind, "two_hidden", slip) for kind in ("op_edges", "residual_edges"))
    edges = residual.space.sample(jax.random.key(0), (BATCH,))
    tanh = jnp.full((BATCH, 7), policies.OPERATIONS.index("tanh"), jnp.int32)
    same(ops, {"edges": edges, "ops": tanh}, residual, edges)


def test_colours_of_their_own_for_each_layer_are_colours_of_the_network():
    own = make("partitioned, per layer", "one_hidden", "all_tanh")
    shared = policies.partitioned(*SIZES["one_hidden"], num_partitions=4)
    params, genotypes, _ = draw(own)
    assert own.num_params == shared.num_params == 4 + 5
    moved = genotypes + jnp.asarray(np.repeat([0, 2], [20, 10]), jnp.int32)[None]
    same(own, genotypes, shared, moved, params)


def test_pruning_nothing_by_magnitude_is_the_trained_policy():
    dense = make("dense", "two_hidden", "all_tanh")
    trained = dense.init(jax.random.key(5))
    pruned = policies.magnitude_pruned(*SIZES["two_hidden"], dense.max_edges, trained)
    np.testing.assert_array_equal(pruned.init(jax.random.key(0)), trained)
    same(pruned, nothing(pruned), dense, nothing(dense))


def test_the_largest_weights_are_kept_where_they_were():
    # 2-2-1: edges 0 .. 3 into the hidden units, 4 and 5 out of them, then two biases.
    trained = jnp.array([0.1, -3.0, 2.0, -0.2, 2.0, 0.3, 7.0, 8.0], jnp.float32)
    policy = policies.magnitude_pruned(2, (2,), 1, 3, trained)
    params = policy.init(jax.random.key(0))
    assert params.tolist() == [-3.0, 2.0, 2.0, 7.0, 8.0]
    first, second = policy.matrices(policy.bind(params, ()))
    assert first.tolist() == [[0.0, -3.0], [2.0, 0.0]]
    assert second.tolist() == [[2.0], [0.0]]


# ------------------------------------------------------------------------------ operations


def test_an_operation_that_was_not_chosen_spoils_neither_values_nor_gradients():
    from esenas_jax.policies.operations import operating

    # At 0 the reciprocal's derivative is infinite, at 200 the exponential is.
    x = jnp.array([0.0, 200.0, -200.0, 1e20], jnp.float32)
    for name in ("tanh", "relu", "identity", "sigmoid", "abs", "step"):
        chosen = jnp.full(4, policies.OPERATIONS.index(name), jnp.int32)
        activation = operating(policies.OPERATIONS, chosen)
        assert np.isfinite(activation(x)).all(), name
        slopes = jax.grad(lambda x, f=activation: jnp.sum(f(x)))(x)
        assert np.isfinite(slopes).all(), name


def test_operations_by_hand_and_what_overflows_stays_a_number():
    from esenas_jax.policies.operations import operating

    x = [0.0, -0.0, -2.0, 0.5, 300.0]
    for k, name in enumerate(policies.RELEASED_OPERATIONS):
        activation = operating(policies.RELEASED_OPERATIONS, jnp.full(5, k, jnp.int32))
        found = activation(jnp.array(x, jnp.float32))
        with np.errstate(over="ignore"):
            expected = [min(reference.operation(name, v), 1e30) for v in x]
        np.testing.assert_allclose(found, expected, rtol=3e-5, err_msg=name)
    assert policies.RELEASED_OPERATIONS.count("step") == 2
    assert len(policies.RELEASED_OPERATIONS) == 12


def test_an_overflow_does_not_reach_units_that_it_has_no_edge_to():
    # 1-2-1: both hidden units see 100; exp overflows and leads nowhere, tanh to the action.
    policy = policies.op_edges(1, (2,), 1, num_edges=3, operations=("exp", "tanh"))
    genotype = {
        "edges": jnp.array([0, 1, 4], jnp.int32),
        "ops": jnp.array([0, 1], jnp.int32),
    }
    policy.space.validate(genotype)
    network = policy.bind(jnp.ones(policy.num_params, jnp.float32), genotype)
    action = policy.apply(network, jnp.array([100.0], jnp.float32))
    np.testing.assert_allclose(action, [np.tanh(1.0)], rtol=4 * EPS)


# ------------------------------------------------------------------------------------ used


def moves(policy):
    """params, genotype, observations -> bool [P] twice: used, and can move an action; compiled."""

    @jax.jit
    def compared(params, genotype, observations):
        def act(params):
            network = policy.bind(params, genotype)
            return jax.vmap(policy.apply, in_axes=(None, 0))(network, observations)

        # The parameters as they are come with the others: the same operations, the same rounding.
        shifts = 0.5 * jnp.eye(policy.num_params + 1, policy.num_params, dtype=jnp.float32)
        actions = jax.vmap(act)(params[None] + shifts)
        return policy.used(genotype), jnp.any(actions[:-1] != actions[-1:], axis=(1, 2))

    return compared


@over_cases
def test_an_unused_parameter_cannot_change_an_action(kind, sizes, slip):
    policy = make(kind, sizes, slip)
    params, genotypes, observations = draw(policy)
    compared = moves(policy)
    for i in range(4):
        genotype = jax.tree.map(lambda x, i=i: np.asarray(x)[i], genotypes)
        used, moved = map(np.asarray, compared(np.asarray(params)[i], genotype, observations))
        assert used.shape == (policy.num_params,)
        assert used.dtype == bool
        assert not (moved & ~used).any()


# Every chosen edge lies on a path from an input to an output, every colour but one is present.
LIVE = {
    ("dense", "linear"): [],
    ("dense", "one_hidden"): [],
    ("dense", "two_hidden"): [],
    ("edge_pruned", "linear"): [0, 2, 3, 5],
    # 4-5-2: edges 0 .. 19 into the hidden units, 20 .. 29 out of them, two for each unit.
    ("edge_pruned", "one_hidden"): [0, 7, 8, 13, 20, 22, 25, 26, 29],
    # 3-4-3-2: 0 .. 11, 12 .. 23, 24 .. 29.
    ("edge_pruned", "two_hidden"): [0, 5, 6, 11, 12, 16, 20, 21, 24, 26, 29],
    # 3-2: edges 0 .. 5.
    ("residual_edges", "linear"): [0, 2, 3, 5],
    # 4-5-2: 0 .. 19 into the hidden units, 20 .. 37 from all others to the outputs.
    ("residual_edges", "one_hidden"): [0, 6, 7, 13, 19, 20, 23, 28, 30, 33, 35, 37],
    ("boolean_mask", "linear"): [1, 0, 0, 1, 1, 1],
    ("partitioned", "linear"): [0, 0, 2, 2, 0, 2],
    ("partitioned", "one_hidden"): [0, 2] * 15,
    ("partitioned", "two_hidden"): [2, 0, 0] * 10,
}
LIVE_AND_QUICK = (
    ("dense", "one_hidden", "all_tanh"),
    ("edge_pruned", "two_hidden", "slip"),
    ("residual_edges", "one_hidden", "slip"),
    ("boolean_mask", "linear", "all_tanh"),
    ("partitioned", "one_hidden", "slip"),
)


@pytest.mark.parametrize(
    ("kind", "sizes", "slip"),
    [
        pytest.param(*row, slip, marks=[] if (*row, slip) in LIVE_AND_QUICK else pytest.mark.slow)
        for row in LIVE
        for slip in SLIP
    ],
)
def test_used_is_exactly_where_a_parameter_can_change_an_action(kind, sizes, slip):
    genotype = jnp.array(LIVE[kind, sizes], jnp.int32)
    policy = make(kind, sizes, slip)
    if kind in ("edge_pruned", "residual_edges"):
        policy = getattr(policies, kind)(
            *SIZES[sizes], num_edges=genotype.size, linear_first_hidden=SLIP[slip]
        )
    policy.space.validate(genotype)
    params, _, observations = draw(policy)
    np.testing.assert_array_equal(*moves(policy)(params[0], genotype, observations))


def test_used_by_hand():
    # 2-2-1: edges 0 .. 3 into the hidden units, 4 and 5 out of them, then two biases.
    genotype = jnp.array([1, 4, 5], jnp.int32)
    pruned = policies.edge_pruned(2, (2,), 1, num_edges=3)
    np.testing.assert_array_equal(pruned.used(genotype), [0, 1, 0, 0, 1, 1, 1, 1])
    colours = jnp.array([3, 3, 1, 3, 1, 1], jnp.int32)
    shared = policies.partitioned(2, (2,), 1, num_partitions=5)
    np.testing.assert_array_equal(shared.used(colours), [0, 1, 0, 1, 0, 1, 1])
    own = policies.partitioned(2, (2,), 1, num_partitions=2, per_layer=True)
    colours = jnp.array([1, 1, 1, 1, 0, 1], jnp.int32)
    np.testing.assert_array_equal(own.used(colours), [0, 1, 1, 1, 1, 1])
    # With skips: 4 .. 8 lead to the output, from inputs and hidden units.
    residual = policies.residual_edges(2, (2,), 1, num_edges=2, linear_first_hidden=True)
    edges = jnp.array([0, 7], jnp.int32)
    np.testing.assert_array_equal(residual.used(edges), [1, 0, 0, 0, 0, 0, 0, 1, 0, 1])
    for kind in ("random_mask", "toeplitz", "circulant"):
        policy = make(kind, "one_hidden", "slip")
        expected = [1] * (policy.num_params - 5) + [0, 1, 1, 1, 1]
        np.testing.assert_array_equal(policy.used(()), expected)


def test_matrices_are_drawn_where_layers_follow_each_other():
    for kind in KINDS:
        policy = make(kind, "one_hidden", "all_tanh")
        assert (policy.matrices is None) == (kind in ("residual_edges", "op_edges"))
        assert policy.shapes == ((4, 5), (5, 2))
    residual = make("residual_edges", "linear", "all_tanh")
    assert residual.matrices is not None  # there is nothing to skip


# ---------------------------------------------------------------------------- sizes, starts


def test_sizes_are_those_of_the_papers():
    dense = policies.dense(17, (41,), 6)
    assert (dense.max_edges, dense.num_params) == (943, 943 + 41)
    shared = policies.partitioned(17, (), 6, num_partitions=17)
    assert (shared.max_edges, shared.num_params) == (102, 17)
    assert (shared.obs_size, shared.action_size) == (17, 6)
    pruned = policies.edge_pruned(17, (41,), 6, num_edges=64)
    assert (pruned.max_edges, pruned.num_params) == (943, 984)
    assert (pruned.space.num_items, pruned.space.num_chosen) == (943, 64)
    # Nothing to search in a dense policy.
    nothing = dense.space.sample(jax.random.key(0))
    assert dense.space.decisions(nothing) == 0
    dense.space.validate(nothing)


@pytest.mark.parametrize(
    ("policy", "weights", "weight_variance", "bias_variance"),
    [
        (policies.dense(100, (50,), 20), slice(0, 5000), 1 / 100, 0.0),
        (policies.dense(100, (50,), 20), slice(5000, 6000), 1 / 50, 0.0),
        (policies.edge_pruned(100, (50,), 20, 8), slice(0, 6000), 1 / 3, 1 / 3),
        (policies.partitioned(10, (500,), 2, 4000), slice(0, 4000), 1.0, 1.0),
        (policies.residual_edges(100, (50,), 20, 8), slice(0, 8000), 1 / 3, 1 / 3),
        # 149 numbers of the first layer, 69 of the second: the released 1 / sqrt(rows).
        (policies.toeplitz(100, (50,), 20), slice(0, 149), 1 / 50, 1.0),
        (policies.toeplitz(100, (50,), 20), slice(149, 218), 1 / 20, 1.0),
        (policies.circulant(100, (50,), 20), slice(0, 100), 1 / 50, 1.0),
    ],
)
def test_parameters_start_with_the_documented_variances(
    policy, weights, weight_variance, bias_variance
):
    params = np.asarray(policy.init(jax.random.key(0)), np.float64)
    num_biases = {100: 50, 10: 500}[policy.obs_size]
    assert params.shape == (policy.num_params,)
    for values, variance in (
        (params[weights], weight_variance),
        (params[-num_biases:], bias_variance),
    ):
        # Mean and mean square; the square of a normal (the widest case) has variance 2 v^2.
        assert abs(values.mean()) <= 5 * math.sqrt(variance / values.size)
        assert abs((values**2).mean() - variance) <= 5 * variance * math.sqrt(2 / values.size)
    if isinstance(policy.space, policies.edges.SubsetOf):
        assert np.abs(params).max() < 1.0


@pytest.mark.parametrize(
    ("make", "fans"),
    [
        # Weights of each layer, and the inputs and outputs of its matrix.
        (functools.partial(policies.edge_pruned, num_edges=8), [(5000, 100, 50), (1000, 50, 20)]),
        (policies.boolean_mask, [(5000, 100, 50), (1000, 50, 20)]),
        (
            functools.partial(policies.independent_edges, num_edges=(8, 8)),
            [(5000, 100, 50), (1000, 50, 20)],
        ),
        (
            functools.partial(policies.residual_edges, num_edges=8),
            [(5000, 100, 50), (3000, 150, 20)],
        ),
        (functools.partial(policies.op_edges, num_edges=8), [(5000, 100, 50), (3000, 150, 20)]),
    ],
)
@pytest.mark.parametrize("fan", [policies.fan_in_normal, policies.fan_out_normal])
def test_pruned_matrices_start_with_the_variance_of_the_whole_ones(make, fans, fan):
    params = np.asarray(make(100, (50,), 20, weight_init=fan).init(jax.random.key(0)), np.float64)
    assert params.size == sum(size for size, *_ in fans) + 50
    start = 0
    for size, n_in, n_out in fans:
        variance = 1 / (n_in if fan is policies.fan_in_normal else n_out)
        square = (params[start : start + size] ** 2).mean()
        assert abs(square - variance) <= 5 * variance * math.sqrt(2 / size)
        start += size


def test_a_fixed_mask_starts_with_the_weights_that_the_dense_policy_has_there():
    options = {"weight_init": policies.fan_in_normal, "bias_init": policies.uniform}
    pruned = policies.random_mask(9, (6,), 4, 30, **options)
    params = pruned.init(jax.random.key(1))
    dense = policies.dense(9, (6,), 4, **options)
    whole = dense.init(jax.random.key(1))
    for w, all_of_w in zip(
        pruned.matrices(pruned.bind(params, ())), dense.matrices(dense.bind(whole, ())), strict=True
    ):
        np.testing.assert_array_equal(w, np.where(w == 0, 0, all_of_w))
    np.testing.assert_array_equal(params[30:], whole[78:])


def test_weights_drawn_all_alike_are_drawn_at_once():
    """As the release does; runs that were published depend on it."""
    k_weights, k_biases = jax.random.split(jax.random.key(0))
    params = policies.edge_pruned(3, (4,), 2, 8).init(jax.random.key(0))
    np.testing.assert_array_equal(params[:20], policies.uniform(k_weights, (20,)))
    np.testing.assert_array_equal(params[20:], policies.uniform(k_biases, (4,)))
    params = policies.random_mask(3, (4,), 2, 8).init(jax.random.key(0))
    np.testing.assert_array_equal(params[:8], policies.uniform(k_weights, (8,)))


def test_initializers_are_the_ones_given():
    def ones(key, shape):
        return jnp.ones(shape, jnp.float32)

    for name, kind in KINDS.items():
        if name == "magnitude_pruned":
            continue  # starts from what was trained
        policy = kind(3, (4,), 2, weight_init=ones, bias_init=policies.zeros)
        params = policy.init(jax.random.key(0))
        assert params[:-4].tolist() == [1.0] * (policy.num_params - 4)
        assert params[-4:].tolist() == [0.0] * 4


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, (4,), 2), ValueError, "obs_size must be at least 1, got 0."),
        ((3, (4, 0), 2), ValueError, "a hidden layer's size must be at least 1, got 0."),
        ((3, (4,), -2), ValueError, "action_size must be at least 1, got -2."),
        ((3.0, (4,), 2), TypeError, "obs_size must be an integer, got 3.0."),
        ((3, (True,), 2), TypeError, "a hidden layer's size must be an integer, got True."),
        ((3, (4,), False), TypeError, "action_size must be an integer, got False."),
        ((3, ("4",), 2), TypeError, "a hidden layer's size must be an integer, got '4'."),
        ((3, 4, 2), TypeError, "hidden must be a sequence of layer sizes such as (32,), got 4."),
    ],
)
@over_kinds
def test_bad_layer_sizes_are_refused_in_one_sentence(kind, arguments, error, message):
    with pytest.raises(error) as raised:
        KINDS[kind](*arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: policies.edge_pruned(3, (4,), 2, num_edges=21),
            ValueError,
            "num_edges must be in [1, 20], got 21.",
        ),
        (
            lambda: policies.edge_pruned(3, (4,), 2, num_edges=0),
            ValueError,
            "num_edges must be in [1, 20], got 0.",
        ),
        (
            lambda: policies.edge_pruned(3, (4,), 2, num_edges=4.0),
            TypeError,
            "num_edges must be an integer, got 4.0.",
        ),
        (
            lambda: policies.partitioned(3, (4,), 2, num_partitions=0),
            ValueError,
            "num_partitions must be at least 1, got 0.",
        ),
        (
            lambda: policies.partitioned(3, (4,), 2, num_partitions=True),
            TypeError,
            "num_partitions must be an integer, got True.",
        ),
        (
            lambda: policies.partitioned(3, (4,), 2, 5, weight_init=policies.fan_in_normal),
            ValueError,
            (
                "weight_init of shared weights must draw every number alike (they are in no one "
                "matrix), got fan_in_normal."
            ),
        ),
        (
            lambda: policies.residual_edges(3, (4,), 2, num_edges=27),
            ValueError,
            "num_edges must be in [1, 26], got 27.",
        ),
        (
            lambda: policies.independent_edges(3, (4,), 2, num_edges=(13, 1)),
            ValueError,
            "num_edges of layer 0 must be in [1, 12], got 13.",
        ),
        (
            lambda: policies.independent_edges(3, (4,), 2, num_edges=(1,)),
            ValueError,
            "num_edges must be one number for each of the 2 layers of edges, got (1,).",
        ),
        (
            lambda: policies.independent_edges(3, (4,), 2, num_edges=8),
            ValueError,
            "num_edges must be one number for each of the 2 layers of edges, got 8.",
        ),
        (
            lambda: policies.op_edges(3, (4,), 2, num_edges=5, operations=("tanh", "cosh")),
            ValueError,
            (
                "an operation must be one of tanh, relu, exp, identity, sin, sigmoid, abs, cos, "
                "square, step, reciprocal, got 'cosh'."
            ),
        ),
        (
            lambda: policies.op_edges(3, (4,), 2, num_edges=5, operations=()),
            ValueError,
            "operations must be at least one, got ().",
        ),
        (
            lambda: policies.random_mask(3, (4,), 2, num_edges=21),
            ValueError,
            "num_edges must be in [1, 20], got 21.",
        ),
        (
            lambda: policies.random_mask(3, (4,), 2, num_edges=5, mask_seed=-1),
            ValueError,
            "mask_seed must be in [0, 4294967295], got -1.",
        ),
        (
            lambda: policies.magnitude_pruned(3, (4,), 2, 5, np.zeros(23)),
            ValueError,
            (
                "trained must be the 24 parameters of the dense policy with layers of 3, 4, 2 "
                "units, got an array of shape (23,)."
            ),
        ),
        (
            lambda: policies.magnitude_pruned(3, (), 1, 2, np.array([0.0, np.nan, np.inf])),
            ValueError,
            "trained must be finite, got 2 parameters that are not.",
        ),
    ],
)
def test_bad_numbers_of_edges_and_colours_are_refused_in_one_sentence(make, error, message):
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == message


# -------------------------------------------------------------------------------- the user's own


def own(**changed):
    return policies.custom(
        **{
            "obs_size": 3,
            "action_size": 2,
            "space": OneOf(2),
            "init": lambda key: jax.random.normal(key, (6,)),
            "bind": lambda params, genotype: params.reshape(3, 2) * genotype.astype(jnp.float32),
            "apply": lambda network, obs: obs @ network,
        }
        | changed
    )


def test_three_functions_are_a_policy():
    policy = own()
    assert (policy.num_params, policy.max_edges) == (6, 6)
    network = policy.bind(jnp.arange(6, dtype=jnp.float32), jnp.int32(1))
    np.testing.assert_array_equal(policy.apply(network, jnp.ones(3, jnp.float32)), [6.0, 9.0])
    assert policy.used(jnp.int32(0)).all()
    assert int(policy.cost(jnp.int32(0)).bits) == 6 * 32


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"obs_size": 0}, ValueError, "obs_size must be at least 1, got 0"),
        ({"space": 3}, TypeError, "space must be a search space, got 3"),
        (
            {"init": lambda key: jnp.zeros((3, 2), jnp.float32)},
            ValueError,
            r"init must return float32 \[P\], got float32 of shape \(3, 2\)",
        ),
        (
            {"action_size": 1},
            ValueError,
            r"apply must return an action float32 of shape \(1,\), got float32 of shape \(2,\)\.$",
        ),
        (
            {"init": lambda key: {"w": jnp.zeros(6, jnp.float32)}},
            ValueError,
            r"^init must return float32 \[P\], got a dict\.$",
        ),
        (
            {"apply": lambda network, obs: (obs @ network, obs)},
            ValueError,
            r"^apply must return an action float32 of shape \(2,\), got a tuple\.$",
        ),
        (
            {"apply": lambda network, obs: jnp.argsort(obs @ network).astype(jnp.int32)},
            ValueError,
            r"^apply must return an action float32 of shape \(2,\), got int32 of shape \(2,\)\.$",
        ),
    ],
)
def test_functions_that_do_not_fit_are_refused(changed, error, message):
    with pytest.raises(error, match=message):
        own(**changed)
