"""What architectures cost: the formulas that all policies share."""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from esenas_jax.types import Array, Cost

WEIGHT_BITS = 32
MOST = 2**31 - 1  # that an int32 holds: larger costs stay there


def cost(
    *,
    edges: int | Array,
    weights: int | Array,
    biases: int | Array,
    multiplications: int | Array | None = None,
    code: int = 0,
    entropy: float | Array = 0.0,
) -> Cost:
    """Return a cost; its bits are 32 a weight and those of its structure.

    Args:
        edges: that are present.
        weights: distinct trained numbers on them.
        biases: trained numbers that are on no edge.
        multiplications: as many as edges by default, at most `MOST` if it is an array.
        code: bits of the structure: 1 a candidate edge of a mask, `index_bits` a choice among
            colours or operations, 0 of what is the same in all architectures.
        entropy: the same when the structure is entropy-coded.
    """
    weights, code = jnp.asarray(weights, jnp.int32), min(code, MOST)
    if multiplications is None:
        multiplications = edges
    elif isinstance(multiplications, int):
        multiplications = min(multiplications, MOST)
    return Cost(
        edges=jnp.asarray(edges, jnp.int32),
        multiplications=jnp.asarray(multiplications, jnp.int32),
        weights=weights,
        biases=jnp.asarray(biases, jnp.int32),
        bits=code + WEIGHT_BITS * jnp.minimum(weights, (MOST - code) // WEIGHT_BITS),
        entropy_bits=WEIGHT_BITS * weights.astype(jnp.float32) + jnp.asarray(entropy, jnp.float32),
    )


def summed(parts: Array, more: int) -> Array:
    """Return the sum of int32 [n] that are at least 0, and `more`, at most `MOST`.

    It is exact unless it comes within a millionth of that.
    """
    near = jnp.sum(parts.astype(jnp.float32)) + float(more)
    exact = jnp.sum(parts, dtype=jnp.int32) + jnp.int32(min(more, MOST))
    return jnp.where(near < MOST * (1 - 1e-6), exact, MOST)


def pruned(
    whole: Cost, total: int, kept: int | Array, *, code: int, entropy: float | Array
) -> Cost:
    """Return what `kept` of an architecture's `total` edges cost, with what is always there.

    Args:
        whole: what it costs with all of them.
        total: edges that can be pruned.
        kept: how many of them are not.
        code: bits of the mask.
        entropy: the same when it is entropy-coded.
    """
    edges = whole.edges - total + kept
    return cost(edges=edges, weights=edges, biases=whole.biases, code=code, entropy=entropy)


def index_bits(options: int) -> int:
    """Return ceil(log2(options)): the bits that name one of them."""
    return (options - 1).bit_length()


def subset_entropy(num_items: int, num_chosen: int) -> float:
    """Return log2 C(num_items, num_chosen): the bits that name a subset of that size."""
    n, k = num_items, num_chosen
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def choice_entropy(counts: Array) -> Array:
    """Return n H(counts / n): the bits of n choices, coded by how often each option was chosen.

    Args:
        counts: int32 [options], how often each was chosen; n in all.
    """
    counts = counts.astype(jnp.float32)
    shares = jnp.where(counts > 0, counts / jnp.maximum(jnp.sum(counts), 1.0), 1.0)
    return -jnp.sum(counts * jnp.log2(shares))


def matrix_weights(shapes: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Return how many weights matrices (in, out) have that are dense, Toeplitz or circulant.

    Example:
        >>> matrix_weights([(17, 41), (41, 6)])
        {'dense': 943, 'toeplitz': 103, 'circulant': 82}
    """
    return {
        "dense": sum(n_in * n_out for n_in, n_out in shapes),
        "toeplitz": sum(n_in + n_out - 1 for n_in, n_out in shapes),
        "circulant": sum(max(n_in, n_out) for n_in, n_out in shapes),
    }
