"""Policies: against the released forward pass, and what pruned and unused parameters can do."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import policies
from tests.reference import policies as reference

SIZES = {"linear": (3, (), 2), "one_hidden": (4, (5,), 2), "two_hidden": (3, (4, 3), 2)}
KINDS = {
    "dense": policies.dense,
    "edge_pruned": functools.partial(policies.edge_pruned, num_edges=4),
    "partitioned": functools.partial(policies.partitioned, num_partitions=3),
}
SLIP = {"all_tanh": False, "slip": True}
EPS = float(np.finfo(np.float32).eps)
BATCH = 16

over_kinds = pytest.mark.parametrize("kind", KINDS)
over_sizes = pytest.mark.parametrize("sizes", SIZES)
over_slip = pytest.mark.parametrize("slip", SLIP)


@functools.cache
def make(kind, sizes, slip):
    return KINDS[kind](*SIZES[sizes], linear_first_hidden=SLIP[slip])


@functools.cache
def acts(policy):
    """params [B, P], genotypes [B], observations [T, O] -> actions [B, T, A], compiled."""

    def one(params, genotype, observations):
        network = policy.bind(params, genotype)
        return jax.vmap(policy.apply, in_axes=(None, 0))(network, observations)

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None)))


def draw(policy, seed=0):
    """A batch of parameters in [-1, 1], genotypes, and observations in [-1, 1]."""
    k_params, k_genotype, k_obs = jax.random.split(jax.random.key(seed), 3)
    params = jax.random.uniform(k_params, (BATCH, policy.num_params), jnp.float32, -1.0, 1.0)
    observations = jax.random.uniform(k_obs, (5, policy.obs_size), jnp.float32, -1.0, 1.0)
    return params, policy.space.sample(k_genotype, (BATCH,)), observations


def flat(sizes):
    obs_size, hidden, action_size = SIZES[sizes]
    return [obs_size, *hidden, action_size]


def rounding(sizes):
    """A bound on float32's error in an action, for weights and observations in [-1, 1].

    A unit sums n products (and a bias), each of at most `size`: n + 1 roundings of at most n * size
    each, and two more in tanh; an error in its inputs is passed on at most n times as large.
    """
    error, size = 0.0, 1.0
    for n in flat(sizes)[:-1]:
        total = n * size + 1.0
        error = n * error + (n + 3) * EPS * total
        size = total  # 1 but for the slip's linear unit
    return error


def expected_action(kind, sizes, slip, params, genotype, obs):
    layer_sizes = flat(sizes)
    num_inputs, num_nodes = layer_sizes[0], sum(layer_sizes)
    edges = reference.aggregate_edges(layer_sizes)
    num_weights = 3 if kind == "partitioned" else len(edges)
    params = np.asarray(params, np.float64)
    biases = np.full(num_nodes, 99.0)  # inputs and outputs have none
    biases[num_inputs : num_nodes - layer_sizes[-1]] = params[num_weights:]
    options = {"linear_first_hidden": SLIP[slip]}
    if kind == "partitioned":
        return reference.partition_policy_action(
            params[:3], biases, genotype, layer_sizes, obs, **options
        )
    matrix = np.full((num_nodes, num_nodes), 99.0)
    for edge, weight in zip(edges, params, strict=False):
        matrix[edge] = weight
    chosen = edges if kind == "dense" else [edges[i] for i in np.asarray(genotype)]
    return reference.edge_policy_action(matrix, biases, chosen, layer_sizes, obs, **options)


@over_slip
@over_sizes
@over_kinds
def test_actions_are_those_of_the_released_forward_pass(kind, sizes, slip):
    policy = make(kind, sizes, slip)
    params, genotypes, observations = draw(policy)
    actions = np.asarray(acts(policy)(params, genotypes, observations))
    expected = [
        [
            expected_action(kind, sizes, slip, params[i], np.asarray(genotypes)[i], obs)
            for obs in np.asarray(observations)
        ]
        for i in range(BATCH)
    ]
    assert actions.shape == (BATCH, 5, 2)
    np.testing.assert_allclose(actions, expected, rtol=0, atol=rounding(sizes))


@over_kinds
def test_the_slip_changes_a_network_only_through_its_first_hidden_unit(kind):
    params, genotypes, observations = draw(make(kind, "one_hidden", "slip"))
    right, slipped = (
        np.asarray(acts(make(kind, "one_hidden", slip))(params, genotypes, observations))
        for slip in SLIP
    )
    assert not np.array_equal(right, slipped)
    linear = [acts(make(kind, "linear", slip))(*draw(make(kind, "linear", slip))) for slip in SLIP]
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


@over_slip
@over_sizes
@pytest.mark.parametrize("poison", [1e6, np.nan, np.inf])
def test_weights_of_pruned_edges_cannot_matter(sizes, slip, poison):
    policy = make("edge_pruned", sizes, slip)
    act = acts(policy)
    params, genotypes, observations = draw(policy)
    chosen = np.zeros((BATCH, policy.max_edges), bool)
    np.put_along_axis(chosen, np.asarray(genotypes), True, axis=1)
    poisoned = np.array(params)
    poisoned[:, : policy.max_edges][~chosen] = poison
    np.testing.assert_array_equal(
        act(jnp.asarray(poisoned), genotypes, observations), act(params, genotypes, observations)
    )
    assert (~chosen).any(axis=1).all()
    # Uncompiled too: XLA may turn a product with a mask into a selection.
    clean, bound = (policy.bind(jnp.asarray(p[0]), genotypes[0]) for p in (params, poisoned))
    jax.tree.map(np.testing.assert_array_equal, bound, clean)


@over_slip
@over_sizes
def test_keeping_every_edge_is_the_dense_policy(sizes, slip):
    dense = make("dense", sizes, slip)
    whole = policies.edge_pruned(
        *SIZES[sizes], num_edges=dense.max_edges, linear_first_hidden=SLIP[slip]
    )
    params, genotypes, observations = draw(whole)
    np.testing.assert_array_equal(
        acts(whole)(params, genotypes, observations),
        acts(dense)(params, dense.space.sample(jax.random.key(0), (BATCH,)), observations),
    )


@over_slip
@over_sizes
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
        acts(coloured)(params, jnp.asarray(colours, jnp.int32), observations),
        acts(dense)(
            jnp.asarray(unshared), dense.space.sample(jax.random.key(0), (BATCH,)), observations
        ),
    )


# ------------------------------------------------------------------------------------ used


def moved_by(policy, params, genotype, observations):
    """bool [P]: does an action change when this one parameter does?"""
    shifted = params[None] + 0.5 * jnp.eye(policy.num_params, dtype=jnp.float32)
    several = jax.tree.map(lambda x: jnp.broadcast_to(x, (policy.num_params, *x.shape)), genotype)
    act = acts(policy)
    before = act(jnp.broadcast_to(params, shifted.shape), several, observations)
    return np.any(np.asarray(act(shifted, several, observations) != before), axis=(1, 2))


@over_slip
@over_sizes
@over_kinds
def test_an_unused_parameter_cannot_change_an_action(kind, sizes, slip):
    policy = make(kind, sizes, slip)
    params, genotypes, observations = draw(policy)
    for i in range(4):
        genotype = jax.tree.map(lambda x, i=i: x[i], genotypes)
        used = np.asarray(policy.used(genotype))
        assert used.shape == (policy.num_params,)
        assert used.dtype == bool
        assert not (moved_by(policy, params[i], genotype, observations) & ~used).any()


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
    ("partitioned", "linear"): [0, 0, 2, 2, 0, 2],
    ("partitioned", "one_hidden"): [0, 2] * 15,
    ("partitioned", "two_hidden"): [2, 0, 0] * 10,
}


@over_slip
@pytest.mark.parametrize(("kind", "sizes"), LIVE)
def test_used_is_exactly_where_a_parameter_can_change_an_action(kind, sizes, slip):
    genotype = jnp.array(LIVE[kind, sizes], jnp.int32)
    policy = make(kind, sizes, slip)
    if kind == "edge_pruned":
        policy = policies.edge_pruned(
            *SIZES[sizes], num_edges=genotype.size, linear_first_hidden=SLIP[slip]
        )
    policy.space.validate(genotype)
    params, _, observations = draw(policy)
    moved = moved_by(policy, params[0], genotype, observations)
    np.testing.assert_array_equal(policy.used(genotype), moved)


def test_used_and_cost_by_hand():
    # 2-2-1: edges 0 .. 3 into the hidden units, 4 and 5 out of them, then two biases.
    genotype = jnp.array([1, 4, 5], jnp.int32)
    pruned = policies.edge_pruned(2, (2,), 1, num_edges=3)
    np.testing.assert_array_equal(pruned.used(genotype), [0, 1, 0, 0, 1, 1, 1, 1])
    assert tuple(map(int, pruned.cost(genotype))) == (3, 3)
    colours = jnp.array([3, 3, 1, 3, 1, 1], jnp.int32)
    shared = policies.partitioned(2, (2,), 1, num_partitions=5)
    np.testing.assert_array_equal(shared.used(colours), [0, 1, 0, 1, 0, 1, 1])
    assert tuple(map(int, shared.cost(colours))) == (6, 2)
    dense = policies.dense(2, (2,), 1)
    assert tuple(map(int, dense.cost(dense.space.sample(jax.random.key(0))))) == (6, 6)
    for policy, point in ((pruned, genotype), (shared, colours)):
        assert all(x.dtype == jnp.int32 and x.shape == () for x in policy.cost(point))


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


def test_initializers_are_the_ones_given():
    def ones(key, shape):
        return jnp.ones(shape, jnp.float32)

    for kind in KINDS.values():
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
    ],
)
def test_bad_numbers_of_edges_and_colours_are_refused_in_one_sentence(make, error, message):
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == message
