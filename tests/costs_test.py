"""What architectures cost: by hand, and the sizes of the papers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import policies
from esenas_jax.policies import costs
from experiments import results

CHROMATIC = (17, (41,), 6)


def numbers(cost):
    assert all(x.shape == () for x in cost)
    assert [x.dtype for x in cost] == [jnp.int32] * 5 + [jnp.float32]
    return tuple(
        float(x) if name == "entropy_bits" else int(x) for name, x in cost._asdict().items()
    )


def ints(values):
    return jnp.array(values, jnp.int32)


def entropy(*counts):
    """n H of how often each option was chosen."""
    n = sum(counts)
    return -sum(c * math.log2(c / n) for c in counts if c)


# 2-2-1: six edges and two biases; eight edges with skips.
TWO = (2, (2,), 1)
COSTS = {
    "dense": (policies.dense(*TWO), (), (6, 6, 6, 2, 192, 192)),
    "the slip's bias is not used": (
        policies.dense(*TWO, linear_first_hidden=True), (), (6, 6, 6, 1, 192, 192),
    ),
    "linear": (policies.dense(3, (), 2, linear_first_hidden=True), (), (6, 6, 6, 0, 192, 192)),
    "edge_pruned": (
        policies.edge_pruned(*TWO, num_edges=3), ints([1, 4, 5]),
        (3, 3, 3, 2, 96 + 6, 96 + math.log2(20)),
    ),
    "independent_edges": (
        policies.independent_edges(*TWO, num_edges=(2, 1)), (ints([0, 1]), ints([1])),
        (3, 3, 3, 2, 96 + 6, 96 + math.log2(6) + 1),
    ),
    "residual_edges": (
        policies.residual_edges(*TWO, num_edges=2), ints([0, 7]),
        (2, 2, 2, 2, 64 + 8, 64 + math.log2(28)),
    ),
    "boolean_mask": (
        policies.boolean_mask(*TWO), ints([1, 0, 0, 1, 0, 0]),
        (2, 2, 2, 2, 64 + 6, 64 + entropy(2, 4)),
    ),
    "boolean_mask, nothing": (policies.boolean_mask(*TWO), ints([0] * 6), (0, 0, 0, 2, 6, 0)),
    "op_edges": (
        policies.op_edges(*TWO, num_edges=2), {"edges": ints([0, 7]), "ops": ints([10, 2])},
        (2, 2, 2, 2, 64 + 8 + 2 * 4, 64 + math.log2(28) + 2),
    ),
    "op_edges, the slip's operation is not used": (
        policies.op_edges(*TWO, num_edges=2, linear_first_hidden=True),
        {"edges": ints([0, 7]), "ops": ints([10, 2])},
        (2, 2, 2, 1, 64 + 8 + 4, 64 + math.log2(28)),
    ),
    "partitioned": (
        policies.partitioned(*TWO, num_partitions=5), ints([3, 3, 1, 3, 1, 1]),
        (6, 6, 2, 2, 64 + 6 * 3, 64 + 6),
    ),
    "partitioned, per layer": (
        policies.partitioned(*TWO, num_partitions=2, per_layer=True), ints([0, 0, 0, 1, 1, 0]),
        (6, 6, 4, 2, 128 + 6, 128 + entropy(3, 1) + 2),
    ),
    "random_mask": (
        policies.random_mask(*TWO, num_edges=3), (), (3, 3, 3, 2, 96 + 6, 96 + math.log2(20)),
    ),
    "magnitude_pruned": (
        policies.magnitude_pruned(*TWO, 3, np.ones(8)), (),
        (3, 3, 3, 2, 96 + 6, 96 + math.log2(20)),
    ),
    "toeplitz": (policies.toeplitz(*TWO), (), (6, 6, 5, 2, 160, 160)),
    "circulant": (policies.circulant(*TWO), (), (6, 6, 4, 2, 128, 128)),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_costs_by_hand(name):
    policy, genotype, expected = COSTS[name]
    if jax.tree.leaves(genotype):
        policy.space.validate(genotype)
    assert numbers(policy.cost(genotype)) == pytest.approx(expected, rel=1e-6)


def test_the_cost_of_several_architectures_is_that_of_each():
    policy = policies.op_edges(*TWO, num_edges=2)
    genotypes = policy.space.sample(jax.random.key(0), (5,))
    together = jax.jit(jax.vmap(policy.cost))(genotypes)
    for i in range(5):
        alone = policy.cost(jax.tree.map(lambda x, i=i: x[i], genotypes))
        np.testing.assert_allclose([x[i] for x in together], alone, rtol=1e-6)


def test_sizes_and_bits_are_those_of_the_chromatic_networks():
    """reference/papers: 943, 103, 82 and 17 weights for 17-41-6."""
    for make, weights, bits in (
        (policies.dense, 943, 30_176),
        (policies.toeplitz, 103, 3_296),
        (policies.circulant, 82, 2_624),
    ):
        policy = make(*CHROMATIC)
        assert policy.num_params == weights + 41
        found = policy.cost(policy.space.sample(jax.random.key(0)))
        assert (found.weights, found.bits, found.entropy_bits) == (weights, bits, bits)
    chromatic = policies.partitioned(*CHROMATIC, num_partitions=17)
    assert chromatic.num_params == 17 + 41
    found = chromatic.cost(jnp.arange(943, dtype=jnp.int32) % 17)
    assert (found.weights, found.bits) == (17, 5_259)
    assert found.entropy_bits == pytest.approx(544 + entropy(*[56] * 8, *[55] * 9), rel=1e-6)
    assert policies.dense(17, (), 6).num_params == 102


@pytest.mark.parametrize(
    ("obs_size", "action_size", "expected"),
    [
        (8, 2, (410, 90, 82)),
        (11, 2, (533, 93, 82)),
        (11, 3, (574, 94, 82)),
        (23, 7, (1_230, 110, 82)),
        (111, 8, (4_879, 199, 152)),
    ],
)
def test_matrices_of_the_papers_tasks(obs_size, action_size, expected):
    shapes = policies.dense(obs_size, (41,), action_size).shapes
    assert tuple(policies.matrix_weights(shapes).values()) == expected


def test_bits_of_a_network_that_is_too_large_to_count_stay_the_largest_number():
    made = costs.cost(edges=2**27, weights=2**27, biases=0, code=2**40)
    assert int(made.bits) == 2**31 - 1
    made = costs.cost(edges=2**27, weights=2**27, biases=0, code=31)
    assert 2**31 - 64 < int(made.bits) < 2**31
    assert float(made.entropy_bits) == 2.0**32


def test_multiplications_that_are_too_many_to_count_stay_the_largest_number():
    made = costs.cost(edges=2, multiplications=2**40, weights=2, biases=0)
    assert int(made.multiplications) == 2**31 - 1
    parts = ints([2**30, 2**30, 7])
    assert int(costs.summed(parts[1:], 5)) == 2**30 + 12
    assert int(costs.summed(parts, 0)) == int(costs.summed(parts[2:], 2**40)) == 2**31 - 1


def test_the_entropy_of_a_large_subset_is_its_binomial():
    assert costs.subset_entropy(736, 64) == pytest.approx(math.log2(math.comb(736, 64)), rel=1e-12)
    assert [costs.index_bits(n) for n in (1, 2, 3, 16, 17)] == [0, 1, 2, 4, 5]


def test_the_summary_says_where_weights_shrink_and_bits_do_not():
    policy = policies.partitioned(*CHROMATIC, num_partitions=17)
    cost = policy.cost(jnp.arange(943, dtype=jnp.int32) % 17)
    found = {
        **{name: int(x) for name, x in cost._asdict().items()},
        "normalizer_numbers": 34,
        "possible_edges": policy.max_edges,
        "compression": results.compression(policy, cost),
    }
    lines = results.costs(found)
    assert lines["Edges"] == (
        "943 of 943, 17 distinct weights; biases: 41, numbers that normalise observations: 34"
    )
    assert lines["Multiplications"] == "943 of weights and activations, to act once"
    assert lines["Bits"].startswith("5,259 of weights and structure, 4,398 when")
    assert lines["Dense, same layers"] == (
        "943 weights, 55.5 times as many; 30,176 bits, 5.74 times as many"
    )
    assert lines["Toeplitz, same layers"] == (
        "103 weights, 6.06 times as many; 3,296 bits, 0.627 times as many"
    )
    assert lines["Circulant, same layers"].startswith("82 weights, 4.82 times as many; 2,624 bits")
    nothing = policies.dense(3, (), 1)._replace(shapes=())
    assert results.compression(nothing, nothing.cost(())) == {}
