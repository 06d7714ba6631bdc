"""Noise sources: what strategies and results rely on, counted within five standard errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import strategies

KEY = jax.random.key(11)
SOURCES = {
    "gaussian": strategies.gaussian(),
    "rademacher": strategies.rademacher(),
    "hadamard": strategies.hadamard(),
    "shared_table": strategies.shared_table(2**20),
    "shared_table float16": strategies.shared_table(2**20, "float16"),
    "shared_table bfloat16": strategies.shared_table(2**20, "bfloat16"),
}
SIGNS = ("rademacher", "hadamard")
K, D, P = 4000, 4, 8
every_source = pytest.mark.parametrize("name", SOURCES)


@functools.cache
def drawer(name: str, directions: int, size: int):
    noise = SOURCES[name]
    kept = noise.init(size)
    ids = jnp.arange(directions, dtype=jnp.int32)
    return jax.jit(lambda key: jax.vmap(lambda d: noise.sample(key, kept, d, size))(ids))


def draw(name: str, directions: int, size: int, key=KEY) -> np.ndarray:
    return np.asarray(drawer(name, directions, size)(key), np.float64)


@functools.cache
def generations(name: str) -> np.ndarray:
    """Return the perturbations [K, D, P] of K generations."""
    noise = SOURCES[name]
    kept = noise.init(P)
    ids = jnp.arange(D, dtype=jnp.int32)

    @jax.jit
    @jax.vmap
    def one(k):
        return jax.vmap(lambda d: noise.sample(jax.random.fold_in(KEY, k), kept, d, P))(ids)

    return np.asarray(one(jnp.arange(K)), np.float64)


@every_source
def test_entries_have_mean_0_and_variance_1(name):
    x = generations(name)
    if name == "hadamard":
        x = x[:, 0]  # the rows of a block share their signs: one is what is independent
    n = x.size
    assert abs(x.mean()) < 5 / np.sqrt(n)
    assert abs((x**3).mean()) < 5 * np.sqrt(15 / n)
    if name in SIGNS:
        assert set(np.unique(x)) == {-1.0, 1.0}
    else:
        assert abs((x**2).mean() - 1) < 5 * np.sqrt(2 / n)
        assert abs((x**4).mean() - 3) < 5 * np.sqrt(96 / n)


@every_source
def test_directions_and_weights_are_independent(name):
    """All pairs of entries of a generation: covariances, and those of squares, over generations."""
    x = generations(name).reshape(K, D * P)
    pairs = np.triu(np.ones((D * P, D * P), bool), 1)
    if name == "hadamard":
        entry = np.arange(D * P) % P
        pairs &= entry[:, None] != entry[None]  # of one entry the rows of a block share the sign
    covariance = x.T @ x / K
    assert np.abs(covariance[pairs]).max() < 5 / np.sqrt(K)
    if name not in SIGNS:
        squares = (x**2 - 1) / np.sqrt(2)
        assert np.abs((squares.T @ squares / K)[pairs]).max() < 5 / np.sqrt(K)


@every_source
def test_a_direction_is_the_same_whoever_asks_and_new_in_every_generation(name):
    noise = SOURCES[name]
    kept = noise.init(60)
    alone = jax.jit(lambda d: noise.sample(KEY, kept, d, 60))
    block = draw(name, 200, 60)
    for direction in (0, 3, 199):
        assert np.array_equal(alone(jnp.int32(direction)), block[direction])
    other = draw(name, 200, 60, jax.random.key(12))
    assert np.unique(np.concatenate([block, other]), axis=0).shape == (400, 60)


def test_hadamard_directions_of_a_block_are_orthogonal():
    block = draw("hadamard", 128, 64)
    gram = block @ block.T
    assert np.array_equal(gram[:64, :64], 64 * np.eye(64))
    assert np.array_equal(gram[64:, 64:], 64 * np.eye(64))
    assert not np.array_equal(block[:64], block[64:])  # new signs


def test_hadamard_rows_are_those_of_the_matrix():
    from scipy.linalg import hadamard

    block = draw("hadamard", 16, 16)
    signs = block[0]  # row 0 of the matrix is all ones
    assert np.array_equal(block, hadamard(16) * signs)


def test_a_slice_of_the_table_is_where_the_key_says():
    noise = strategies.shared_table(1000, table_seed=3)
    kept = noise.init(10)
    table = np.asarray(kept.value)
    assert np.array_equal(table, jax.random.normal(jax.random.key(3), (1000,)))
    offsets = set()
    sample = jax.jit(lambda d: noise.sample(KEY, kept, d, 10))
    for direction in range(200):
        got = np.asarray(sample(jnp.int32(direction)))
        (offset,) = np.flatnonzero(table == got[0])
        assert np.array_equal(table[offset : offset + 10], got)
        offsets.add(int(offset))
    assert len(offsets) > 150


def test_every_offset_of_the_table_can_be_drawn():
    noise = strategies.shared_table(12)
    kept = noise.init(10)
    sample = jax.jit(lambda d: noise.sample(KEY, kept, d, 10))
    starts = [float(sample(jnp.int32(d))[0]) for d in range(60)]
    assert set(starts) == {float(x) for x in kept.value[:3]}


@pytest.mark.parametrize(
    ("given", "size", "message"),
    [
        ({"table_size": 1}, 1, "table_size must be at least 2, got 1"),
        ({"table_size": 10}, 10, "table_size must be above the number of parameters, 10, got 10"),
        ({"dtype": "int8"}, 1, "dtype must be one of float32, float16, bfloat16, got 'int8'"),
        ({"table_seed": -1}, 1, r"table_seed must be in \[0, 4294967295\], got -1"),
    ],
)
def test_a_table_that_cannot_be_is_refused(given, size, message):
    with pytest.raises(ValueError, match=message):
        strategies.shared_table(**given).init(size)
