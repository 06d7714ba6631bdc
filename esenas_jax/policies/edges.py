"""Edge pruning: a fixed number of edges is kept, the search says which."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.policies.dense import dense
from esenas_jax.policies.feedforward import Activation, Initializer, uniform
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import SubsetOf
from esenas_jax.types import Array, Cost, Key


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
        weight_init: of all edges' weights [E]; released U(-1, 1).
        bias_init: of the hidden biases; released U(-1, 1).
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy over `SubsetOf(E, K)` with the parameters of `dense`: weights [E], then biases.

    Raises:
        ValueError: if the network has fewer than `num_edges` edges.

    Example:
        >>> policy = edge_pruned(11, (32,), 3, num_edges=64)
        >>> policy.space
        SubsetOf(num_items=448, num_chosen=64)
    """
    base = dense(
        obs_size,
        hidden,
        action_size,
        hidden_activation=hidden_activation,
        output_activation=output_activation,
        linear_first_hidden=linear_first_hidden,
    )
    total, num_biases = base.max_edges, base.num_params - base.max_edges
    kept = _checks.integer("num_edges", num_edges, 1, total)

    def init(key: Key) -> Array:
        k_weights, k_biases = jax.random.split(key)
        return jnp.concatenate(
            [weight_init(k_weights, (total,)), bias_init(k_biases, (num_biases,))]
        )

    def used(genotype: Array) -> Array:
        chosen = jnp.zeros(total, bool).at[genotype].set(True)
        return jnp.concatenate([chosen, base.used(())[total:]])

    def bind(params: Array, genotype: Array) -> tuple[tuple[Array, Array], ...]:
        # A selection, not a product: a pruned weight cannot matter, whatever its value.
        return base.bind(jnp.where(used(genotype), params, 0.0), ())

    def cost(genotype: Array) -> Cost:
        del genotype
        return Cost(jnp.int32(kept), jnp.int32(kept))

    return base._replace(space=SubsetOf(total, kept), init=init, bind=bind, used=used, cost=cost)
