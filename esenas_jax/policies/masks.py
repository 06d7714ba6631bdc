"""What the policies with pruned edges share: each is made of a policy that has all of its edges."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.feedforward import Initializer, uniform
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import OneOf, Repeat, Space, SubsetOf
from esenas_jax.types import Array, Cost, Genotype, Key, PyTree


def masked(
    base: Policy,
    space: Space,
    chosen: Callable[[Genotype], Array],
    cost: Callable[[Genotype], Cost],
    weight_init: Initializer,
    bias_init: Initializer,
) -> Policy:
    """Return the policy that has some of another one's edges.

    The weight of an edge that is not chosen persists, and is shared by all architectures that
    choose it.

    Args:
        base: a policy that has every edge and nothing to search, with parameters: weights [E], then
            biases.
        space: of the architectures.
        chosen: genotype -> bool [E], which edges it has.
        cost: genotype -> what it costs.
        weight_init: of all edges' weights [E].
        bias_init: of the biases.
    """
    total, num_biases = base.max_edges, base.num_params - base.max_edges

    def init(key: Key) -> Array:
        k_weights, k_biases = jax.random.split(key)
        return jnp.concatenate(
            [weight_init(k_weights, (total,)), bias_init(k_biases, (num_biases,))]
        )

    def used(genotype: Genotype) -> Array:
        return jnp.concatenate([chosen(genotype), base.used(())[total:]])

    def bind(params: Array, genotype: Genotype) -> PyTree:
        # A selection, not a product: a pruned weight cannot matter, whatever its value.
        return base.bind(jnp.where(used(genotype), params, 0.0), ())

    return base._replace(space=space, init=init, bind=bind, used=used, cost=cost)


def so_many_edges(
    base: Policy,
    num_edges: int | None,
    weight_init: Initializer = uniform,
    bias_init: Initializer = uniform,
) -> Policy:
    """Return the policy that keeps `num_edges` of another one's edges, see `masked`."""
    total = base.max_edges
    kept = _checks.integer("num_edges", num_edges, 1, total)
    entropy = costs.subset_entropy(total, kept)

    def chosen(genotype: Array) -> Array:
        return members(total, genotype)

    def cost(genotype: Array) -> Cost:
        del genotype
        return costs.pruned(base.cost(()), total, kept, code=total, entropy=entropy)

    return masked(base, SubsetOf(total, kept), chosen, cost, weight_init, bias_init)


def any_edges(
    base: Policy, weight_init: Initializer = uniform, bias_init: Initializer = uniform
) -> Policy:
    """Return the policy that keeps any number of another one's edges, see `masked`."""
    total = base.max_edges

    def chosen(genotype: Array) -> Array:
        return genotype == 1

    def cost(genotype: Array) -> Cost:
        kept = jnp.sum(genotype, dtype=jnp.int32)
        entropy = costs.choice_entropy(jnp.stack([kept, total - kept]))
        return costs.pruned(base.cost(()), total, kept, code=total, entropy=entropy)

    return masked(base, Repeat(OneOf(2), total), chosen, cost, weight_init, bias_init)


def members(total: int, items: Array) -> Array:
    """Return bool [total], True at `items`."""
    return jnp.zeros(total, bool).at[items].set(True)
