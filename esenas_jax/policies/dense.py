"""Every edge, nothing to search: the policy of plain ES and ARS."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from esenas_jax.policies.feedforward import (
    Activation,
    Initializer,
    fan_in_normal,
    forward,
    layers,
    zeros,
)
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import OneOf, Repeat
from esenas_jax.types import Array, Cost, Genotype, Key


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
    shape = layers(obs_size, hidden, action_size)
    num_edges, num_biases = shape.num_edges, shape.num_biases

    def init(key: Key) -> Array:
        keys = jax.random.split(key, len(shape.sizes))
        pairs = zip(keys[1:], shape.sizes, shape.sizes[1:], strict=False)
        weights = [weight_init(k, (n_in, n_out)).ravel() for k, n_in, n_out in pairs]
        return jnp.concatenate([*weights, bias_init(keys[0], (num_biases,))])

    def bind(params: Array, genotype: Genotype) -> tuple[tuple[Array, Array], ...]:
        del genotype
        return shape.network(params[:num_edges], params[num_edges:])

    def apply(network: tuple[tuple[Array, Array], ...], obs: Array) -> Array:
        return forward(
            network,
            obs,
            hidden_activation=hidden_activation,
            output_activation=output_activation,
            linear_first_hidden=linear_first_hidden,
        )

    def used(genotype: Genotype) -> Array:
        del genotype
        # The slip's unit, the first hidden one, has a bias that is never read.
        return (
            jnp.ones(num_edges + num_biases, bool)
            .at[num_edges]
            .set(not linear_first_hidden, mode="drop")
        )

    def cost(genotype: Genotype) -> Cost:
        del genotype
        return Cost(jnp.int32(num_edges), jnp.int32(num_edges))

    return Policy(
        obs_size=shape.sizes[0],
        action_size=shape.sizes[-1],
        num_params=num_edges + num_biases,
        max_edges=num_edges,
        space=Repeat(OneOf(1), 0),
        init=init,
        bind=bind,
        apply=apply,
        used=used,
        cost=cost,
        matrices=lambda network: [w for w, _ in network],
    )
