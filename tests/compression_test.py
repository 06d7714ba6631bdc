"""Prune, share, encode: what each stage keeps, and how training goes on from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from esenas_jax import controllers, es_enas, gradient_training, policies, strategies, tasks

KEY = jax.random.key(0)


class Small(nn.Module):
    """A convolution and two dense layers, with biases: 2x2x4 + 4, 36x5 + 5, 5x2 + 2."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(4, (2, 2), padding="VALID")(x[..., None]))
        return nn.Dense(2)(nn.tanh(nn.Dense(5)(x.ravel())))


@functools.cache
def network():
    policy = policies.from_flax(Small(), jnp.zeros((4, 4)), search=None)
    return policy, np.asarray(jax.jit(policy.init)(KEY))


@functools.cache
def quantized(bits=2, num_edges=60):
    policy, params = network()
    pruned = policies.prune(policy, params, num_edges)
    return pruned, policies.quantize(policy, pruned, pruned.params, bits)


def output(policy, params, genotype=()):
    obs = np.random.default_rng(3).normal(size=policy.obs_size).astype(np.float32)

    @jax.jit
    def apply(params, genotype, obs):
        return policy.apply(policy.bind(params, genotype), obs)

    return np.asarray(apply(params, genotype, obs))


def test_pruning_keeps_the_largest_weights_and_all_biases():
    policy, params = network()
    pruned, _ = quantized()
    weights, biases = np.split(params, [policy.max_edges])
    assert policy.max_edges == 16 + 180 + 10
    assert pruned.policy.num_params == 60 + 11
    smallest_kept = np.abs(weights[pruned.edges]).min()
    assert (np.abs(np.delete(weights, pruned.edges)) <= smallest_kept).all()
    by_hand = np.zeros_like(params)
    by_hand[pruned.edges] = weights[pruned.edges]
    by_hand[policy.max_edges :] = biases
    np.testing.assert_allclose(
        output(pruned.policy, pruned.params), output(policy, by_hand), rtol=1e-6
    )
    assert int(pruned.policy.cost(()).edges) == 60


def test_all_edges_kept_is_the_network():
    policy, params = network()
    pruned = policies.prune(policy, params, policy.max_edges)
    np.testing.assert_array_equal(pruned.params, params)
    np.testing.assert_array_equal(output(pruned.policy, params), output(policy, params))


def test_weights_of_a_layer_become_the_centres_of_its_clusters():
    policy, params = network()
    pruned, small = quantized()
    ends = np.cumsum([i * o for i, o in policy.shapes])
    layer = np.searchsorted(ends, pruned.edges, side="right")
    shared, biases = np.split(small.params, [small.num_weights])
    assert shared.size == 3 * 4
    np.testing.assert_array_equal(biases, params[policy.max_edges :])
    for j in range(3):
        mine = params[pruned.edges[layer == j]]
        colour = small.genotype[layer == j]
        centres = shared.reshape(3, 4)[j]
        # Lloyd's fixed point: everyone is with the nearest centre, which is the mean of its own.
        np.testing.assert_array_equal(np.abs(mine[:, None] - centres).argmin(axis=1), colour)
        for c in np.unique(colour):
            np.testing.assert_allclose(centres[c], mine[colour == c].mean(), rtol=1e-4)


def test_the_quantized_policy_is_a_partition_and_counts_its_mask_and_colours():
    pruned, small = quantized()
    policy, _ = network()
    by_hand = np.zeros(policy.num_params, np.float32)
    layer = np.searchsorted(np.cumsum([i * o for i, o in policy.shapes]), pruned.edges, "right")
    by_hand[pruned.edges] = small.params[small.genotype + 4 * layer]
    by_hand[policy.max_edges :] = small.params[12:]
    np.testing.assert_allclose(
        output(small.policy, small.params, small.genotype), output(policy, by_hand), rtol=1e-5
    )
    small.policy.space.validate(small.genotype)
    cost = small.policy.cost(small.genotype)
    distinct = len(np.unique(small.genotype + 4 * layer))
    assert (int(cost.edges), int(cost.weights), int(cost.biases)) == (60, distinct, 11)
    assert int(cost.bits) == 32 * distinct + policy.max_edges + 60 * 2
    assert 32 * distinct < float(cost.entropy_bits) < int(cost.bits)


