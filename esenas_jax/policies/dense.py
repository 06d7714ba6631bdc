"""Every edge, nothing to search: the policy of plain ES and ARS."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from esenas_jax.policies import costs
from esenas_jax.policies.feedforward import (
    Activation,
    Initializer,
    Layers,
    Network,
    fan_in_normal,
    forward,
    layers,
    zeros,
)
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import OneOf, Repeat
from esenas_jax.types import Array, Cost, Genotype, Key

NOTHING = Repeat(OneOf(1), 0)  # the space with one element


def dense(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = fan_in_normal,
    bias_init: Initializer = zeros,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the fully connected policy.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () is a linear policy.
        action_size: A, at least 1.
        hidden_activation: of hidden units.
        output_activation: of the outputs; ARS has none (`identity`).
        weight_init: of each layer's weights [in, out].
        bias_init: of the hidden biases.
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy of P = E + hidden units parameters, whose space has one element.

    Raises:
        TypeError, ValueError: if a size is not a positive integer.

    Example:
        >>> policy = dense(17, (41,), 6)
        >>> policy.max_edges, policy.num_params
        (943, 984)
    """
    return fully_connected(
        layers(obs_size, hidden, action_size),
        hidden_activation=hidden_activation,
        output_activation=output_activation,
        weight_init=weight_init,
        bias_init=bias_init,
        linear_first_hidden=linear_first_hidden,
    )


def fully_connected(
    shape: Layers,
    *,
    hidden_activation: Activation,
    output_activation: Activation,
    weight_init: Initializer = fan_in_normal,
    bias_init: Initializer = zeros,
    linear_first_hidden: bool,
) -> Policy:
    """Return the policy that has every edge of its layers: what others of this folder are made of.

    Args:
        shape: the layers, with skips or without.
        hidden_activation: see `dense`, as the rest.
        output_activation: likewise.
        weight_init: likewise.
        bias_init: likewise.
        linear_first_hidden: likewise.
    """
    num_edges, num_biases = shape.num_edges, shape.num_biases

    def init(key: Key) -> Array:
        keys = jax.random.split(key, len(shape.sizes))
        pairs = zip(keys[1:], shape.shapes, strict=True)
        weights = [weight_init(k, block).ravel() for k, block in pairs]
        return jnp.concatenate([*weights, bias_init(keys[0], (num_biases,))])

    def bind(params: Array, genotype: Genotype) -> Network:
        del genotype
        return shape.network(params[:num_edges], params[num_edges:])

    def apply(network: Network, obs: Array) -> Array:
        return forward(
            network,
            obs,
            hidden_activations=[hidden_activation] * len(shape.sizes[1:-1]),
            output_activation=output_activation,
            linear_first_hidden=linear_first_hidden,
            skips=shape.skips,
        )

    # The slip's unit, the first hidden one, has a bias that is never read.
    slips = bool(linear_first_hidden and num_biases)

    def used(genotype: Genotype) -> Array:
        del genotype
        return jnp.ones(num_edges + num_biases, bool).at[num_edges : num_edges + slips].set(False)

    def cost(genotype: Genotype) -> Cost:
        del genotype
        return costs.cost(edges=num_edges, weights=num_edges, biases=num_biases - slips)

    return Policy(
        obs_size=shape.sizes[0],
        action_size=shape.sizes[-1],
        num_params=num_edges + num_biases,
        max_edges=num_edges,
        space=NOTHING,
        init=init,
        bind=bind,
        apply=apply,
        used=used,
        cost=cost,
        matrices=None if shape.skips else lambda network: [w for w, _ in network],
        shapes=Layers(shape.sizes).shapes,
    )
