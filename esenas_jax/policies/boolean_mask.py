"""Edge pruning where each edge is in or out on its own."""

from collections.abc import Sequence

import jax.numpy as jnp

from esenas_jax.policies.dense import dense
from esenas_jax.policies.feedforward import Activation, Initializer, uniform
from esenas_jax.policies.masks import any_edges, drawing
from esenas_jax.policies.policy import Policy


def boolean_mask(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = uniform,
    bias_init: Initializer = uniform,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy that keeps any number of edges of the dense one.

    The released `EfficientNetPolicy`: a genotype has a 1 for every edge of consecutive layers that
    is there. An architecture drawn at random keeps half of them: whoever wants few says so in the
    objective.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () prunes a linear policy.
        action_size: A, at least 1.
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of the edges' weights, see `masks.drawing`; released U(-1, 1).
        bias_init: of the hidden biases; released U(-1, 1).
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy over `Repeat(OneOf(2), E)` with the parameters of `dense`: weights [E], then
        biases.

    Raises:
        TypeError, ValueError: if a size is not a positive integer.

    Example:
        >>> boolean_mask(11, (32,), 3).space
        Repeat(space=OneOf(num_categories=2), times=448)
    """
    base = dense(
        obs_size,
        hidden,
        action_size,
        hidden_activation=hidden_activation,
        output_activation=output_activation,
        weight_init=weight_init,
        bias_init=bias_init,
        linear_first_hidden=linear_first_hidden,
    )
    base = base._replace(init=drawing(base, weight_init, bias_init))
    return any_edges(base)
