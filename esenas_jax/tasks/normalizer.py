"""Observation normalisation by moments of all states seen while alive, in O(observation) memory."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from esenas_jax.types import Array


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of everything seen since the run began.

    The count is a float: it cannot overflow, and its rounding (1 in 2^24) moves no digit that
    matters. Means and deviations do not cancel the way sums of squares do in float32.
    """

    count: Array  # float32 []
    mean: Array  # float32 [O]
    deviation: Array  # float32 [O], sum of (x - mean)^2


class Sums(NamedTuple):
    """What one generation adds, relative to the mean that stood when it began."""

    count: Array  # float32 []
    first: Array  # float32 [O], sum of x - mean
    second: Array  # float32 [O], sum of (x - mean)^2


class Normalizer(NamedTuple):
    """How observations are scaled before a policy sees them.

    Frozen within a generation; (observation - mean) * scale with the (mean, scale) of `affine`.
    """

    counts_reset: bool  # True: states fed to the policy are counted. False: states returned by step
    enabled: bool
    affine: Callable[[Moments], tuple[Array, Array]]  # moments -> mean [O], scale [O]


def identity_normalizer() -> Normalizer:
    """Return the normalizer that leaves observations as they are."""
    return Normalizer(False, False, lambda m: (jnp.zeros_like(m.mean), jnp.ones_like(m.mean)))


def es_normalizer() -> Normalizer:
    """Return the convention of the released ES-ENAS (google-research, `es_optimization`).

    (x - mean) / std with the population's standard deviation, 1 where that is 0; states returned by
    `step` are counted, the reset state is not.
    """

    def affine(moments: Moments) -> tuple[Array, Array]:
        std = jnp.sqrt(moments.deviation / jnp.maximum(moments.count, 1.0))
        return _mean_so_far(moments), 1.0 / jnp.where(std > 0, std, 1.0)

    return Normalizer(counts_reset=False, enabled=True, affine=affine)


def ars_normalizer() -> Normalizer:
    """Return the convention of ARS V2 (arXiv 1803.07055; its code's `filter.py`).

    (x - mean) / (std + 1e-8) with divisor n - 1; an input whose standard deviation is below 1e-7
    becomes 0. States fed to the policy are counted: the reset state, but not the last one.
    """

    def affine(moments: Moments) -> tuple[Array, Array]:
        std = jnp.sqrt(moments.deviation / jnp.maximum(moments.count - 1.0, 1.0))
        scale = jnp.where(std < 1e-7, 0.0, 1.0 / (std + 1e-8))
        return _mean_so_far(moments), jnp.where(moments.count > 1, scale, 1.0)

    return Normalizer(counts_reset=True, enabled=True, affine=affine)


def _mean_so_far(moments: Moments) -> Array:
    # Before anything was counted `mean` is only what deviations are summed from.
    return jnp.where(moments.count > 0, moments.mean, 0.0)


def init_moments(obs_size: int) -> Moments:
    """Return the moments of nothing: mean 0, and every normalizer's first scale is 1."""
    zeros = jnp.zeros(obs_size, jnp.float32)
    return Moments(jnp.zeros((), jnp.float32), zeros, zeros)


def zero_sums(obs_size: int) -> Sums:
    """Return sums over nothing."""
    return Sums(*init_moments(obs_size))


def merge(moments: Moments, sums: Sums) -> Moments:
    """Return the moments with a generation's sums merged in (Chan, Golub and LeVeque, 1983)."""
    count = moments.count + sums.count
    safe = jnp.maximum(count, 1.0)
    shift = sums.first / safe
    return Moments(
        count=count,
        mean=moments.mean + shift,
        # sum (x - new)^2 = sum (x - old)^2 - count * shift^2, never below 0 but for rounding.
        deviation=jnp.maximum(moments.deviation + sums.second - count * shift**2, 0.0),
    )