@pytest.mark.parametrize(("bits", "num_edges"), [(1, 1), (2, 60), (5, 206), (9, 100)])
def test_what_is_encoded_and_decoded_is_the_same_network(bits, num_edges):
    policy, _ = network()
    pruned, small = quantized(bits, num_edges)
    trained = small.params + 0.01 * np.random.default_rng(0).normal(size=small.params.size).astype(
        np.float32
    )
    data = policies.encode(policy, small, trained)
    params = policies.decode(policy, data)
    np.testing.assert_array_equal(np.flatnonzero(params[: policy.max_edges]), pruned.edges)
    np.testing.assert_allclose(
        output(policy, params), output(small.policy, trained, small.genotype), rtol=1e-5
    )


def test_distances_past_a_byte_are_coded():
    policy = policies.dense(40, (40,), 1)
    params = np.zeros(policy.num_params, np.float32)
    edges = [0, 254, 255, 510, 1100, 1599, 1639]
    params[edges] = np.arange(1, 8)
    pruned = policies.prune(policy, params, 7)
    small = policies.quantize(policy, pruned, pruned.params, 3)
    found = policies.decode(policy, policies.encode(policy, small, small.params))
    np.testing.assert_allclose(found, params, rtol=1e-6)


def test_the_code_is_about_as_short_as_its_entropy():
    """2,000 of 20,000 weights in 5 bits: Huffman codes are within 10 % of what entropy allows."""
    policy = policies.dense(100, (180,), 11)
    params = np.random.default_rng(1).normal(size=policy.num_params).astype(np.float32)
    pruned = policies.prune(policy, params, 2000)
    small = policies.quantize(policy, pruned, pruned.params, 5)
    size = 8 * len(policies.encode(policy, small, small.params))
    least = float(small.policy.cost(small.genotype).entropy_bits) + 32 * 180
    assert least < size < 1.1 * least
    assert size < 32 * policy.num_params / 15


REFUSED = r"^data must be the bytes of a compressed policy of \d+ edges: .*\.$"


@pytest.mark.parametrize("data", [b"", b"esq1", b"x" * 100])
def test_other_bytes_are_refused(data):
    with pytest.raises(
        ValueError, match=r"^data must be the bytes of a compressed policy of 206 edges: .*\.$"
    ):
        policies.decode(network()[0], data)


def test_bytes_cut_short_or_of_another_network_are_refused():
    policy, _ = network()
    _, small = quantized()
    data = policies.encode(policy, small, small.params)
    others = policies.dense(103, (1,), 103)  # with as many edges
    assert others.max_edges == policy.max_edges
    cut = [(data[:end], policy) for end in range(len(data))]
    for wrong, reader in (*cut, (data + b"x", policy), (data, others)):
        with pytest.raises(
            ValueError, match=r"^data must be the bytes of a compressed policy of \d+ edges: .*\.$"
        ):
            policies.decode(reader, wrong)


# --- training what is left ------------------------------------------------------------------------


def linear_task():
    return tasks.polynomial_regression(jax.random.key(1), degree=3, batch_size=64)


@functools.cache
def trained():
    policy = policies.dense(4, (), 1, output_activation=policies.identity)
    train = jax.jit(gradient_training(policy, linear_task(), 2000, optimizer=optax.adam(0.1)))
    return policy, *train(KEY, jnp.zeros(4))


def test_a_gradient_finds_the_polynomial():
    _, params, scores = trained()
    assert scores[0] < -0.5
    assert scores[-1] > -1e-3
    target = 5.0 * jax.random.normal(jax.random.key(1), (4,))
    np.testing.assert_allclose(params, target, atol=0.05)


