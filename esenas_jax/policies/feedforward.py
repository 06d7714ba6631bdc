"""The feed-forward network that the policies of this folder bind to."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.types import Array, Key

Initializer = Callable[[Key, tuple[int, ...]], Array]
Activation = Callable[[Array], Array]
# Per layer: weights [in, out] and bias [out]; with skips, in place of the weights, a block of them
# [out, units] for each earlier layer. That way round, products with few outputs are the fastest.
Network = tuple[tuple[Array | tuple[Array, ...], Array], ...]


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
        ends = np.cumsum([a * b for a, b in self.shapes])[:-1]
        pairs = zip(jnp.split(weights, ends), self.shapes, strict=True)
        blocks = [self._by_source(w.reshape(shape)) for w, shape in pairs]
        offsets = [*self.by_unit(biases), jnp.zeros(self.sizes[-1], jnp.float32)]
        return tuple(zip(blocks, offsets, strict=True))

    def _by_source(self, block: Array) -> Array | tuple[Array, ...]:
        if not self.skips:
            return block
        ends = np.cumsum(self.sizes)
        return tuple(w.T for w in jnp.split(block, ends[ends < len(block)]))

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
    return Layers(sizes, skips and len(sizes) > 2)


def forward(
    network: Network,
    obs: Array,
    *,
    hidden_activations: Sequence[Activation],
    output_activation: Activation,
    linear_first_hidden: bool,
    skips: bool = False,
) -> Array:
    """Return the action [A] for an observation [O], layer by layer.

    Args:
        network: weights and biases of every layer.
        obs: float32 [O].
        hidden_activations: of the units of each hidden layer.
        output_activation: of the outputs.
        linear_first_hidden: the released code's slip: the very first hidden unit has neither
            activation nor bias (`es_enas/policies.py`, `NumpyTopologyPolicy.get_action`).
        skips: a layer sees the nodes of all earlier ones, not only of the one before.
    """

    def sums(weights: Any) -> Array:
        if not skips:
            return seen[-1] @ weights
        blocks = (w @ x for w, x in zip(weights, seen, strict=True))
        return functools.reduce(operator.add, blocks)

    seen = [obs]
    layers = zip(network[:-1], hidden_activations, strict=True)
    for depth, ((w, b), activation) in enumerate(layers):
        z = sums(w)
        hidden = activation(z + b)
        if linear_first_hidden and depth == 0:
            hidden = hidden.at[0].set(z[0])
        seen.append(hidden)
    return output_activation(sums(network[-1][0]))


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


BY_NUMBER = (uniform, normal, zeros)  # draw every number alike, whatever the shape
BY_MATRIX = (fan_in_normal, fan_out_normal)  # need to know the matrix that a number is in
