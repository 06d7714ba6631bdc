"""The feed-forward network that the policies of this folder bind to."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.types import Array, Key

Initializer = Callable[[Key, tuple[int, ...]], Array]
Activation = Callable[[Array], Array]
Network = tuple[tuple[Array, Array], ...]  # per layer: weights [in, out], bias [out]


class Layers(NamedTuple):
    """Sizes of consecutive fully connected layers, and where their edges and biases lie.

    Edges are numbered layer by layer, and within a layer by (source, target) in row-major order.
    Hidden units have a bias, outputs have none, as in the release.
    """

    sizes: tuple[int, ...]

    @property
    def num_edges(self) -> int:
        """E, the edges of the dense network."""
        return sum(a * b for a, b in zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def num_biases(self) -> int:
        """Hidden units."""
        return sum(self.sizes[1:-1])

    def network(self, weights: Array, biases: Array) -> Network:
        """Cut weights [E] and biases [hidden units] into layers."""
        shapes = list(zip(self.sizes, self.sizes[1:], strict=False))
        w_ends = np.cumsum([a * b for a, b in shapes])[:-1]
        b_ends = np.cumsum(self.sizes[1:-1])
        blocks = jnp.split(weights, w_ends)
        offsets = [*jnp.split(biases, b_ends)[:-1], jnp.zeros(self.sizes[-1], jnp.float32)]
        return tuple(
            (w.reshape(shape), b) for w, shape, b in zip(blocks, shapes, offsets, strict=True)
        )


def layers(obs_size: int, hidden: Sequence[int], action_size: int) -> Layers:
    """Check the layer sizes of a network; no hidden layer makes it linear.

    Raises:
        TypeError, ValueError: if a size is not a positive integer.
    """
    if isinstance(hidden, int):
        raise TypeError(f"hidden must be a sequence of layer sizes such as (32,), got {hidden}.")
    sizes = (
        _checks.integer("obs_size", obs_size, 1),
        *(_checks.integer("a hidden layer's size", size, 1) for size in hidden),
        _checks.integer("action_size", action_size, 1),
    )
    return Layers(sizes)


def forward(
    network: Network,
    obs: Array,
    *,
    hidden_activation: Activation,
    output_activation: Activation,
    linear_first_hidden: bool,
) -> Array:
    """Return the action [A] for an observation [O].

    Args:
        network: weights and biases of every layer.
        obs: float32 [O].
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        linear_first_hidden: the released code's slip: the very first hidden unit has neither
            activation nor bias (`es_enas/policies.py`, `NumpyTopologyPolicy.get_action`).
    """
    x = obs
    for depth, (w, b) in enumerate(network[:-1]):
        z = x @ w
        x = hidden_activation(z + b)
        if linear_first_hidden and depth == 0:
            x = x.at[0].set(z[0])
    return output_activation(x @ network[-1][0])


def identity(x: Array) -> Array:
    """Return `x`: the output activation of ARS."""
    return x


def uniform(key: Key, shape: tuple[int, ...]) -> Array:
    """Draw from U(-1, 1), as the released edge policies do."""
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)


def normal(key: Key, shape: tuple[int, ...]) -> Array:
    """Draw from N(0, 1), as the released weight-sharing policy does."""
    return jax.random.normal(key, shape, jnp.float32)


def fan_in_normal(key: Key, shape: tuple[int, ...]) -> Array:
    """Draw weights [in, out] from N(0, 1 / in)."""
    return jax.random.normal(key, shape, jnp.float32) / jnp.sqrt(jnp.float32(shape[0]))


def zeros(key: Key, shape: tuple[int, ...]) -> Array:
    """Return zeros: where ARS starts its linear policies (arXiv 1803.07055, Algorithm 2)."""
    del key
    return jnp.zeros(shape, jnp.float32)
