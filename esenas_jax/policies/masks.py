"""What the policies with pruned edges share: each is made of a policy that has all of its edges."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.feedforward import BY_NUMBER, Initializer
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import OneOf, Repeat, Space, SubsetOf
from esenas_jax.types import Array, Cost, Genotype, Key, PyTree


def masked(
    base: Policy,
    space: Space,
    chosen: Callable[[Genotype], Array],
    cost: Callable[[Genotype], Cost],
) -> Policy:
    """Return the policy that has some of another one's edges.

    The weight of an edge that is not chosen persists, and is shared by all architectures that
    choose it.

    Args:
        base: a policy that has every edge and nothing to search, with parameters: weights [E], then
            biases. They start as it starts them.
        space: of the architectures.
        chosen: genotype -> bool [E], which edges it has.
        cost: genotype -> what it costs.
    """
    total = base.max_edges

    def used(genotype: Genotype) -> Array:
        return jnp.concatenate([chosen(genotype), base.used(())[total:]])

    def bind(params: Array, genotype: Genotype) -> PyTree:
        # A selection, not a product: a pruned weight cannot matter, whatever its value.
        return base.bind(jnp.where(used(genotype), params, 0.0), ())

    return base._replace(space=space, bind=bind, used=used, cost=cost)


def drawing(
    base: Policy,
    weight_init: Initializer,
    bias_init: Initializer,
    edges: np.ndarray | None = None,
) -> Callable[[Key], Array]:
    """Return `init` of a policy with some of another one's edges: key -> weights, then biases.

    Initialisers that draw every number alike draw all weights at once, as those of the released
    edge policies do. Others need a layer's matrix, and all of them are drawn as the base does.

    Args:
        base: as `masked` has it, made with these initialisers.
        weight_init: of the weights.
        bias_init: of the biases.
        edges: those that there are weights for [K]; by default all.
    """
    total, num_biases = base.max_edges, base.num_params - base.max_edges
    edges = np.arange(total) if edges is None else edges

    def init(key: Key) -> Array:
        if weight_init not in BY_NUMBER:
            params = base.init(key)
            return jnp.concatenate([params[edges], params[total:]])
        k_weights, k_biases = jax.random.split(key)
        return jnp.concatenate(
            [weight_init(k_weights, (edges.size,)), bias_init(k_biases, (num_biases,))]
        )

    return init


def so_many_edges(base: Policy, num_edges: int | None) -> Policy:
    """Return the policy that keeps `num_edges` of another one's edges, see `masked`."""
    total = base.max_edges
    kept = _checks.integer("num_edges", num_edges, 1, total)
    entropy = costs.subset_entropy(total, kept)

    def chosen(genotype: Array) -> Array:
        return members(total, genotype)

    def cost(genotype: Array) -> Cost:
        del genotype
        return costs.pruned(base.cost(()), total, kept, code=total, entropy=entropy)

    return masked(base, SubsetOf(total, kept), chosen, cost)


def any_edges(base: Policy) -> Policy:
    """Return the policy that keeps any number of another one's edges, see `masked`."""
    total = base.max_edges

    def chosen(genotype: Array) -> Array:
        return genotype == 1

    def cost(genotype: Array) -> Cost:
        kept = jnp.sum(genotype, dtype=jnp.int32)
        entropy = costs.choice_entropy(jnp.stack([kept, total - kept]))
        return costs.pruned(base.cost(()), total, kept, code=total, entropy=entropy)

    return masked(base, Repeat(OneOf(2), total), chosen, cost)


def members(total: int, items: Array) -> Array:
    """Return bool [total], True at `items`."""
    return jnp.zeros(total, bool).at[items].set(True)
