"""Edge pruning: a fixed number of edges is kept, the search says which."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.dense import dense, fully_connected
from esenas_jax.policies.feedforward import Activation, Initializer, layers, uniform
from esenas_jax.policies.masks import drawing, masked, members, so_many_edges
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import Product, SubsetOf
from esenas_jax.types import Array, Cost, Genotype


def edge_pruned(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_edges: int,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = uniform,
    bias_init: Initializer = uniform,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy that keeps `num_edges` edges of the dense one, anywhere in the network.

    This is the released "aggregate" mode (`es_enas/policies.py`): a genotype is a set of distinct
    edges of consecutive layers. The weight of an edge that is not chosen persists, and is shared by
    all architectures that choose it.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () prunes a linear policy.
        action_size: A, at least 1.
        num_edges: K, in [1, E].
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of the edges' weights, see `masks.drawing`; released U(-1, 1).
        bias_init: of the hidden biases; released U(-1, 1).
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy over `SubsetOf(E, K)` with the parameters of `dense`: weights [E], then biases.

    Raises:
        ValueError: if the network has fewer than `num_edges` edges.

    Example:
        >>> policy = edge_pruned(11, (32,), 3, num_edges=64)
        >>> print(policy.space)
        64 of 448
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
    return so_many_edges(base, num_edges)


def residual_edges(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_edges: int,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = uniform,
    bias_init: Initializer = uniform,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy of `num_edges` edges that may skip layers, from observation to action too.

    This is the released "residual" mode (`es_enas/policies.py`): candidates are the edges from any
    layer to any later one, numbered as `feedforward.Layers` with skips says. A layer sums one
    product of matrices for each earlier layer.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () prunes a linear policy.
        action_size: A, at least 1.
        num_edges: K, in [1, E]; E is the number of candidates, more than the dense network has.
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of the edges' weights, see `masks.drawing`; released U(-1, 1).
        bias_init: of the hidden biases; released U(-1, 1).
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy over `SubsetOf(E, K)` with parameters: weights [E], then biases.

    Raises:
        ValueError: if there are fewer than `num_edges` candidates.

    Example:
        >>> policy = residual_edges(11, (32,), 3, num_edges=64)
        >>> print(policy.space)
        64 of 481
    """
    base = fully_connected(
        layers(obs_size, hidden, action_size, skips=True),
        hidden_activation=hidden_activation,
        output_activation=output_activation,
        weight_init=weight_init,
        bias_init=bias_init,
        linear_first_hidden=linear_first_hidden,
    )
    base = base._replace(init=drawing(base, weight_init, bias_init))
    return so_many_edges(base, num_edges)


def independent_edges(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_edges: Sequence[int],
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = uniform,
    bias_init: Initializer = uniform,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy that keeps a fixed number of edges in each layer of the dense one.

    This is the mode "independent" of Iris (`iris/policies/nas_policy.py`); the release has it too,
    but mistakes its name and decodes nothing.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () prunes a linear policy.
        action_size: A, at least 1.
        num_edges: K of each layer, from the observation to the action: one number more than hidden
            layers, each in [1, the layer's edges].
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of the edges' weights, see `masks.drawing`; released U(-1, 1).
        bias_init: of the hidden biases; released U(-1, 1).
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy over a `Product` of one `SubsetOf` a layer, each over the layer's own edges, with
        the parameters of `dense`: weights [E], then biases.

    Raises:
        TypeError, ValueError: if there is not one number a layer, or a layer has fewer edges.

    Example:
        >>> policy = independent_edges(11, (32,), 3, num_edges=(48, 16))
        >>> print(policy.space)
        {0: 48 of 352, 1: 16 of 96}
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
    if isinstance(num_edges, int) or len(num_edges) != len(base.shapes):
        raise ValueError(
            f"num_edges must be one number for each of the {len(base.shapes)} layers of edges, got "
            f"{num_edges!r}."
        )
    totals = [n_in * n_out for n_in, n_out in base.shapes]
    kept = [
        _checks.integer(f"num_edges of layer {depth}", number, 1, total)
        for depth, (number, total) in enumerate(zip(num_edges, totals, strict=True))
    ]
    starts = [0, *np.cumsum(totals)[:-1].tolist()]
    entropy = sum(map(costs.subset_entropy, totals, kept))

    def chosen(genotype: Genotype) -> Array:
        parts = zip(starts, genotype, strict=True)
        return members(base.max_edges, jnp.concatenate([start + part for start, part in parts]))

    def cost(genotype: Genotype) -> Cost:
        del genotype
        total = base.max_edges
        return costs.pruned(base.cost(()), total, sum(kept), code=total, entropy=entropy)

    space = Product(tuple(map(SubsetOf, totals, kept)))
    return masked(base, space, chosen, cost)
