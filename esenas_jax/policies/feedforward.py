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
    """Sizes of fully connected layers, and where their edges and biases lie.

    Edges are numbered layer by layer, and within a layer by (source, target) in row-major order.
    With skips the sources of a layer are the nodes of all earlier ones, in their order. Hidden
    units have a bias, outputs have none, as in the release.
    """

    sizes: tuple[int, ...]
    skips: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(sources, targets) of each layer's edges."""
        sources = np.cumsum(self.sizes).tolist() if self.skips else self.sizes
        return tuple(zip(sources[:-1], self.sizes[1:], strict=True))

    @property
    def num_edges(self) -> int:
        """E, the edges when all are there."""
        return sum(a * b for a, b in self.shapes)

    @property
    def num_biases(self) -> int:
        """Hidden units."""
        return sum(self.sizes[1:-1])

    def network(self, weights: Array, biases: Array) -> Network:
        """Cut weights [E] and biases [hidden units] into layers."""
        w_ends = np.cumsum([a * b for a, b in self.shapes])[:-1]
        blocks = jnp.split(weights, w_ends)
        offsets = [*self.by_unit(biases), jnp.zeros(self.sizes[-1], jnp.float32)]
        return tuple(
            (w.reshape(shape), b) for w, shape, b in zip(blocks, self.shapes, offsets, strict=True)
        )

    def by_unit(self, values: Array) -> list[Array]:
        """Cut what hidden units have, [hidden units], into hidden layers."""
        return jnp.split(values, np.cumsum(self.sizes[1:-1]))[:-1]


def layers(
    obs_size: int, hidden: Sequence[int], action_size: int, *, skips: bool = False
) -> Layers:
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
    return Layers(sizes, skips)


def forward(
    network: Network,
    obs: Array,
    *,
    hidden_activations: Sequence[Activation],
    output_activation: Activation,
    linear_first_hidden: bool,
    skips: bool = False,
) -> Array:
    """Return the action [A] for an observation [O], with one product of matrices a layer.

    Args:
        network: weights and biases of every layer.
        obs: float32 [O].
        hidden_activations: of the units of each hidden layer.
        output_activation: of the outputs.
        linear_first_hidden: the released code's slip: the very first hidden unit has neither
            activation nor bias (`es_enas/policies.py`, `NumpyTopologyPolicy.get_action`).
        skips: a layer sees the nodes of all earlier ones, not only of the one before.
    """
    x = obs
    layers = zip(network[:-1], hidden_activations, strict=True)
    for depth, ((w, b), activation) in enumerate(layers):
        z = x @ w
        hidden = activation(z + b)
        if linear_first_hidden and depth == 0:
            hidden = hidden.at[0].set(z[0])
        x = jnp.concatenate([x, hidden]) if skips else hidden
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


def fan_out_normal(key: Key, shape: tuple[int, ...]) -> Array:
    """Draw weights [in, out] from N(0, 1 / out), as the released dense and Toeplitz policies do."""
    return jax.random.normal(key, shape, jnp.float32) / jnp.sqrt(jnp.float32(shape[-1]))


def zeros(key: Key, shape: tuple[int, ...]) -> Array:
    """Return zeros: where ARS starts its linear policies (arXiv 1803.07055, Algorithm 2)."""
    del key
    return jnp.zeros(shape, jnp.float32)
