"""Flax networks for images and numbers, whose kernels can be searched: see `from_flax`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.policies.feedforward import Initializer, normal
from esenas_jax.policies.flax_module import from_flax
from esenas_jax.policies.policy import Policy
from esenas_jax.types import Array

COMPUTE_DTYPES = ("float32", "bfloat16")


def flax_dense(
    obs_size: int,
    action_size: int,
    *,
    hidden: Sequence[int] = (64,),
    compute_dtype: str = "float32",
    search: str | None = None,
    num_edges: int | None = None,
    num_partitions: int | None = None,
    where: str | None = None,
    weight_init: Initializer = normal,
) -> Policy:
    """Return a dense Flax network with biases and rectified hidden units.

    Args:
        obs_size: O, at least 1.
        action_size: A, at least 1; outputs are linear.
        hidden: sizes of the hidden layers.
        compute_dtype: "float32" or "bfloat16", of what a network computes; parameters and outputs
            are float32.
        search: see `from_flax`, with those that follow.
        num_edges: of search "edges".
        num_partitions: of search "partition".
        where: the layers that are searched, "layers_0", "layers_2", ...; by default all.
        weight_init: of shared weights.

    Raises:
        TypeError, ValueError: if a number is outside its range, and as `from_flax`.
    """
    nn, dtype = _flax(compute_dtype)
    obs_size = _checks.integer("obs_size", obs_size, 1)
    action_size = _checks.integer("action_size", action_size, 1)
    layers: list[Callable[..., Any]] = []
    for size in hidden:
        layers += [nn.Dense(_checks.integer("hidden", size, 1), dtype=dtype), nn.relu]
    return from_flax(
        nn.Sequential([*layers, nn.Dense(action_size, dtype=dtype)]),
        jnp.zeros(obs_size, jnp.float32),
        search=search,  # pyright: ignore[reportArgumentType]
        num_edges=num_edges,
        num_partitions=num_partitions,
        where=where,
        weight_init=weight_init,
    )


def flax_convolutional(
    obs_size: int,
    action_size: int,
    *,
    image: Sequence[int] = (8, 8, 1),
    channels: Sequence[int] = (8, 16, 32),
    strides: Sequence[int] = (2, 2, 1),
    compute_dtype: str = "float32",
    search: str | None = None,
    num_edges: int | None = None,
    num_partitions: int | None = None,
    where: str | None = None,
    weight_init: Initializer = normal,
) -> Policy:
    """Return a convolutional Flax network: 3x3 windows, rectified; their mean; a linear layer.

    A convolution is a dense layer over windows: of many candidates, each with its own kernels, a
    CPU does such products well and grouped convolutions badly. 64 candidates on the same 256 images
    took 13 ms on two cores, 8 at a time, and 34 ms as `nn.Conv`; 32 at a time 38 and 26 ms.

    Args:
        obs_size: O, the number of pixels of an image.
        action_size: A, at least 1; outputs are linear.
        image: height, width and channels; their product is O.
        channels: of each convolution.
        strides: of each convolution; edges are padded with zeros.
        compute_dtype: "float32" or "bfloat16", of what a network computes; parameters and outputs
            are float32.
        search: see `from_flax`, with those that follow.
        num_edges: of search "edges".
        num_partitions: of search "partition".
        where: the layers that are searched, "layers_1", "layers_4", ...; by default all.
        weight_init: of shared weights.

    Returns:
        By default 6,218 parameters.

    Raises:
        TypeError, ValueError: if a number is outside its range, and as `from_flax`.
    """
    nn, dtype = _flax(compute_dtype)
    image = tuple(_checks.integer("image", size, 1) for size in image)
    action_size = _checks.integer("action_size", action_size, 1)
    if len(image) != 3 or jnp.zeros(image).size != obs_size:
        raise ValueError(
            f"image must be height, width and channels of the {obs_size} observations, got {image}."
        )
    if len(channels) != len(strides) or not channels:
        raise ValueError(
            f"strides must be one for each of the channels {tuple(channels)}, got {tuple(strides)}."
        )
    layers: list[Callable[..., Any]] = []
    for features, stride in zip(channels, strides, strict=True):
        windows = _Windows(_checks.integer("strides", stride, 1))
        dense = nn.Dense(_checks.integer("channels", features, 1), dtype=dtype)
        layers += [windows, dense, nn.relu]
    return from_flax(
        nn.Sequential([*layers, _mean_over_places, nn.Dense(action_size, dtype=dtype)]),
        jnp.zeros(image, jnp.float32),
        search=search,  # pyright: ignore[reportArgumentType]
        num_edges=num_edges,
        num_partitions=num_partitions,
        where=where,
        weight_init=weight_init,
    )


class _Windows:
    """Image [h, w, c] -> the 3x3 window around each place that a stride visits, [.., .., 9 c]."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        height, width, _ = x.shape
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        shifted = [
            padded[i : i + height : self.stride, j : j + width : self.stride]
            for i in range(3)
            for j in range(3)
        ]
        return jnp.concatenate(shifted, axis=-1)


def _mean_over_places(x: Array) -> Array:
    return jnp.mean(x, axis=(0, 1))


def _flax(compute_dtype: str) -> tuple[Any, Any]:
    from flax import linen as nn  # here, because it takes its time

    return nn, jnp.dtype(_checks.known("compute_dtype", compute_dtype, COMPUTE_DTYPES))
