"""What becomes of scores before they weigh directions. Failed entries count for nothing."""

import jax.numpy as jnp

from esenas_jax.types import Array


def z_score(values: Array, valid: Array) -> Array:
    """Return (values - mean) / std over the valid entries, as the released code does.

    The standard deviation has divisor n (`es_optimization/algorithms.py`). The release divides
    by zero when all scores are equal; here they all become 0.

    Args:
        values: float32 [M]; what stands where `valid` is False does not matter.
        valid: bool [M].

    Returns:
        float32 [M], 0 where invalid.
    """
    count = jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    values = jnp.where(valid, values, 0.0)
    deviation = jnp.where(valid, values - jnp.sum(values) / count, 0.0)
    std = jnp.sqrt(jnp.sum(deviation**2) / count)
    return jnp.where(
        spread(values, valid) > 0, deviation * reciprocal(jnp.where(std > 0, std, 1.0)), 0.0
    )


def centered_ranks(values: Array, valid: Array) -> Array:
    """Return ranks scaled to [-0.5, 0.5], ties averaged (OpenAI-ES, arXiv 1703.03864, section 2).

    Args:
        values: float32 [M].
        valid: bool [M].

    Returns:
        float32 [M], 0 where invalid; all 0 when every valid entry is the same.
    """
    count = jnp.sum(valid, dtype=jnp.int32)
    # Invalid entries sort behind all others; `left` and `right` bracket a value's ties.
    ordered = jnp.sort(jnp.where(valid, values, jnp.inf))
    # Unrolled, a search is one kernel of a GPU; as a loop it is one for every halving.
    left = jnp.searchsorted(ordered, values, side="left", method="scan_unrolled")
    right = jnp.searchsorted(ordered, values, side="right", method="scan_unrolled")
    right = jnp.minimum(right, count)
    average = (left + right - 1).astype(jnp.float32) / 2.0
    scale = jnp.maximum(count - 1, 1).astype(jnp.float32)
    return jnp.where(valid & (count > 1), (average - scale / 2.0) * reciprocal(scale), 0.0)


def raw(values: Array, valid: Array) -> Array:
    """Return the values as they are, 0 where invalid."""
    return jnp.where(valid, values, 0.0)


def reciprocal(x: Array) -> Array:
    """Return 1 / x, to multiply many numbers with where they are to be divided by x [].

    XLA turns a division of many numbers by one number into a product with the reciprocal in some
    programs, on one device for instance, and not in others. A product is the same bits in all.
    """
    return 1.0 / x


def spread(values: Array, valid: Array) -> Array:
    """Return max - min over the valid entries, float32 []; 0 if there are none."""
    high = jnp.max(jnp.where(valid, values, -jnp.inf))
    low = jnp.min(jnp.where(valid, values, jnp.inf))
    return jnp.where(jnp.any(valid), high - low, 0.0)
