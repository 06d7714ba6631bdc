"""Where perturbations come from: addressed by direction, made again rather than kept."""

import jax
import jax.numpy as jnp

from esenas_jax.types import Array, Key


def gaussian(key: Key, direction: Array, size: int) -> Array:
    """Return direction's perturbation, float32 [size], each entry N(0, 1) and independent.

    Args:
        key: the generation's noise key.
        direction: int32 [].
        size: P.
    """
    return jax.random.normal(jax.random.fold_in(key, direction), (size,), jnp.float32)
