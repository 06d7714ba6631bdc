"""Where perturbations come from: addressed by direction, so that they can be made again.

Every source gives entries of mean 0 and variance 1, and is a pure function of (key, direction).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.types import Array, Key, PyTree, Shared


class Noise(NamedTuple):
    """A source of perturbations."""

    init: Callable[[int], PyTree]  # P -> what it draws from: () or a `Shared` table
    # the generation's noise key, what `init` returned, direction [], P -> perturbation, float32 [P]
    sample: Callable[[Key, PyTree, Array, int], Array]
    costly: bool = False  # whether to draw a perturbation takes longer than to read it from memory


def gaussian() -> Noise:
    """Return independent N(0, 1) entries from the counter-based generator."""

    def sample(key: Key, kept: PyTree, direction: Array, size: int) -> Array:
        del kept
        key = jax.random.fold_in(key, direction)
        # Each block of Threefry then gives two numbers, not one: that takes two thirds of the
        # time. JAX's default lets several devices share one array of numbers; none does so here.
        with jax.threefry_partitionable(False):
            drawn = jax.random.normal(key, (size,), jnp.float32)
        # XLA would multiply the last factor of a draw, sqrt(2), with the scale of a perturbation
        # in some programs, and with the draw in others: the numbers would differ by rounding.
        return jax.lax.optimization_barrier(drawn)

    return Noise(lambda size: (), sample, costly=True)


def rademacher() -> Noise:
    """Return independent entries of -1 and +1, each with probability 1/2: 32 of a random word.

    Their fourth moment is 1 where a Gaussian's is 3, and every perturbation has the same length.
    """

    def sample(key: Key, kept: PyTree, direction: Array, size: int) -> Array:
        del kept
        return _signs(jax.random.fold_in(key, direction), size)

    return Noise(lambda size: (), sample)


def hadamard() -> Noise:
    """Return rows of a Hadamard matrix times a random sign vector (arXiv 1804.02395, section 3).

    Entry j of direction d is s_j (-1)^popcount(d' & j) with d' = d mod n and n the power of two
    that is at least P. The n directions of a block share the signs s, and are orthogonal when
    P = n; the next block draws new signs.
    """

    def sample(key: Key, kept: PyTree, direction: Array, size: int) -> Array:
        del kept
        order = 1 << max(size - 1, 0).bit_length()
        signs = _signs(jax.random.fold_in(key, direction // order), size)
        common = jnp.arange(size, dtype=jnp.int32) & (direction % order)
        odd = jax.lax.population_count(common) % 2
        return jnp.where(odd == 1, -signs, signs)

    return Noise(lambda size: (), sample)


def shared_table(table_size: int = 2**24, dtype: str = "float32", table_seed: int = 0) -> Noise:
    """Return slices of one table of N(0, 1) numbers, as the ARS code and OpenAI-ES use.

    Only an offset is drawn, so a perturbation costs a read. The short cut: slices overlap, and two
    directions whose offsets differ by less than P share numbers, shifted; of D directions
    D^2 P / table_size pairs do. Entries are N(0, 1) over tables, not over keys.

    Args:
        table_size: numbers in it, more than the parameters; 2^24 float32 take 64 MiB.
        dtype: float32, float16 or bfloat16, to halve that.
        table_seed: the table is the same for every run that has this seed.

    Raises:
        ValueError: if an argument is outside its range; in `init`, if the table is not larger than
            the parameters.
    """
    table_size = _checks.integer("table_size", table_size, 2)
    dtype = _checks.known("dtype", dtype, ("float32", "float16", "bfloat16"))
    table_seed = _checks.integer("table_seed", table_seed, 0, 2**32 - 1)

    def init(size: int) -> Shared:
        if size >= table_size:
            raise ValueError(
                f"table_size must be above the number of parameters, {size}, got {table_size}."
            )
        key = jax.random.key(table_seed)
        return Shared(jax.random.normal(key, (table_size,), jnp.float32).astype(dtype))

    def sample(key: Key, kept: Shared, direction: Array, size: int) -> Array:
        table, key = kept.value, jax.random.fold_in(key, direction)
        offset = jax.random.randint(key, (), 0, table.size - size + 1, jnp.int32)
        return jax.lax.dynamic_slice(table, (offset,), (size,)).astype(jnp.float32)

    return Noise(init, sample)


def _signs(key: Key, size: int) -> Array:
    words = jax.random.bits(key, (-(-size // 32),), jnp.uint32)
    bits = (words[:, None] >> jnp.arange(32, dtype=jnp.uint32)[None]) & jnp.uint32(1)
    return jnp.where(bits.ravel()[:size] == 1, jnp.float32(1), jnp.float32(-1))