def test_shared_weights_have_the_sum_of_their_edges_gradients():
    policy, params, _ = trained()
    pruned = policies.prune(policy, params, 4)
    small = policies.quantize(policy, pruned, pruned.params, 1)
    step = gradient_training(
        small.policy, linear_task(), 1, optimizer=optax.sgd(1.0), genotype=small.genotype
    )
    moved = jax.jit(step)(KEY, jnp.asarray(small.params))[0] - small.params
    alone = gradient_training(policy, linear_task(), 1, optimizer=optax.sgd(1.0))
    dense = jnp.asarray(small.params)[small.genotype]
    each = jax.jit(alone)(KEY, dense)[0] - dense
    summed = jnp.zeros(2).at[small.genotype].add(each)
    np.testing.assert_allclose(moved, summed, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("multiplicative", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_evolution_goes_on_from_where_the_gradient_left(multiplicative):
    policy, params, _ = trained()
    pruned = policies.prune(policy, params, 4)
    small = policies.quantize(policy, pruned, pruned.params, 1)
    strategy = strategies.ars(8, 1, 0.02, 0.01, multiplicative=multiplicative)
    search = es_enas(
        small.policy,
        linear_task(),
        strategy,
        controllers.constant(small.policy.space, small.genotype),
    )
    state = jax.jit(search.init)(KEY)
    np.testing.assert_array_equal(state.strategy.params, small.params)
    state, metrics = jax.jit(search.run, static_argnums=2)(KEY, state, 60)
    assert metrics.exact_mean[-20:].mean() > metrics.exact_mean[0]


def test_multiplicative_noise_is_in_proportion_to_the_parameter():
    strategy = strategies.es(4, 1, 0.1, 0.2, multiplicative=True)
    plain = strategies.es(4, 1, 0.1, 0.2)
    params = jnp.array([0.0, 0.5, -2.0, 10.0])
    ids = jnp.arange(8, dtype=jnp.int32)

    @jax.jit
    def perturbations(params):
        state = strategy.init(params)
        made = (
            strategy.candidates(KEY, state, ids),
            plain.candidates(KEY, plain.init(params), ids),
            jax.vmap(lambda i: strategy.candidate(KEY, state, i))(ids),
        )
        return [x - params[None] for x in made]

    made, drawn, one = perturbations(params)
    np.testing.assert_allclose(made, np.asarray(drawn) * np.abs(params), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(made, one, rtol=1e-4, atol=1e-6)


WRONG = {
    "more than there are": (
        lambda: policies.prune(*network(), 207),
        "num_edges must be in [1, 206], got 207.",
    ),
    "parameters of another": (
        lambda: policies.prune(network()[0], np.zeros(3), 2),
        "params must be the policy's 217 parameters, got an array of shape (3,).",
    ),
    "no numbers": (
        lambda: policies.prune(network()[0], np.full(217, np.nan), 2),
        "params must be finite, got 217 that are not.",
    ),
    "a policy that is searched": (
        lambda: policies.prune(policies.edge_pruned(3, (), 1, num_edges=2), np.zeros(3), 2),
        "the policy must have nothing to search, got one over 2 of 3.",
    ),
    "no bits": (lambda: quantized(0), "bits must be in [1, 16], got 0."),
    "an architecture that is missing": (
        lambda: gradient_training(policies.edge_pruned(4, (), 1, num_edges=2), linear_task(), 1),
        "genotype must be an architecture of 2 of 4, got None: there are several.",
    ),
    "a function for an optimizer": (
        lambda: gradient_training(policies.dense(4, (), 1), linear_task(), 1, optimizer=optax.adam),
        "optimizer must be an optax optimizer, optax.adam(0.1) say, got a function.",
    ),
    "episodes": (
        lambda: gradient_training(policies.dense(3, (), 1), tasks.episodes(tasks.pendulum()), 1),
        "the task must be single-shot, got Episodes.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_gets_one_sentence(name):
    make, sentence = WRONG[name]
    with pytest.raises((TypeError, ValueError)) as raised:
        make()
    assert str(raised.value) == sentence
